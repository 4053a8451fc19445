"""What of an answer its reader has, folded from the batches that were delivered."""

from collections.abc import Iterable, Sequence

import msgspec

from cauce.domain.delta import Delta, Opaque, Refusal, Restart, Text, ToolCall, ToolResult


class Delivered(msgspec.Struct, frozen=True):
    """`text` of the only choice. `ready` are calls whose arguments are complete, `begun` those that are not.

    `otherwise`: there is something in it that a text cannot go on from: a refusal, a second choice, a block of one wire.
    """

    text: str = ""
    ready: tuple[ToolCall, ...] = ()
    begun: tuple[ToolCall, ...] = ()
    otherwise: bool = False


def fold(batches: Iterable[Sequence[Delta]]) -> Delivered:
    """What `batches` have shown."""
    texts: list[str] = []
    calls: dict[tuple[int, int], ToolCall] = {}
    ready: list[ToolCall] = []
    otherwise = False
    for batch in batches:
        for delta in batch:
            if delta.choice:
                otherwise = True
            match delta:
                case Text(text):
                    texts.append(text)
                case ToolCall(index, mark="piece"):
                    calls.setdefault((delta.choice, index), delta)
                case ToolCall(index, mark="ready"):
                    calls.pop((delta.choice, index), None)
                    ready.append(delta)
                case ToolCall(index):
                    calls.pop((delta.choice, index), None)
                case Restart():
                    texts.clear()
                    calls.clear()
                    ready.clear()
                case Refusal() | Opaque() | ToolResult():
                    otherwise = True
                case _:
                    pass
    return Delivered("".join(texts), tuple(ready), tuple(calls.values()), otherwise)
