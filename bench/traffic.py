"""What travels: the one request everybody is sent and the fixed answers the mock gives to it.

Mock and load both import these bytes, so "complete" has one meaning. No sockets and no clock here.
"""

import json
import re

PLAIN = "bench-plain"
BURST = "bench-burst"
PACED = "bench-paced"
TOOLS = "bench-tools"
TRANSLATED = "bench-translated"
CACHED = "bench-cached"
MISSED = "bench-missed"
MODELS = (PLAIN, BURST, PACED, TOOLS)
"""Models that the mock offers on OpenAI's wire. `bench-translated` is on Anthropic's; `bench-cached` and `bench-missed` are asked
for with a temperature of zero, which makes their plain answers ones that may be kept."""

PLAIN_MODELS = (PLAIN, CACHED, MISSED)
COUNTER = b"question 00000000"
"""Stands in requests for `bench-missed`: its digits differ from one to the next, so that none was answered before."""

DELTAS = 64
"""Content deltas per stream: the divisor of every figure "per chunk"."""

PACE_SECONDS = 0.02
REQUEST_BYTES = 951
ANSWER_BYTES = 1042
DELTA_BYTES = 280

MARKER = b"chunk-"
"""Stands once in each delta, so a reader can count deltas without parsing JSON."""

_WORDS = (
    "the river keeps its bed while the water in it changes every hour and the one who drinks from it "
    "tomorrow will drink what fell on the far side of the mountains this morning so a stream is known "
    "by its course and not by its drops which is why a map can show it at all and a bridge may cross it "
    "without asking where the water has been or how much of it there will be after the next rain in "
    "spring when the snow above the tree line lets go of the winter and the mills below begin to turn "
    "again with the slow sound that the people of the valley hear only when it stops for the summer "
    "drought or for the feast of the patron when nobody grinds and even the dogs lie quiet in the shade "
    "of the weir waiting for the evening and for the boys who come there to swim and throw sticks for "
    "them until the bell rings and the lamps are lit along the road that follows the bank to the sea "
)
_CREATED = 1_760_000_000


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _words(length: int, start: int = 0) -> str:
    """Exactly `length` characters of text that JSON never escapes and that ends in a letter."""
    text = (_WORDS * 3)[start : start + length]
    return text if text[-1:] != " " else text[:-1] + "s"


def _request(model: str, stream: bool, filler: str, temperature: float = 0.5, opening: str = "What") -> bytes:
    return _compact(
        {
            "model": model,
            "messages": [
                {"role": "system", "content": "You answer in plain words and you keep to the question."},
                {"role": "user", "content": f"{opening} makes a river the same river?"},
                {"role": "assistant", "content": "Its course, I would say: " + filler},
                {"role": "user", "content": "Then say it again in three short sentences, please."},
            ],
            "stream": stream,
            "temperature": temperature,
            "max_tokens": 256,
        }
    )


_FILLER = _words(REQUEST_BYTES - len(_request(PLAIN, False, "")))


def request_body(model: str, stream: bool) -> bytes:
    """A chat request of four messages with only fields that every gateway knows.

    951 bytes for the bare plain model; a system that needs a longer model name is sent those bytes more.
    """
    if model.endswith((CACHED, MISSED)):
        return _request(model, stream, _FILLER, 0, COUNTER.decode() if model.endswith(MISSED) else "What")
    return _request(model, stream, _FILLER)


_USAGE = {"prompt_tokens": 213, "completion_tokens": 128, "total_tokens": 341}


def _answer(text: str) -> bytes:
    return _compact(
        {
            "id": "chatcmpl-bench0000000000000000000",
            "object": "chat.completion",
            "created": _CREATED,
            "model": PLAIN,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
            "system_fingerprint": "fp_bench00000",
        }
    )


ANSWER_TEXT = _words(ANSWER_BYTES - len(_answer("")))
ANSWER = _answer(ANSWER_TEXT)


def _chunk(choices: list[object], **more: object) -> bytes:
    head = {"id": "chatcmpl-bench0000000000000000000", "object": "chat.completion.chunk", "created": _CREATED}
    body = _compact({**head, "model": BURST, "system_fingerprint": "fp_bench00000", "choices": choices, **more})
    return b"data: " + body + b"\n\n"


def _delta_event(text: str, first: bool) -> bytes:
    delta = {"role": "assistant", "content": text} if first else {"content": text}
    return _chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])


def _delta_text(number: int) -> str:
    label = f" {MARKER.decode()}{number:02d} "
    room = DELTA_BYTES - len(_delta_event(label, first=number == 0))
    return label + _words(room, start=number)


_TEXTS = [_delta_text(number) for number in range(DELTAS)]
STREAM_TEXT = "".join(_TEXTS)
DELTA_EVENTS = [_delta_event(text, first=number == 0) for number, text in enumerate(_TEXTS)]
FINISH_EVENT = _chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
USAGE_EVENT = _chunk([], usage=_USAGE)
DONE_EVENT = b"data: [DONE]\n\n"

_CALL = {"id": "call_bench000000000000000", "type": "function", "function": {"name": "write", "arguments": ""}}


def _argument_pieces() -> list[str]:
    """The arguments of one call in as many pieces as there are deltas, the marker once in each."""
    opening, closing = '{"text": "', '"}'
    return [
        (opening if number == 0 else "") + text + (closing if number == DELTAS - 1 else "")
        for number, text in enumerate(_TEXTS)
    ]


def _tool_event(piece: str) -> bytes:
    call = {"index": 0, "function": {"arguments": piece}}
    return _chunk([{"index": 0, "delta": {"tool_calls": [call]}, "logprobs": None, "finish_reason": None}])


TOOL_OPENING = _chunk(
    [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **_CALL}]},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
)
TOOL_EVENTS = [TOOL_OPENING, *[_tool_event(piece) for piece in _argument_pieces()]]
TOOL_FINISH = _chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}])


def _anthropic(kind: str, **members: object) -> bytes:
    return f"event: {kind}\n".encode() + b"data: " + _compact({"type": kind, **members}) + b"\n\n"


ANTHROPIC_EVENTS = [
    _anthropic(
        "message_start",
        message={
            "id": "msg_bench000000000000000000",
            "type": "message",
            "role": "assistant",
            "model": TRANSLATED,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 213, "output_tokens": 1},
        },
    ),
    _anthropic("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    _anthropic("ping"),
    *[_anthropic("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in _TEXTS],
    _anthropic("content_block_stop", index=0),
    _anthropic("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 128}),
    _anthropic("message_stop"),
]

_ANSWER_TEXT_BYTES = ANSWER_TEXT.encode()
_DONE = re.compile(rb"data: ?\[DONE\]\s*$")


def fault_in_plain(body: bytes) -> str | None:
    """What is wrong with a plain answer, or None. The text must have arrived whole."""
    if _ANSWER_TEXT_BYTES not in body:
        return f"the answer lacks its text ({len(body)} bytes)"
    return None


def fault_in_stream(body: bytes) -> str | None:
    """What is wrong with a streamed answer, or None. Counts only: cheap enough for the measured phase."""
    seen = body.count(MARKER)
    if seen != DELTAS:
        return f"{seen} of {DELTAS} deltas arrived"
    if _DONE.search(body, max(0, len(body) - 64)) is None:
        return "the stream ended without [DONE]"
    return None


def stream_text(body: bytes) -> str:
    """The text of a streamed answer, or that in its tool call, every event parsed. Raises ValueError for what is no JSON."""
    pieces: list[str] = []
    arguments: list[str] = []
    for line in body.split(b"\n"):
        payload = line[5:].strip() if line.startswith(b"data:") else b""
        if payload and payload != b"[DONE]":
            for choice in json.loads(payload).get("choices", ()):
                delta = choice.get("delta", {})
                pieces.append(delta.get("content") or "")
                arguments.extend(call["function"].get("arguments") or "" for call in delta.get("tool_calls") or ())
    return json.loads("".join(arguments))["text"] if arguments else "".join(pieces)
