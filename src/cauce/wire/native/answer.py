"""The plain answer and the error body of the native wire."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.completion import Completion
from cauce.domain.delta import Attempt, Finish, FinishReason
from cauce.domain.errors import CauceError, ErrorCode
from cauce.domain.usage import CostSource, Usage
from cauce.wire.native.partial import whole

_encode = msgspec.json.Encoder().encode


class UsageBody(msgspec.Struct, omit_defaults=True):
    """Tokens. `input_tokens` includes cache reads and writes, `output_tokens` includes reasoning. `estimated` is there and true where no
    provider has reported all of them: they are an estimate then, or a sum with one in it."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    estimated: bool = False


class ToolCallAnswer(msgspec.Struct):
    """A tool the model wants called. `arguments` is a string of JSON as the model wrote it."""

    call_id: str
    name: str
    arguments: str


class AttemptBody(msgspec.Struct, omit_defaults=True):
    """One provider that was asked; `error` and `error_code` say why it did not answer."""

    provider: str
    model: str
    level: str
    error: str | None = None
    error_code: ErrorCode | None = None


class AnswerBody(msgspec.Struct, omit_defaults=True):
    """Answer of `POST /llm/message`. `processing_time` is in seconds, `cost` in USD, `tokens_used` input plus output."""

    response: str
    model: str
    tokens_used: int
    processing_time: float
    usage: UsageBody
    cost: float
    cost_source: CostSource
    finish_reason: FinishReason
    stream_id: str
    cached: bool
    attempts: list[AttemptBody]
    tool_calls: list[ToolCallAnswer] | None = None
    reasoning: str | None = None
    conversation_id: str | None = None
    parsed: Any = None
    """The value of `response`, where JSON was asked for and it is some."""


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Every error of the native surfaces. `field` names the offending field, `retry_after` is in seconds."""

    error: str
    error_code: ErrorCode
    request_id: str
    field: str | None = None
    retry_after: float | None = None


class Facts(msgspec.Struct, frozen=True):
    """What the server knows of an answer beside its content. `processing_time` is in seconds."""

    stream_id: str
    attempts: Sequence[Attempt]
    processing_time: float
    conversation_id: str | None = None
    structured: bool = False
    """The client asked for JSON."""


def render_answer(completion: Completion, facts: Facts) -> bytes:
    """The plain answer, as JSON."""
    choice = completion.choices[0]
    usage = completion.usage
    calls = [ToolCallAnswer(call.call_id, call.name, call.arguments) for call in choice.tool_calls]
    last = facts.attempts[-1]
    return _encode(
        AnswerBody(
            choice.text or choice.refusal,
            attempt_name(last),
            usage.total_tokens,
            round(facts.processing_time, 6),
            render_usage(usage),
            usage.cost,
            usage.cost_source,
            choice.finish_reason,
            facts.stream_id,
            last.cache in ("hit", "stale"),
            render_attempts(facts.attempts),
            calls or None,
            choice.reasoning or None,
            facts.conversation_id,
            whole(choice.text) if facts.structured else None,
        )
    )


def render_usage(usage: Usage) -> UsageBody:
    """`usage` as this wire shows it."""
    return UsageBody(
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.estimated,
    )


def render_attempts(attempts: Sequence[Attempt]) -> list[AttemptBody]:
    """Who was asked, in order. An attempt's failure is told by the one after it."""
    bodies: list[AttemptBody] = []
    for index, attempt in enumerate(attempts):
        follower = attempts[index + 1] if index + 1 < len(attempts) else None
        bodies.append(
            AttemptBody(
                attempt.provider,
                attempt.model,
                attempt.level,
                follower.reason if follower is not None else None,
                follower.reason_code if follower is not None else None,
            )
        )
    return bodies


def attempt_name(attempt: Attempt) -> str:
    """`provider/model`, or the provider alone where it has but one model."""
    return f"{attempt.provider}/{attempt.model}" if attempt.model else attempt.provider


def cancel_reason(finish: Finish) -> str:
    """Why an answer was cancelled: `cancelled` where somebody asked for it."""
    return "cancelled" if finish.cause in ("", "requested") else finish.cause


def render_error(error: CauceError, request_id: str) -> dict[str, Any]:
    """`error` as this wire shows it."""
    body = ErrorBody(error.message, error.code, request_id, error.field, error.retry_after)
    return {**msgspec.to_builtins(body), **error.facts}
