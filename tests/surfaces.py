"""The surfaces a client may ask: what it sends to each, and what became of it, in words that are the same for all."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from tests.http import Response, ask

MESSAGES = [{"role": "user", "content": "Say hello."}]

Kind = Literal["answer", "refused", "broken off", "cut"]


class Outcome(msgspec.Struct, frozen=True):
    """What a client got: a whole answer, an HTTP error, an error inside of a stream, or a connection that ended early.

    `code` is the error's, in the surface's own words.
    """

    kind: Kind
    text: str = ""
    status: int = 200
    code: str = ""
    message: str = ""
    retry_after: str = ""
    """The header."""


class Surface(msgspec.Struct, frozen=True):
    """An endpoint, and a kind of provider that speaks its wire."""

    name: str
    path: str
    provider: str
    """TOML of a provider of that wire, `{root}` being where the fake one is."""
    body: dict[str, Any]
    whole: Callable[[dict[str, Any]], str]
    """The text of a plain answer."""
    code: Callable[[dict[str, Any]], str]
    """The code of an error's body; a KeyError if it is no error of the surface."""
    told: Callable[[list[dict[str, Any]]], Outcome | None]
    """What the events of a stream say; None if it has no end."""

    async def asked(self, port: int, model: str, *, stream: bool, headers: dict[str, str] | None = None) -> Outcome:
        """What came of asking for `model`."""
        body = {**self.body, "model": model, "stream": stream}
        return self.outcome(await ask(port, "POST", self.path, body, headers), stream=stream)

    def outcome(self, response: Response, *, stream: bool) -> Outcome:
        """What `response` is."""
        if not response.complete:
            return Outcome("cut")
        if response.status != 200:
            told = response.json()
            wait = response.headers.get("retry-after", "")
            return Outcome("refused", "", response.status, self.code(told), str(told), wait)
        if not stream:
            return Outcome("answer", self.whole(response.json()))
        return self.told(list(_events(response))) or Outcome("cut")


def _events(response: Response) -> Iterator[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream"), response.headers
    for line in response.body.decode().split("\n"):
        if line.startswith("data: "):
            yield {"done": True} if line == "data: [DONE]" else msgspec.json.decode(line[6:])


def _chat(events: list[dict[str, Any]]) -> Outcome | None:
    text = "".join([choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ())])
    for event in events:
        if "error" in event:
            assert {"done": True} not in events, "an interrupted answer looks whole"
            return Outcome("broken off", text, code=event["error"]["code"], message=str(event))
    return Outcome("answer", text) if events[-1:] == [{"done": True}] else None


def _responses(events: list[dict[str, Any]]) -> Outcome | None:
    text = "".join([event["delta"] for event in events if event["type"] == "response.output_text.delta"])
    last = events[-1] if events else {"type": ""}
    if last["type"] == "response.failed":
        return Outcome("broken off", text, code=last["response"]["error"]["code"], message=str(last))
    return Outcome("answer", text) if last["type"] == "response.completed" else None


def _messages(events: list[dict[str, Any]]) -> Outcome | None:
    text = "".join([event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta"])
    last = events[-1] if events else {"type": ""}
    if last["type"] == "error":
        return Outcome("broken off", text, code=last["error"]["type"], message=str(last))
    return Outcome("answer", text) if last["type"] == "message_stop" else None


def _native(events: list[dict[str, Any]]) -> Outcome | None:
    last = events[-1] if events else {"type": ""}
    if last["type"] == "error" and last["final_error"]:
        return Outcome("broken off", code=last["error_code"], message=str(last))
    return Outcome("answer", last["data"]) if last["type"] == "complete" else None


SURFACES = (
    Surface(
        "chat",
        "/v1/chat/completions",
        'kind = "openai"\nbase_url = "{root}/v1"\n',
        {"messages": MESSAGES},
        lambda body: body["choices"][0]["message"]["content"],
        lambda body: body["error"]["code"],
        _chat,
    ),
    Surface(
        "responses",
        "/v1/responses",
        'kind = "openai"\nbase_url = "{root}/v1"\nwire = "responses"\n',
        {"input": "Say hello.", "store": False},
        lambda body: body["output"][0]["content"][0]["text"],
        lambda body: body["error"]["code"],
        _responses,
    ),
    Surface(
        "messages",
        "/v1/messages",
        'kind = "anthropic"\nbase_url = "{root}"\n',
        {"messages": MESSAGES, "max_tokens": 64},
        lambda body: body["content"][0]["text"],
        lambda body: body["error"]["type"],
        _messages,
    ),
    Surface(
        "native",
        "/llm/message",
        'kind = "gemini"\nbase_url = "{root}"\n',
        {"messages": MESSAGES},
        lambda body: body["response"],
        lambda body: body["error_code"],
        _native,
    ),
)
"""Each with providers of its own wire; the native one, which no provider speaks, with Gemini's."""
