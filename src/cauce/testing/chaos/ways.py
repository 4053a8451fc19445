"""How a stream is begun, and how whoever began it reads on and cancels: by the id it chose, by a call with a key, or as a response in the background.

| way | begun by | read on by | cancelled by |
|---|---|---|---|
| `stream` | `POST /chat/stream/{id}` | `GET /chat/stream/{id}/resume` | `DELETE /chat/stream/{id}` |
| `keyed chat`, `keyed messages` | the call of its wire, with `Idempotency-Key` | the same call once more, with `Last-Event-ID` | `DELETE /chat/stream/{wire}:{key}` |
| `background` | `POST /v1/responses` in the background, with a key | `GET /v1/responses/{id}` with `starting_after` | `POST /v1/responses/{id}/cancel` |

Each can be read by its id under `/chat/stream` too, on any wire: that is what tells whether it is numbered, whole and the same for everybody.
"""

import hashlib
from typing import Any, Literal

import msgspec

from cauce.testing.chaos.calls import TOOL, TOOLS
from cauce.testing.chaos.reader import Begun, Frame, Wire

Way = Literal["stream", "keyed chat", "keyed messages", "background"]

_MOST_TOKENS = 1_000_000

_STANDS = {"in_progress": "running"}
"""What a stream is said to be, by the word of the Responses wire, where that is another one."""

_WITHOUT_TAIL = 1 << 60


class Asked(msgspec.Struct, frozen=True):
    """What a stream is begun with. `stream` is the id that it gets."""

    way: Way
    stream: str
    wire: Wire
    begun: Begun
    cancelled_by: tuple[str, str]
    """Method and target."""


def asked(way: Way, name: str, model: str, said: str, *, calls: bool, stays: bool) -> Asked:
    """The request that begins the stream `name` in that way. `calls`: it has tools; `stays`: it is not cancelled when its readers leave,
    whatever is usual."""
    body: dict[str, Any] = {"model": model, "stream": True, "user": name}
    headers = {"idempotency_key": name} | ({"x_cauce_on_disconnect": "continue"} if stays else {})
    messages = [{"role": "user", "content": said}]
    function = TOOLS[0]["function"]
    match way:
        case "stream":
            body = {"model": model, "messages": messages, "user": name} | ({"tools": TOOLS} if calls else {})
            return _named(way, name, "native", Begun(f"/chat/stream/{name}", body))
        case "keyed chat":
            body |= {"messages": messages} | ({"tools": TOOLS} if calls else {})
            begun = Begun("/v1/chat/completions", body, headers, again=True)
            return _named(way, f"openai-chat:{name}", "openai-chat", begun)
        case "keyed messages":
            tool = {"name": TOOL, "description": function["description"], "input_schema": function["parameters"]}
            body = {"model": model, "stream": True, "metadata": {"user_id": name}, "max_tokens": _MOST_TOKENS}
            body |= {"messages": messages} | ({"tools": [tool]} if calls else {})
            return _named(way, f"anthropic:{name}", "anthropic", Begun("/v1/messages", body, headers, again=True))
        case "background":
            # Its id is made of the key, so that whoever did not hear the answer finds it.
            stream = "resp_" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
            body |= {"input": said, "background": True} | (
                {"tools": [{"type": "function", **function}]} if calls else {}
            )
            target = f"/v1/responses/{stream}"
            begun = Begun("/v1/responses", body, headers, read_on=lambda frame: f"{target}?stream=true{_after(frame)}")
            return Asked(way, stream, "openai-responses", begun, ("POST", f"{target}/cancel"))


def _named(way: Way, stream: str, wire: Wire, begun: Begun) -> Asked:
    return Asked(way, stream, wire, begun, ("DELETE", f"/chat/stream/{stream}"))


def _after(frame: Frame) -> str:
    return f"&starting_after={msgspec.json.decode(frame.data.partition(b'data:')[2])['sequence_number']}"


def standing(body: dict[str, Any]) -> tuple[str, int]:
    """Of the answer to a cancel: what the stream is said to be, and up to where, if that is told."""
    state: str = body.get("state") or body["status"]
    return _STANDS.get(state, state), body.get("tail", _WITHOUT_TAIL)
