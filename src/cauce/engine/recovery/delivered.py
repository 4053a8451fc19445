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

    @property
    def shown(self) -> bool:
        """Whether there is anything in it that counts: reasoning and statuses do not."""
        return bool(self.text or self.ready or self.begun or self.otherwise)


def fold(batches: Iterable[Sequence[Delta]]) -> Delivered:
    """What `batches` have shown, and not taken back."""
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
                    otherwise = False
                case Refusal() | Opaque() | ToolResult():
                    otherwise = True
                case _:
                    pass
    return Delivered("".join(texts), tuple(ready), tuple(calls.values()), otherwise)


class Called(msgspec.Struct, frozen=True):
    """The calls of tools that readers have been shown, abandoned ones too: no later one may be taken for one of them."""

    ids: frozenset[str] = frozenset()
    next_index: int = 0


def called(batches: Iterable[Sequence[Delta]]) -> Called:
    """The calls in `batches`."""
    calls = [delta for batch in batches for delta in batch if isinstance(delta, ToolCall)]
    return Called(frozenset([call.call_id for call in calls]), 1 + max([call.index for call in calls], default=-1))
