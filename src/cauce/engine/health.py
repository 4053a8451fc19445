"""How candidates do: time to their first words, calls under way, when they last failed. In memory, of this process alone."""

import msgspec

from cauce.domain.delta import Outcome
from cauce.domain.errors import CauceError
from cauce.domain.usage import Usage
from cauce.ports.clock import Clock
from cauce.ports.provider import Candidate

MOST = 1024
"""Candidates that are known; the one first heard of longest ago, and idle, is forgotten first."""

FORGOTTEN = 120.0
"""Seconds after which what was measured no longer counts: who was slow gets another chance."""

AILING = 10.0
"""Seconds that a failure puts a candidate behind those without one, unless it answers before."""

_NEWEST = 0.25
"""The part that the newest measurement has in an average that moves."""

_NEVER = float("-inf")

Key = tuple[str, str, str]


class Vitals:
    """Of one candidate. Streamed and plain answers are measured apart: the first words of a plain one are its last."""

    __slots__ = ("_clock", "_failed", "_heard", "_seconds", "under_way")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed = _NEVER
        self._heard = [_NEVER, _NEVER]
        self._seconds = [0.0, 0.0]
        self.under_way = 0

    def answered(self, began: float, *, streamed: bool) -> None:
        """The first delta is there, of a call that began at `began` on the monotonic clock."""
        now = self._clock.monotonic()
        seconds = now - began
        average = self._seconds
        if now - self._heard[streamed] > FORGOTTEN:
            average[streamed] = seconds
        else:
            average[streamed] += (seconds - average[streamed]) * _NEWEST
        self._heard[streamed] = now

    def failed(self) -> None:
        """The upstream failed."""
        self._failed = self._clock.monotonic()

    def ended(self, outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        """A call that was answered is over: see `ports.provider.Deltas.on_end`."""
        self.under_way -= 1
        if error is not None:
            self.failed()

    def latency(self, *, streamed: bool) -> tuple[float, float] | None:
        """Seconds to the first delta, lately, and how many ago that was; None where that is not known any more.

        The other kind of call stands in.
        """
        now = self._clock.monotonic()
        for kind in (streamed, not streamed):
            age = now - self._heard[kind]
            if age <= FORGOTTEN:
                return self._seconds[kind], age
        return None

    @property
    def ailing(self) -> bool:
        """Whether it failed a moment ago and has not answered since."""
        return self._failed > max(self._heard) and self._clock.monotonic() - self._failed < AILING


class Figures(msgspec.Struct, frozen=True):
    """What is known of a candidate now. `latency` is seconds to its first delta, as it was `age` seconds ago."""

    latency: float | None = None
    age: float = 0.0
    under_way: int = 0
    ailing: bool = False


UNHEARD = Figures()


class Health:
    """By provider, deployment and model. Bounded."""

    def __init__(self, clock: Clock, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._known: dict[Key, Vitals] = {}

    def of(self, candidate: Candidate) -> Vitals:
        """Those of `candidate`, to write into."""
        key = (candidate.provider.name, candidate.deployment, candidate.model)
        vitals = self._known.get(key)
        if vitals is None:
            vitals = self._known[key] = Vitals(self._clock)
            if len(self._known) > self._most:
                self._forget(key)
        return vitals

    def figures(self, candidate: Candidate, *, streamed: bool) -> Figures:
        """What is known of `candidate`; asking does not make it known."""
        vitals = self._known.get((candidate.provider.name, candidate.deployment, candidate.model))
        if vitals is None:
            return UNHEARD
        latency, age = vitals.latency(streamed=streamed) or (None, 0.0)
        return Figures(latency, age, vitals.under_way, vitals.ailing)

    def _forget(self, kept: Key) -> None:
        idle = next((key for key, vitals in self._known.items() if vitals.under_way == 0 and key != kept), None)
        if idle is not None:
            del self._known[idle]
