"""Those who wait at one bottleneck, in the order in which they are served. No I/O, no clock.

Priorities come first. Within one, each flow gets on in the proportion of its weight, however many it has waiting: start-time fair
queueing (Goyal, Vin and Cheng, SIGCOMM 1996), where every call is of the same length.
"""

import heapq
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Share(msgspec.Struct, frozen=True):
    """What a flow (an API key) is due: the greater `priority` goes first, and `weight` is its part among those of the same."""

    flow: str
    priority: int = 0
    weight: float = 1.0


class Place(msgspec.Struct, Generic[T], eq=False):
    """One place in a line. `start` is the virtual time at which its turn begins."""

    share: Share
    start: float
    holder: T
    left: bool = False


class Line(Generic[T]):
    """Joining and leaving cost O(log n), and so does telling who is first."""

    __slots__ = ("_finish", "_heap", "_number", "_virtual", "count")

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, int, Place[T]]] = []
        self._finish: dict[str, float] = {}
        """When the last call of each flow will have been served, in virtual time."""
        self._virtual = 0.0
        self._number = 0
        self.count = 0
        """How many wait."""

    def join(self, holder: T, share: Share, start: float | None = None) -> Place[T]:
        """The place of a newcomer; of one that comes back, that which it had, at `start`."""
        finish = self._finish.get(share.flow, 0.0)
        if start is None:
            start = max(self._virtual, finish)
        self._finish[share.flow] = max(start, finish) + 1.0 / share.weight
        place = Place(share, start, holder)
        self._number += 1
        self.count += 1
        heapq.heappush(self._heap, (-share.priority, start, self._number, place))
        return place

    def leave(self, place: Place[T], *, served: bool) -> None:
        """Give up `place`. What its flow has not been served is not held against it."""
        if place.left:
            return
        place.left = True
        self.count -= 1
        share = place.share
        if served:
            self._virtual = max(self._virtual, place.start)
        else:
            self._finish[share.flow] -= 1.0 / share.weight
        if self.count * 2 + 64 < len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[3].left]
            heapq.heapify(self._heap)

    def first(self) -> T | None:
        """Who is served next."""
        heap = self._heap
        while heap and heap[0][3].left:
            heapq.heappop(heap)
        return heap[0][3].holder if heap else None

    def ordered(self) -> list[T]:
        """All of them, in order. O(n log n)."""
        self._heap = sorted([entry for entry in self._heap if not entry[3].left], key=_order)
        return [place.holder for _, _, _, place in self._heap]


def _order(entry: tuple[int, float, int, object]) -> tuple[int, float, int]:
    return entry[:3]
