"""A text as it comes, held for the end of an answer, or for what is shown anew: in few strings, since a string for each token of it takes
ten times the room of its characters."""

from array import array

TOGETHER = 256
"""Pieces that are looked at in one go, and joined where they are short."""

SHORT = 32
"""Characters. Longer pieces stay as they are: their strings take little beside them, and all who read a stream as it comes share them."""


class Pieces:
    """Pieces of a text in their order. They can be taken back from any of them on."""

    __slots__ = ("_joined", "_lengths", "new")

    def __init__(self) -> None:
        self.new: list[str] = []
        """The newest of them. Whoever adds more than `TOGETHER` calls `fold`."""
        self._joined: list[str] = []
        self._lengths = array("I")
        """Of those that are joined."""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join([*self._joined, *self.new])

    def fold(self) -> None:
        """Hold what is new in few strings."""
        new = self.new
        if new:
            self._lengths.extend(map(len, new))
            joined = "".join(new)
            if len(joined) < SHORT * len(new):
                self._joined.append(joined)
            else:
                self._joined += new
            new.clear()

    def cut(self, count: int) -> None:
        """Forget all but the first `count` pieces."""
        self.fold()
        kept = self.text[: sum(self._lengths[:count])]
        del self._lengths[count:]
        self._joined = [kept] if kept else []
