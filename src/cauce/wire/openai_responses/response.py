"""The `response` object: what it repeats of its request, its items, how it ended. Also whole, for plain answers."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import FinishReason, TokenLogprob
from cauce.domain.extra import Extra
from cauce.domain.message import OpaquePart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from cauce.domain.signature import Signature
from cauce.wire.openai_responses.content import render_annotations, render_logprobs
from cauce.wire.openai_responses.history import reasoning_texts
from cauce.wire.openai_responses.names import WIRE, made_id, own
from cauce.wire.openai_responses.tools import as_input, shown_tool
from cauce.wire.openai_responses.usage import render_usage
from cauce.wire.signing import seal

_encode = msgspec.json.Encoder().encode

_DEFAULTS: dict[str, Any] = {
    "background": False,
    "completed_at": None,
    "error": None,
    "frequency_penalty": 0.0,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_OURS = frozenset(
    {"id", "object", "created_at", "model", "previous_response_id", "store", "metadata", "background", "instructions"}
)
"""Fields about which the upstream's response has nothing to say: it was asked differently."""
_END = frozenset({"error", "incomplete_details", "completed_at"})
"""Fields that say how it ended."""


class Head(msgspec.Struct, frozen=True):
    """What is known of a response before it is answered. `created` is in UNIX seconds; `custom` are names of custom tools."""

    id: str
    created: int
    echo: dict[str, Any]
    custom: frozenset[str] = frozenset()


def echo(raw: dict[str, Any], model: str) -> dict[str, Any]:
    """What a response repeats of its request `raw`, with the defaults of what was not said."""
    told = {name: raw.get(name, default) for name, default in _DEFAULTS.items()}
    told["model"] = model
    told["text"] = {**_DEFAULTS["text"], **told["text"]}
    told["reasoning"] = {"effort": None, "summary": None, **raw.get("reasoning", {})}
    # Nobody but an upstream of this wire makes functions strict that do not say so.
    told["tools"] = [
        {**tool, "strict": tool["strict"] or False} if "strict" in tool else tool for tool in _tools(told["tools"])
    ]
    return told


def _tools(raw: list[Any]) -> list[dict[str, Any]]:
    """Tools as a response repeats them."""
    return [shown_tool(cast(dict[str, Any], tool)) for tool in raw if isinstance(tool, dict)]


def head_of(response: dict[str, Any]) -> Head:
    """The head of a response that has ended."""
    names = [tool["name"] for tool in response["tools"] if tool.get("type") == "custom"]
    told = {name: default if name in _END else response.get(name, default) for name, default in _DEFAULTS.items()}
    told.update({"model": response["model"], "reasoning": response.get("reasoning")})
    return Head(response["id"], response["created_at"], told, frozenset(names))


def response_object(
    head: Head, status: str, output: Sequence[dict[str, Any]], fields: dict[str, Any]
) -> dict[str, Any]:
    """The object. `fields` are laid over what the request said."""
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "status": status,
        **head.echo,
        "output": list(output),
        "usage": None,
        **fields,
    }


def ended(reason: FinishReason, extra: Extra | None, at: int | None, *, refused: bool) -> tuple[str, dict[str, Any]]:
    """The status of an answer that ended by itself `at` that time, and further fields. The upstream's own words where it spoke this wire."""
    theirs: dict[str, Any] = own(extra).get("response", {})
    fields = {name: value for name, value in theirs.items() if name not in _OURS and value is not None}
    status = fields.pop("status", None)
    if isinstance(fields.get("tools"), list):
        fields["tools"] = _tools(fields["tools"])
    if at is not None and status in ("completed", None):
        fields["completed_at"] = fields.get("completed_at") or at
    if isinstance(status, str):
        return status, fields
    if reason == "length":
        return "incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}
    if reason == "content_filter" and not refused:
        return "incomplete", {"incomplete_details": {"reason": "content_filter"}}
    return "cancelled" if reason == "cancelled" else "completed", fields


def corrected(output: Sequence[dict[str, Any]], extra: Extra | None) -> list[dict[str, Any]]:
    """`output` with what the upstream's last word on its items says differently."""
    changed: dict[str, Any] = own(extra).get("items", {})
    if not changed:
        return list(output)
    return [{**item, **changed.get(str(item.get("id")), {})} for item in output]


def message_item(identifier: str, content: list[dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
    """A message of the assistant."""
    return {
        "id": identifier,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": content,
        **fields,
    }


def text_part(text: str, annotations: list[Any], logprobs: list[Any], unknown: dict[str, Any]) -> dict[str, Any]:
    """A text of a message."""
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs, **unknown}


def reasoning_item(
    identifier: str, texts: dict[str, Any], signature: Signature | None, fields: dict[str, Any]
) -> dict[str, Any]:
    """A reasoning item; `texts` are its `summary` and `content`."""
    item: dict[str, Any] = {"id": identifier, "type": "reasoning", **fields, **texts}
    if signature is not None:
        item["encrypted_content"] = seal(signature, WIRE)
    return item


def proof_item(identifier: str, call_id: str, signature: Signature) -> dict[str, Any]:
    """The signature of a call as a reasoning item without words: clients hand that back with the call it names."""
    return reasoning_item(identifier, {"summary": []}, Signature(signature.wire, signature.data, call_id), {})


def call_item(identifier: str, call: ToolCallPart, fields: dict[str, Any], *, custom: bool) -> dict[str, Any]:
    """A call of a function, or of a custom tool."""
    item: dict[str, Any] = {
        "id": identifier,
        "type": "custom_tool_call" if custom else "function_call",
        "status": "completed",
        "call_id": call.call_id,
        "name": call.name,
    }
    if not custom:
        return {**item, "arguments": call.arguments, **fields}
    if fields:
        del item["status"]
    return {**item, "input": as_input(call.arguments), **fields}


def is_custom(call: ToolCallPart, fields: dict[str, Any] | None, names: frozenset[str]) -> bool:
    """Whether `call` is one of a custom tool: `fields` are what its upstream says of the item (None: it spoke another wire)."""
    return call.name in names if fields is None else fields.get("type") == "custom_tool_call"


def render_response(completion: Completion, head: Head, at: int | None = None) -> bytes:
    """The plain answer, which ended `at` that time (UNIX, in seconds), as JSON."""
    choice = completion.choices[0]
    status, fields = ended(choice.finish_reason, completion.extra, at, refused=bool(choice.refusal))
    output = _Items(choice, head).output
    if status == "incomplete" and output and output[-1].get("status") == "completed" and not own(completion.extra):
        output[-1]["status"] = "incomplete"
    usage = render_usage(completion.usage)
    return _encode(response_object(head, status, corrected(output, completion.extra), {**fields, "usage": usage}))


class _Items:
    """The output items of a whole answer."""

    def __init__(self, choice: Choice, head: Head) -> None:
        self.output: list[dict[str, Any]] = []
        self._head = head
        self._content: list[dict[str, Any]] | None = None
        self._logprobs = list(choice.logprobs)
        texts = [part for part in choice.parts if isinstance(part, TextPart)]
        for part in choice.parts:
            match part:
                case TextPart(text, extra, citations):
                    tokens = self._tokens(text, last=part is texts[-1])
                    known = text_part(text, render_annotations(citations), tokens, own(extra).get("part", {}))
                    self._said(known, extra)
                case RefusalPart(text, extra):
                    self._said({"type": "refusal", "refusal": text, **own(extra).get("part", {})}, extra)
                case OpaquePart(wire, {"part": content, **beside}) if wire == WIRE:
                    self._said(content, Extra(WIRE, {"item": beside["of"]} if "of" in beside else {}))
                case OpaquePart(wire, {"item": item}) if wire == WIRE:
                    self._add(item)
                case ReasoningPart(text, signature, extra):
                    if text or signature is not None or own(extra):
                        made = self._id("reasoning")
                        self._add(reasoning_item(made, reasoning_texts(part), signature, _fields(extra)))
                case ToolCallPart(extra=extra):
                    if part.signature is not None:
                        self._add(proof_item(self._id("reasoning"), part.call_id, part.signature))
                    custom = is_custom(part, own(extra).get("item"), head.custom)
                    made = self._id("custom_tool_call" if custom else "function_call")
                    self._add(call_item(made, part, _fields(extra), custom=custom))
                case _:
                    continue

    def _said(self, content: dict[str, Any], extra: Extra | None) -> None:
        if content.get("text") == "" and not own(extra):
            return
        if self._content is None or "item" in own(extra):
            opened: list[dict[str, Any]] = []
            self._add(message_item(self._id("message"), opened, {}))
            self._content = opened
        self.output[-1].update(_fields(extra))
        self._content.append(content)

    def _add(self, item: dict[str, Any]) -> None:
        self._content = None
        self.output.append(item)

    def _id(self, kind: str) -> str:
        return made_id(kind, self._head.id, len(self.output))

    def _tokens(self, text: str, *, last: bool) -> list[dict[str, Any]]:
        """The log probabilities of `text`: they come for the whole answer."""
        if last:
            return render_logprobs(self._logprobs)
        taken: list[TokenLogprob] = []
        left = len(text)
        while self._logprobs and left > 0:
            taken.append(self._logprobs.pop(0))
            left -= len(taken[-1].token)
        return render_logprobs(taken)


def _fields(extra: Extra | None) -> dict[str, Any]:
    """The fields of an item, as they were when it ended."""
    data = own(extra)
    return {**data.get("item", {}), **data.get("done", {})}
