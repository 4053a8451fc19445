"""How much may wait in all lines together, and whose call goes where it is more. No I/O, no clock.

Each flow that waits is due a part of the whole, by its weight and whatever its priority. Where there is too much, some flow has more than
its part: of those, one of the least priority gives up what came last, and of several of that priority the one that has most for its weight.
"""

import heapq
from collections import OrderedDict
from typing import Generic, TypeVar

from cauce.engine.queue.line import Share

T = TypeVar("T")


class _Flow(Generic[T]):
    """What one flow has waiting: its holders with their sizes, last come last; their number and sizes in all."""

    __slots__ = ("amounts", "entries", "holders", "share")

    def __init__(self, share: Share) -> None:
        self.share = share
        self.holders: OrderedDict[T, int] = OrderedDict()
        self.amounts = [0, 0]
        self.entries = [0, 0]
        """The numbers of its entries in the heaps: older ones of it count no more."""


_Heap = list[tuple[float, int, _Flow[T]]]
"""Flows of one priority, the one with most for its weight first; of two that have as much, the one that has grown last."""


class Bounds(Generic[T]):
    """At most `length` holders, of `size` bytes together. Adding one and giving one up cost O(log n)."""

    def __init__(self, length: int, size: int) -> None:
        self._most = (length, size)
        self._held = [0, 0]
        self._flows: dict[str, _Flow[T]] = {}
        self._heaps: tuple[dict[int, _Heap[T]], dict[int, _Heap[T]]] = ({}, {})
        """By priority, for each of the two bounds."""
        self._weight = 0.0
        self._number = 0

    def admit(self, holder: T, share: Share, size: int, *, returns: bool = False) -> list[T] | None:
        """Those who give up their places for `holder`; None where it is `holder` itself, and nothing has changed.

        One that `returns` had a place before: others of its flow go first.
        """
        if size > self._most[1]:
            return None
        self._add(holder, share, size)
        if returns:
            self._flows[share.flow].holders.move_to_end(holder, last=False)
        gone: list[tuple[T, Share, int]] = []
        while (bound := self._exceeded()) is not None:
            flow = self._over(bound)
            last = next(reversed(flow.holders)) if flow is not None else holder
            gone.append((last, *self._remove(last, share if flow is None else flow.share)))
            if last is holder:
                for other in reversed(gone[:-1]):
                    self._add(*other)
                return None
        return [one for one, _, _ in gone]

    def leave(self, holder: T, share: Share) -> None:
        """It waits no longer. Does nothing where it has given up its place."""
        flow = self._flows.get(share.flow)
        if flow is not None and holder in flow.holders:
            self._remove(holder, share)

    def _exceeded(self) -> int | None:
        for bound, most in enumerate(self._most):
            if self._held[bound] > most:
                return bound
        return None

    def _over(self, bound: int) -> _Flow[T] | None:
        """The flow that has to give up something."""
        heaps, whole = self._heaps[bound], self._most[bound]
        for priority in sorted(heaps):
            heap = heaps[priority]
            while heap and heap[0][2].entries[bound] != -heap[0][1]:
                heapq.heappop(heap)
            if not heap:
                del heaps[priority]
                continue
            flow = heap[0][2]
            if flow.amounts[bound] * self._weight > whole * flow.share.weight:
                return flow
        return None

    def _add(self, holder: T, share: Share, size: int) -> None:
        flow = self._flows.get(share.flow)
        if flow is None:
            flow = self._flows[share.flow] = _Flow(share)
            self._weight += share.weight
        flow.holders[holder] = size
        self._changed(flow, (1, size))

    def _remove(self, holder: T, share: Share) -> tuple[Share, int]:
        flow = self._flows[share.flow]
        size = flow.holders.pop(holder)
        self._changed(flow, (-1, -size))
        if not flow.holders:
            del self._flows[share.flow]
            flow.entries = [0, 0]
            # What rounding has left goes with the last one.
            self._weight = self._weight - flow.share.weight if self._flows else 0.0
        return flow.share, size

    def _changed(self, flow: _Flow[T], amounts: tuple[int, int]) -> None:
        share = flow.share
        for bound, amount in enumerate(amounts):
            self._held[bound] += amount
            flow.amounts[bound] += amount
            self._number += 1
            flow.entries[bound] = self._number
            heap = self._heaps[bound].setdefault(share.priority, [])
            heapq.heappush(heap, (-flow.amounts[bound] / share.weight, -self._number, flow))
            if len(heap) > 2 * len(self._flows) + 64:
                heap[:] = [entry for entry in heap if entry[2].entries[bound] == -entry[1]]
                heapq.heapify(heap)
