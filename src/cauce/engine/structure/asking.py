"""Requests changed so that a model which cannot be held to JSON is told of it, and told what was wrong with its answer."""

import msgspec

from cauce.domain.errors import CauceError, Unsupported
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, ResponseFormat

_OBJECT = "Answer with one JSON object and nothing else: no words before or after it, no code fence."
_SCHEMA = (
    "Answer with one JSON value and nothing else: no words before or after it, no code fence. "
    "It must be valid under this JSON Schema:\n\n"
)


def cannot_ask(error: CauceError) -> bool:
    """Whether `error` says that a wire has no words for the format of the answer. Nobody was asked, and it is put in other words at once."""
    return isinstance(error, Unsupported) and error.field is not None and error.field.startswith("response_format")


def instructed(request: Request, wanted: ResponseFormat, instead: ResponseFormat | None) -> Request:
    """`request` with the system message saying what `wanted` says, and asking the server for `instead`."""
    instruction = _OBJECT
    if wanted.kind == "json_schema" and wanted.schema is not None:
        instruction = _SCHEMA + msgspec.json.encode(wanted.schema).decode()
        if wanted.description:
            instruction += f"\n\nWhat it is for: {wanted.description}"
    return msgspec.structs.replace(
        request, messages=_with_system(request.messages, instruction), response_format=instead
    )


def corrected(request: Request, answer: str, fault: str) -> Request:
    """`request` with one more turn: what the model answered, and what is wrong with it."""
    said = (Message("assistant", (TextPart(answer),)),) if answer.strip() else ()
    demand = (
        f"Your answer cannot be used: {fault}. "
        "Answer again with the whole corrected JSON value and nothing else: no words before or after it, no code fence."
    )
    return msgspec.structs.replace(request, messages=(*request.messages, *said, Message("user", (TextPart(demand),))))


def _with_system(messages: tuple[Message, ...], instruction: str) -> tuple[Message, ...]:
    first = messages[0] if messages else None
    if first is None or first.role not in ("system", "developer"):
        return (Message("system", (TextPart(instruction),)), *messages)
    told = msgspec.structs.replace(first, parts=(*first.parts, TextPart(f"\n\n{instruction}")))
    return (told, *messages[1:])
