"""Answers of this wire written from deltas: events or a list for a stream, or one plain body."""

from collections.abc import Sequence
from typing import Any, assert_never

import msgspec

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import (
    Attempt,
    Citation,
    Delta,
    Failed,
    Finish,
    FinishReason,
    Opaque,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    TokenLogprob,
    ToolCall,
    ToolResult,
)
from cauce.domain.extra import Extra
from cauce.domain.message import OpaquePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from cauce.domain.signature import Signature
from cauce.domain.usage import Usage
from cauce.wire.gemini.errors import render_failed
from cauce.wire.gemini.functions import render_call
from cauce.wire.gemini.names import WIRE, member, own
from cauce.wire.gemini.parts import sealed
from cauce.wire.gemini.usage import render_usage
from cauce.wire.sse import one_line

_encode = msgspec.json.Encoder().encode
_NO_PARTS: list[Any] = []
_NO_TEXT: list[Any] = [{"text": ""}]

_REASONS: dict[FinishReason, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
    "cancelled": "STOP",
    "error": "OTHER",
}


_MARK = "<text>"
_CANCELLED = Failed("conflict", "the answer was cancelled")


class Head(msgspec.Struct, frozen=True):
    """What stands in every answer. `thoughts`: the client asked to see them."""

    response_id: str
    model: str
    thoughts: bool = False


class GeminiProjector:
    """Deltas in, events out: a fold without clock or randomness. Function calls are shown whole, as this API has them.

    `listed`: the members of one JSON list in place of events, for clients that did not ask for events.
    """

    def __init__(self, head: Head, *, listed: bool = False) -> None:
        self._head = head
        self._about: dict[str, Any] = {"modelVersion": head.model, "responseId": head.response_id}
        self._frame = self._member if listed else _event
        self._listed = listed
        self._started = False
        whole = _event(_encode({**self._candidate(0, [{"text": _MARK}]), **self._about}))
        self._before_text, self._after_text = whole.split(_encode(_MARK), 1)
        self._spoke: set[int] = set()
        self._cited: dict[int, list[dict[str, Any]]] = {}
        self._probable: dict[int, list[TokenLogprob]] = {}

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The events of `deltas`, ready to be written at once."""
        out: list[bytes] = []
        for delta in deltas:
            if type(delta) is Text and not (delta.choice or delta.extra or delta.logprobs) and not self._listed:
                # The event most streams consist of.
                if delta.text:
                    self._spoke.add(0)
                    out.append(self._before_text + _encode(delta.text) + self._after_text)
            else:
                self._render(delta, out)
        return one_line(b"".join(out))

    def _render(self, delta: Delta, out: list[bytes]) -> None:
        match delta:
            case Text(text, choice, extra):
                self._probable.setdefault(choice, []).extend(delta.logprobs)
                if text or own(extra):
                    self._part(choice, {"text": text, **own(extra)}, out)
            case Refusal(text, choice):
                self._part(choice, {"text": text}, out)
            case Reasoning(text, signature, choice, extra):
                thought = _thought(text, signature, extra) if self._head.thoughts else None
                if thought is not None:
                    self._part(choice, thought, out)
            case ToolCall(_, call_id, name, arguments, "ready", choice, extra, signature):
                self._part(choice, _call(call_id, name, arguments, extra, signature), out)
            case Opaque(wire, data, choice):
                if wire == WIRE:
                    self._part(choice, data, out)
            case Citation(choice=choice):
                _cite(self._cited.setdefault(choice, []), delta)
            case Finish():
                self._finish(delta, out)
            case ToolCall() | ToolResult() | Status() | Attempt() | Restart():
                pass
            case _:
                assert_never(delta)

    def _part(self, choice: int, part: dict[str, Any], out: list[bytes]) -> None:
        self._spoke.add(choice)
        out.append(self._frame(_encode({**self._candidate(choice, [part]), **self._about})))

    def _candidate(self, choice: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"candidates": [{"content": {"role": "model", "parts": parts}, "index": choice}]}

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        failed = _CANCELLED if finish.outcome == "cancelled" else finish.error
        if failed is not None:
            out.append(self._frame(_encode(render_failed(failed))))
        else:
            reasons = finish.reasons or (finish.reason,)
            candidates: list[dict[str, Any]] = [
                {
                    # A chat of Google's SDK forgets the whole turn for one event without parts.
                    "content": {"role": "model", "parts": _NO_TEXT if choice in self._spoke else _NO_PARTS},
                    **_ending(finish.extra, choice, reason, self._cited.get(choice), self._probable.get(choice)),
                }
                for choice, reason in enumerate(reasons)
            ]
            out.append(self._frame(_encode(_whole(candidates, finish.extra, finish.usage, self._about))))
        if self._listed:
            out.append(b"]")

    def _member(self, value: bytes) -> bytes:
        before = b",\r\n" if self._started else b"["
        self._started = True
        return before + value


def _event(value: bytes) -> bytes:
    return b"data: " + value + b"\r\n\r\n"


def _whole(
    candidates: list[dict[str, Any]], extra: Extra | None, usage: Usage, about: dict[str, Any]
) -> dict[str, Any]:
    beside = member(own(extra), "answer")
    blocked = "promptFeedback" in beside and not member(own(extra), "candidates")
    shown = {} if blocked else {"candidates": candidates}
    return {**shown, "usageMetadata": render_usage(usage), **about, **beside}


def _ending(
    extra: Extra | None,
    choice: int,
    reason: FinishReason,
    cited: list[dict[str, Any]] | None,
    probable: Sequence[TokenLogprob] | None,
) -> dict[str, Any]:
    """What a candidate ends with: the upstream's own words where it spoke this wire."""
    raw = member(member(own(extra), "candidates"), str(choice))
    ending: dict[str, Any] = {"finishReason": _REASONS[reason], "index": choice}
    if not raw:
        if cited:
            ending["groundingMetadata"] = {"groundingChunks": cited}
        if probable:
            ending["logprobsResult"] = _logprobs(probable)
    return {**ending, **raw}


def _thought(text: str, signature: Signature | None, extra: Extra | None) -> dict[str, Any] | None:
    unknown = dict(own(extra))
    part: dict[str, Any] = {"text": text, "thought": True}
    if unknown.pop("ofCall", False):
        return {**part, **unknown} if text else None
    return {**part, **unknown, **({"thoughtSignature": sealed(signature)} if signature is not None else {})}


def _call(call_id: str, name: str, arguments: str, extra: Extra | None, signature: Signature | None) -> dict[str, Any]:
    return render_call(call_id, name, arguments, extra, sealed(signature) if signature is not None else None)


def _cite(cited: list[dict[str, Any]], citation: Citation) -> None:
    if citation.url is not None and (citation.extra is None or citation.extra.wire != WIRE):
        web = {"uri": citation.url, **({"title": citation.title} if citation.title else {})}
        cited.append({"web": web})


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    def told(one: TokenLogprob) -> dict[str, Any]:
        return {"token": one.token, "logProbability": one.logprob}

    return {
        "chosenCandidates": [told(one) for one in tokens],
        "topCandidates": [{"candidates": [told(other) for other in one.top]} for one in tokens],
    }


def render_answer(completion: Completion, head: Head) -> bytes:
    """The plain answer, as JSON."""
    candidates = [
        _plain(choice, index, completion.extra, thoughts=head.thoughts)
        for index, choice in enumerate(completion.choices)
    ]
    about = {"modelVersion": head.model, "responseId": head.response_id}
    return _encode(_whole(candidates, completion.extra, completion.usage, about))


def _plain(choice: Choice, index: int, extra: Extra | None, *, thoughts: bool) -> dict[str, Any]:
    cited: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for part in choice.parts:
        if isinstance(part, TextPart):
            for citation in part.citations:
                _cite(cited, citation)
        rendered = _shown(part, thoughts=thoughts)
        if rendered is not None:
            parts.append(rendered)
    ending = _ending(extra, index, choice.finish_reason, cited, choice.logprobs)
    return {"content": {"role": "model", "parts": parts}, **ending}


def _shown(part: Part, *, thoughts: bool) -> dict[str, Any] | None:
    match part:
        case TextPart(text, extra):
            return {"text": text, **own(extra)} if text or own(extra) else None
        case RefusalPart(text):
            return {"text": text}
        case ReasoningPart(text, signature, extra):
            return _thought(text, signature, extra) if thoughts else None
        case ToolCallPart(call_id, name, arguments, extra, signature):
            return _call(call_id, name, arguments, extra, signature)
        case OpaquePart(wire, data):
            return data if wire == WIRE else None
        case _:
            return None
