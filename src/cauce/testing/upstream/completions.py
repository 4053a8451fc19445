"""OpenAI's legacy Completions: a text for a text."""

from typing import Any

import msgspec

from cauce.testing.upstream import chat
from cauce.testing.upstream.embeddings import inputs
from cauce.testing.upstream.reply import Ask, Reply, Steps, Wire, words

_HEAD: dict[str, Any] = {"id": "cmpl-fake", "object": "text_completion", "created": 1_700_000_000}


def plain(reply: Reply, ask: Ask) -> dict[str, Any]:
    """A `text_completion`, one choice per prompt."""
    choices = [_choice(reply.text, reply.finish_reason, index) for index in range(inputs(ask.body.get("prompt", "")))]
    body = {**_HEAD, "model": ask.body["model"], "choices": choices}
    return body if reply.usage is None else {**body, "usage": chat.usage(reply.usage)}


def stream(reply: Reply, ask: Ask) -> Steps:
    """Chunks: words, finish, usage, `[DONE]`."""
    head = {**_HEAD, "model": ask.body["model"]}
    deltas = tuple(_frame({**head, "choices": [_choice(word, None)]}) for word in words(reply.text))
    if reply.error_after is not None:
        return Steps(deltas=deltas[: reply.error_after], closing=(_frame(chat.failure(reply)),))
    closing = [_frame({**head, "choices": [_choice("", reply.finish_reason)]})]
    if reply.usage is not None and chat.counts(ask):
        closing.append(_frame({**head, "choices": [], "usage": chat.usage(reply.usage)}))
    return Steps(deltas=deltas, closing=(*closing, b"data: [DONE]\n\n"))


def _choice(text: str, reason: str | None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _frame(payload: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


WIRE = Wire(plain, chat.failure, chat.streams, stream, chat.frames)
