"""Putting policies around `open`, and putting deltas back together into a whole answer."""

from collections.abc import Sequence

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import (
    Attempt,
    Citation,
    Delta,
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
from cauce.domain.extra import Extra, joined
from cauce.domain.message import OpaquePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from cauce.domain.signature import Signature
from cauce.ports.provider import Deltas, Open, Policy


def compose(open: Open, *policies: Policy) -> Open:
    """`open` behind `policies`, the first listed outermost."""
    for policy in reversed(policies):
        open = policy(open)
    return open


class _Part:
    """A part while its pieces come."""

    __slots__ = ("citations", "extra", "kind", "signature", "text")

    def __init__(self, kind: type[Text] | type[Refusal] | type[Reasoning]) -> None:
        self.kind = kind
        self.text: list[str] = []
        self.extra: Extra | None = None
        self.signature: Signature | None = None
        self.citations: list[Citation] = []

    def part(self) -> Part:
        text = "".join(self.text)
        if self.kind is Reasoning:
            return ReasoningPart(text, self.signature, self.extra)
        if self.kind is Refusal:
            return RefusalPart(text, self.extra)
        return TextPart(text, self.extra, tuple(self.citations))


class _Answer:
    __slots__ = ("extras", "logprobs", "parts")

    def __init__(self) -> None:
        self.parts: list[_Part | Part] = []
        self.extras: list[Extra] = []
        self.logprobs: list[TokenLogprob] = []

    def written(self, kind: type[Text] | type[Refusal] | type[Reasoning], *, begins: bool = False) -> _Part:
        """The part that a piece of `kind` belongs to."""
        last = self.parts[-1] if self.parts else None
        if begins or not isinstance(last, _Part) or last.kind is not kind:
            last = _Part(kind)
            self.parts.append(last)
        return last


async def collect(deltas: Deltas) -> Completion:
    """The whole answer, of which nothing was taken back. Closes `deltas`; raises what it raises."""
    answers: dict[int, _Answer] = {}
    finish: Finish | None = None
    try:
        while finish is None:
            batch = await deltas.read()
            assert batch, "deltas end with their Finish, or raise"
            if not answers and (whole := _plain(batch)) is not None:
                return whole
            for delta in batch:
                if type(delta) is Finish:
                    finish = delta
                elif type(delta) is Restart:
                    answers.clear()
                else:
                    _add(delta, answers)
    except BaseException:
        await deltas.aclose()
        raise
    if not finish.reasons and len(answers) == 1:
        return Completion((_choice(answers.popitem()[1], finish.reason),), finish.usage, finish.outcome, finish.extra)
    reasons = finish.reasons or (finish.reason,)
    # Servers that count from one, or wherever, still gave as many answers as they gave reasons.
    indices = sorted(answers) if len(answers) == len(reasons) else range(len(reasons))
    choices = tuple(
        [_choice(answers.get(index) or _Answer(), reason) for index, reason in zip(indices, reasons, strict=True)]
    )
    return Completion(choices, finish.usage, finish.outcome, finish.extra)


def _plain(batch: Sequence[Delta]) -> Completion | None:
    """The answer in `batch`, where it is one text and its end, as nearly every plain answer is."""
    if len(batch) != 2:
        return None
    text, finish = batch
    if type(text) is not Text or type(finish) is not Finish or finish.reasons or text.choice or text.logprobs:
        return None
    extras = () if text.extra is None else (text.extra,)
    choice = Choice((TextPart(text.text, text.extra),), finish.reason, extras)
    return Completion((choice,), finish.usage, finish.outcome, finish.extra)


def _add(delta: Delta, answers: dict[int, _Answer]) -> None:
    answer = answers.get(delta.choice)
    if answer is None:
        answer = answers[delta.choice] = _Answer()
    if type(delta) is Text:
        part = answer.written(Text, begins=delta.begins)
        part.text.append(delta.text)
        if delta.extra is not None:
            answer.extras.append(delta.extra)
            part.extra = joined(part.extra, delta.extra)
        if delta.logprobs:
            answer.logprobs.extend(delta.logprobs)
        return
    if delta.extra is not None:
        answer.extras.append(delta.extra)
    match delta:
        case Refusal(text):
            part = answer.written(Refusal)
            part.text.append(text)
            part.extra = joined(part.extra, delta.extra)
        case Reasoning(text, signature):
            part = answer.written(Reasoning, begins=delta.begins)
            part.text.append(text)
            part.extra = joined(part.extra, delta.extra)
            part.signature = signature or part.signature
        case ToolCall(_, call_id, name, arguments, "ready"):
            answer.parts.append(ToolCallPart(call_id, name, arguments, delta.extra, delta.signature))
        case Citation():
            answer.written(Text).citations.append(delta)
        case Opaque(wire, data):
            answer.parts.append(OpaquePart(wire, data))
        case Text() | ToolCall() | ToolResult() | Status() | Attempt() | Restart() | Finish():
            pass


def _choice(answer: _Answer, reason: FinishReason) -> Choice:
    parts = tuple([part.part() if isinstance(part, _Part) else part for part in answer.parts])
    return Choice(parts, reason, tuple(answer.extras), tuple(answer.logprobs))
