"""Putting policies around `open`, and putting deltas back together into a whole answer."""

from contextlib import aclosing

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import (
    Attempt,
    Delta,
    Finish,
    FinishReason,
    Opaque,
    Reasoning,
    Restart,
    Status,
    Text,
    ToolCall,
    ToolResult,
)
from cauce.domain.extra import Extra
from cauce.domain.message import ToolCallPart
from cauce.ports.provider import Deltas, Open, Policy


def compose(open: Open, *policies: Policy) -> Open:
    """`open` behind `policies`, the first listed outermost."""
    for policy in reversed(policies):
        open = policy(open)
    return open


class _Answer:
    __slots__ = ("calls", "extras", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCallPart] = []
        self.extras: list[Extra] = []


async def collect(deltas: Deltas) -> Completion:
    """The whole answer. Closes `deltas`; raises what it raises."""
    answers: dict[int, _Answer] = {}
    finish: Finish | None = None
    async with aclosing(deltas):
        while batch := await deltas.read():
            for delta in batch:
                if isinstance(delta, Finish):
                    finish = delta
                else:
                    _add(delta, answers)
    if finish is None:
        raise AssertionError("deltas ended without a Finish and raised nothing")
    reasons = finish.reasons or (finish.reason,)
    choices = tuple(
        [_choice(answers.get(index) or _Answer(), reason) for index, reason in enumerate(reasons)],
    )
    return Completion(choices, finish.usage, finish.outcome, finish.extra)


def _add(delta: Delta, answers: dict[int, _Answer]) -> None:
    answer = answers.get(delta.choice)
    if answer is None:
        answer = answers[delta.choice] = _Answer()
    if delta.extra is not None:
        answer.extras.append(delta.extra)
    match delta:
        case Text(text):
            answer.text.append(text)
        case Reasoning(text):
            answer.reasoning.append(text)
        case ToolCall(_, call_id, name, arguments, "ready"):
            answer.calls.append(ToolCallPart(call_id, name, arguments, delta.extra))
        case ToolCall() | ToolResult() | Status() | Attempt() | Opaque() | Restart() | Finish():
            pass


def _choice(answer: _Answer, reason: FinishReason) -> Choice:
    return Choice("".join(answer.text), "".join(answer.reasoning), tuple(answer.calls), reason, tuple(answer.extras))
