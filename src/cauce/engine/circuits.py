"""The circuit of one candidate: whether it may be asked, by how it has done lately.

| state | it is asked | it leaves the state |
|---|---|---|
| closed | always | when too much of what it was asked lately has failed, or it says itself until when it will |
| open | by nobody, until its time is over | by a probe |
| half-open | by the one probe under way | closed if the probe has its first delta, else open, for longer |

No I/O, no clock: times are readings of a monotonic clock, in seconds, that callers bring.
"""

from typing import Literal

from cauce.ports.resilience import BreakerSettings

State = Literal["closed", "open", "half_open"]
Event = Literal["tripped", "probed", "passed", "failed", "left"]

TRANSITIONS: dict[tuple[State, Event], State] = {
    ("closed", "tripped"): "open",
    ("open", "tripped"): "open",
    ("open", "probed"): "half_open",
    # A probe that had been given up as hung has its answer after all.
    ("open", "passed"): "closed",
    ("half_open", "passed"): "closed",
    ("half_open", "failed"): "open",
    ("half_open", "left"): "open",
    ("half_open", "tripped"): "open",
}
"""All there are."""

_SLOTS = 10


class Window:
    """Results of the last `seconds`, counted in ten slots: what is older than a slot more than that is forgotten."""

    __slots__ = ("_bad", "_good", "_slot", "_width")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _SLOTS
        self._slot = 0
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self._good = [0] * _SLOTS
        self._bad = [0] * _SLOTS

    def good(self, now: float) -> None:
        """One that went well."""
        slot = int(now / self._width)
        if slot != self._slot:
            self._turn(slot)
        self._good[slot % _SLOTS] += 1

    def bad(self, now: float) -> None:
        """One that failed."""
        slot = int(now / self._width)
        if slot != self._slot:
            self._turn(slot)
        self._bad[slot % _SLOTS] += 1

    def counts(self, now: float) -> tuple[int, int]:
        """How many went well, and how many failed."""
        self._turn(int(now / self._width))
        return sum(self._good), sum(self._bad)

    def _turn(self, slot: int) -> None:
        for passed in range(self._slot + 1, min(slot, self._slot + _SLOTS) + 1):
            self._good[passed % _SLOTS] = self._bad[passed % _SLOTS] = 0
        self._slot = slot


class Circuit:
    """See the module. `reason` is why it is not closed; `until` when the next probe may go, `cooldown` how long that was."""

    __slots__ = ("_forced", "_number", "_probing_until", "_settings", "cooldown", "reason", "state", "until", "window")

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._number = 0
        self._forced = False
        self._probing_until = 0.0
        self.state: State = "closed"
        self.until = 0.0
        self.cooldown = settings.cooldown
        self.reason = ""
        self.window = Window(settings.window)

    @property
    def probing_until(self) -> float:
        """When the probe under way will have hung."""
        return self._probing_until

    def ask(self, now: float, *, forced: bool = False) -> int | None:
        """Whether it may be asked: 0 as usual, a number as the probe of that number, None not now.

        `forced`: before its time is over too, if no probe is under way.
        """
        if self.state == "half_open" and now >= self._probing_until:
            self._fail(self._probing_until, None)
        if self.state == "closed":
            return 0
        if self.state == "half_open" or (now < self.until and not forced):
            return None
        self._forced = now < self.until
        self._move("probed")
        self._number += 1
        self._probing_until = now + self._settings.probe
        return self._number

    def passed(self, probe: int) -> bool:
        """A probe has its first delta: the candidate is well. Whether that was news."""
        if self.state == "closed" or (self.state == "half_open" and probe != self._number):
            return False
        self.reset()
        return True

    def reset(self) -> None:
        """Close it, with nothing held against the candidate."""
        if self.state != "closed":
            self._move("passed")
        self.cooldown = self._settings.cooldown
        self.reason = ""
        self.window.clear()

    def failed(self, probe: int, now: float, reason: str, announced: float | None = None) -> None:
        """A probe has failed. `announced`: seconds until the candidate will be well, by its own word."""
        if self.state == "half_open" and probe == self._number:
            self.reason = reason
            self._fail(now, announced)

    def left(self, probe: int, now: float) -> None:
        """A probe was given up by who asked: nothing is known, the next call may be the probe."""
        if self.state == "half_open" and probe == self._number:
            self._move("left")
            self.until = now

    def good(self, now: float) -> None:
        """A call went well."""
        self.window.good(now)

    def bad(self, now: float, reason: str, announced: float | None = None) -> bool:
        """A call failed. Whether that opened the circuit."""
        if self.state != "closed":
            return False
        self.window.bad(now)
        good, bad = self.window.counts(now)
        settings = self._settings
        if good + bad < settings.results or bad < settings.ratio * (good + bad):
            return False
        self.trip(now, reason, announced if announced is not None else settings.cooldown)
        return True

    def trip(self, now: float, reason: str, seconds: float) -> None:
        """Open it for `seconds`, whatever its results are."""
        self._move("tripped")
        self.reason = reason
        self.until = now + seconds

    def _fail(self, now: float, announced: float | None) -> None:
        self._move("failed")
        if not self._forced:
            self.cooldown = min(self.cooldown * 2, max(self._settings.longest, self._settings.cooldown))
        self.until = now + (announced if announced is not None else self.cooldown)

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
