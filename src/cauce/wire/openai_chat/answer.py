"""A whole answer of the chat wire: one plain `chat.completion`."""

from typing import Any

import msgspec

from cauce.domain.completion import Choice, Completion
from cauce.domain.message import ReasoningPart, TextPart
from cauce.wire.openai_chat.calls import shown_calls
from cauce.wire.openai_chat.citations import render_annotation
from cauce.wire.openai_chat.extras import WIRE, own
from cauce.wire.openai_chat.logprobs import render_logprobs
from cauce.wire.openai_chat.reasoning import shown
from cauce.wire.openai_chat.shown import overlay, reason_of
from cauce.wire.openai_chat.tools import MODERN, AnswerStyle
from cauce.wire.openai_chat.usage import render_usage

_AROUND = frozenset({"chunk"})
_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True):
    """What stands in an answer and in each of its chunks: `created` is a UNIX time in seconds."""

    id: str
    model: str
    created: int


def render_completion(completion: Completion, head: Head, style: AnswerStyle = MODERN) -> bytes:
    """The plain answer, as JSON."""
    fields: dict[str, Any] = {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
    }
    if len(completion.choices) == 1 and completion.extra is None and _is_plain(completion.choices[0]):
        # What nearly every answer is: a text, and at most unknown fields around the whole.
        (choice,) = completion.choices
        text: Any = choice.parts[0]
        said = {"role": "assistant", "content": text.text}
        reason = reason_of(0, choice.finish_reason, None, style)
        fields["choices"] = [{"index": 0, "message": said, "finish_reason": reason}]
        fields["usage"] = render_usage(completion.usage)
        for extra in choice.extras:
            fields = {**extra.data["chunk"], **fields}
        return _encode(fields)
    choices: list[Any] = []
    body = fields
    for index, choice in enumerate(completion.choices):
        extras = choice.extras if completion.extra is None else (*choice.extras, completion.extra)
        reason = reason_of(index, choice.finish_reason, completion.extra, style)
        one: dict[str, Any] = {"index": index, "message": _message(choice, style), "finish_reason": reason}
        body = {**body, **overlay(fields, one, "message", extras)}
        if choice.logprobs and "logprobs" not in one:
            one["logprobs"] = render_logprobs(choice.logprobs)
        choices.append(one)
    body["choices"] = choices
    body["usage"] = render_usage(completion.usage)
    return _encode(body)


def _is_plain(choice: Choice) -> bool:
    parts = choice.parts
    if len(parts) != 1 or type(parts[0]) is not TextPart or parts[0].citations or choice.logprobs:
        return False
    return all([extra.wire == WIRE and extra.data.keys() == _AROUND for extra in choice.extras])


def _message(choice: Choice, style: AnswerStyle) -> dict[str, Any]:
    calls = choice.tool_calls
    # A refusal, audio or a call stands in place of text: clients tell by the null.
    instead = bool(calls) or bool(choice.refusal) or any(["delta" in extra.data for extra in choice.extras])
    text = choice.text
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not instead else None}
    if choice.refusal:
        message["refusal"] = choice.refusal
    if choice.reasoning:
        names = [own(extra).get("field") for extra in choice.extras]
        message[next((name for name in names if name), "reasoning_content")] = choice.reasoning
    if details := _details(choice):
        message["reasoning_details"] = details
    if annotations := _annotations(choice):
        message["annotations"] = annotations
    if calls and style.functions:
        message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    elif calls:
        message["tool_calls"] = shown_calls(calls, style.custom)
    return message


def _details(choice: Choice) -> list[dict[str, Any]]:
    """Reasoning that another wire's model signed. What this wire's upstreams sent rides in the extras."""
    signed = [
        (part.text, part.signature)
        for part in choice.parts
        if isinstance(part, ReasoningPart) and part.signature is not None and part.signature.wire != WIRE
    ]
    return [shown(text, signature, index) for index, (text, signature) in enumerate(signed)]


def _annotations(choice: Choice) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    start = 0
    for part in choice.parts:
        if isinstance(part, TextPart):
            end = start + len(part.text)
            rendered = [render_annotation(citation, start, end) for citation in part.citations]
            annotations.extend([annotation for annotation in rendered if annotation is not None])
            start = end
    return annotations
