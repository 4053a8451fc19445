"""Tool calls in one piece each, for wires that cannot take back arguments they have shown."""

from collections.abc import Sequence

import msgspec

from cauce.domain.delta import Delta, ToolCall
from cauce.domain.extra import Extra, joined


class WholeCalls:
    """Deltas in, deltas out: a call's pieces are held until it is `ready`, and come as one; one that is abandoned never comes.

    So an attempt that broke inside a call can be gone on with. The calls of a choice are counted anew, without gaps.
    """

    __slots__ = ("_counts", "_extras")

    def __init__(self) -> None:
        self._extras: dict[tuple[int, int], Extra | None] = {}
        self._counts: dict[int, int] = {}

    def of(self, delta: ToolCall) -> Sequence[Delta]:
        """What is shown of `delta`."""
        key = (delta.choice, delta.index)
        if delta.mark == "piece":
            if delta.extra is not None or key not in self._extras:
                self._extras[key] = joined(self._extras.get(key), delta.extra)
            return ()
        extra = joined(self._extras.pop(key, None), delta.extra)
        if delta.mark == "abandoned":
            return ()
        index = self._counts.get(delta.choice, 0)
        self._counts[delta.choice] = index + 1
        whole = msgspec.structs.replace(delta, index=index, mark="piece", extra=extra)
        return whole, msgspec.structs.replace(delta, index=index, extra=None)
