"""What of an answer its reader has, folded from the batches that were delivered."""

from collections.abc import Sequence

import msgspec

from cauce.domain.delta import Delta, Opaque, Refusal, Restart, Text, ToolCall, ToolResult

MOST_KEPT = 4 * 1024 * 1024
"""Characters of an answer beyond which no more are held, and it is not gone on with."""

TOGETHER = 256
"""Batches that are folded in one go."""


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


class Called(msgspec.Struct, frozen=True):
    """The calls of tools that readers have been shown, abandoned ones too: no later one may be taken for one of them."""

    ids: frozenset[str] = frozenset()
    next_index: int = 0


class Seen:
    """What readers have been shown, batch by batch. Of it is held what an answer can be gone on with from: its text, in few pieces,
    and its calls."""

    def __init__(self) -> None:
        self.new: list[Sequence[Delta]] = []
        """Batches that readers are shown. Whoever adds more than `TOGETHER` calls `fold`."""
        self._folded = 0
        self._texts: list[str] = []
        self._characters = 0
        self._calls: dict[tuple[int, int], ToolCall] = {}
        self._ready: list[ToolCall] = []
        self._otherwise = False
        self._ids: set[str] = set()
        self._next_index = 0

    @property
    def count(self) -> int:
        """Of all batches."""
        return self._folded + len(self.new)

    def delivered(self) -> Delivered:
        """What they have been shown that was not taken back."""
        self.fold()
        return Delivered("".join(self._texts), tuple(self._ready), tuple(self._calls.values()), self._otherwise)

    def called(self) -> Called:
        """The calls of tools they have been shown."""
        self.fold()
        return Called(frozenset(self._ids), self._next_index)

    def clear(self) -> None:
        """Hold nothing any more."""
        self.new.clear()
        self._take_back()

    def fold(self) -> None:
        """Hold what is new in few pieces."""
        texts: list[str] = []
        self._folded += len(self.new)
        for batch in self.new:
            for delta in batch:
                if type(delta) is Text and not delta.choice:
                    texts.append(delta.text)
                elif isinstance(delta, Restart):
                    texts.clear()
                    self._take_back()
                else:
                    self._fold_other(delta)
        self.new.clear()
        if texts and self._characters <= MOST_KEPT:
            text = "".join(texts)
            self._texts.append(text)
            self._characters += len(text)

    def _fold_other(self, delta: Delta) -> None:
        if delta.choice:
            self._otherwise = True
        match delta:
            case ToolCall(index, call_id, mark=mark):
                self._ids.add(call_id)
                self._next_index = max(self._next_index, index + 1)
                if mark == "piece":
                    self._calls.setdefault((delta.choice, index), delta)
                    return
                self._calls.pop((delta.choice, index), None)
                if mark == "ready":
                    self._ready.append(delta)
            case Text() | Refusal() | Opaque() | ToolResult():
                self._otherwise = True
            case _:
                pass

    def _take_back(self) -> None:
        self._texts.clear()
        self._characters = 0
        self._calls.clear()
        self._ready.clear()
        self._otherwise = False
