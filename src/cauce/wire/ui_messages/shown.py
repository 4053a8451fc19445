"""What of a step the reader of a UI message has: it is sent anew where a part of the step is taken back."""

from collections.abc import Iterator
from typing import TypeGuard

from cauce.domain.delta import Citation, Reasoning, Refusal, Text, ToolCall, ToolResult
from cauce.wire.pieces import TOGETHER, Pieces

Content = Text | Refusal | Reasoning | ToolCall | ToolResult | Citation


class _Run:
    """Text or reasoning of records that follow one another, `kind` which."""

    __slots__ = ("first", "kind", "length", "pieces")

    def __init__(self, first: int, kind: type[Text | Reasoning]) -> None:
        self.first = first
        self.kind = kind
        self.length = 0
        self.pieces = Pieces()


class Shown:
    """Records of the step with their numbers, the plain text and reasoning of them in few pieces."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        """Plain text of the newest records, which follow one another. Whoever adds to it calls `end` before it adds any other record, and
        after some."""
        self._held: list[tuple[int, Content] | _Run] = []

    @property
    def deltas(self) -> Iterator[Content]:
        """What it comes to."""
        for one in self._held:
            yield one.kind(one.pieces.text) if isinstance(one, _Run) else one[1]

    def end(self, seq: int) -> None:
        """Hold `texts` in few pieces, which are of the records before `seq`."""
        count = len(self.texts)
        run = self._run(seq - count, Text)
        run.length += count
        run.pieces.new.extend(self.texts)
        run.pieces.fold()
        self.texts.clear()

    def add(self, seq: int, delta: Content) -> None:
        """One more record."""
        if not _is_plain(delta):
            self._held.append((seq, delta))
            return
        run = self._run(seq, type(delta))
        run.length += 1
        run.pieces.new.append(delta.text)
        if len(run.pieces.new) >= TOGETHER:
            run.pieces.fold()

    def _run(self, seq: int, kind: type[Text | Reasoning]) -> _Run:
        """What records from `seq` on belong to."""
        last = self._held[-1] if self._held else None
        if isinstance(last, _Run):
            if last.kind is kind and seq == last.first + last.length:
                return last
            last.pieces.fold()
        run = _Run(seq, kind)
        self._held.append(run)
        return run

    def cut(self, from_seq: int) -> bool:
        """Forget the records `from_seq` and later; whether there were any."""
        held = self._held
        forgot = False
        while held:
            last = held[-1]
            if isinstance(last, _Run) and last.first < from_seq < last.first + last.length:
                last.length = from_seq - last.first
                last.pieces.cut(last.length)
                return True
            if (last.first if isinstance(last, _Run) else last[0]) < from_seq:
                return forgot
            held.pop()
            forgot = True
        return forgot

    def clear(self) -> None:
        """Hold nothing any more."""
        self._held.clear()


def _is_plain(delta: Content) -> TypeGuard[Text | Reasoning]:
    """Whether it may be one with what stands beside it."""
    if isinstance(delta, Text):
        return not delta.begins
    return isinstance(delta, Reasoning) and not delta.begins and delta.signature is None
