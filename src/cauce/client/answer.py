"""Whole answers, as a client gets them."""

from typing import Any, Generic, TypeVar

import msgspec

from cauce.client.errors import Unreachable
from cauce.domain.delta import FinishReason
from cauce.domain.message import ToolCallPart
from cauce.domain.usage import Usage
from cauce.wire.native.answer import AnswerBody, AttemptBody

T = TypeVar("T")

_decode = msgspec.json.Decoder(AnswerBody).decode


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. `model` is `provider/model`; `attempts` are all that were asked; `processing_time` is in seconds.

    `parsed` is the value of `text` where JSON was asked for. `usage` holds the cost.
    """

    text: str
    model: str
    finish_reason: FinishReason
    usage: Usage
    attempts: tuple[AttemptBody, ...]
    tool_calls: tuple[ToolCallPart, ...] = ()
    reasoning: str = ""
    parsed: Any = None
    stream_id: str = ""
    request_id: str | None = None
    processing_time: float = 0.0


class Parsed(msgspec.Struct, Generic[T], frozen=True):
    """A value of the type that was asked for, and the answer it was read from."""

    value: T
    answer: Answer


def read_answer(body: bytes, request_id: str | None) -> Answer:
    """The answer in `body`. Raises `Unreachable` for what is none."""
    try:
        told = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreachable(f"what answered is no Cauce; check base_url: {error}") from error
    used = told.usage
    return Answer(
        told.response,
        told.model,
        told.finish_reason,
        Usage(
            used.input_tokens,
            used.output_tokens,
            used.cached_tokens,
            used.cache_write_tokens,
            used.reasoning_tokens,
            told.cost,
            told.cost_source,
            used.estimated,
        ),
        tuple(told.attempts),
        tuple([ToolCallPart(call.call_id, call.name, call.arguments) for call in told.tool_calls or ()]),
        told.reasoning or "",
        told.parsed,
        told.stream_id,
        request_id,
        told.processing_time,
    )
