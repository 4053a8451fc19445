"""An upstream is asked for no more at once than it takes: where nobody says how much that is, it is learned from what it refuses.

A 429 says so by itself. A 503 or 529 does where other calls are under way there; else the upstream is not well, which is the breaker's
business. What was one too many waits in the queue, and nobody holds it against the upstream.
"""

from collections.abc import Callable

import msgspec

from cauce.domain.delta import Outcome
from cauce.domain.errors import DENIALS, CauceError, ProviderFailure, Throttled
from cauce.domain.usage import Usage
from cauce.engine.concurrency import Concurrency
from cauce.engine.duration import in_words
from cauce.engine.limits import upstream_key
from cauce.ports.clock import Clock
from cauce.ports.limiter import SOON
from cauce.ports.metrics import Metrics
from cauce.ports.provider import Call, Candidate, Deltas, Open, Policy

MOST = 2000
"""Candidates of which it is known how many calls they take. Beyond that, those that take any number are forgotten, then the oldest."""

_Key = tuple[str, str, str]


class Crowd(msgspec.Struct, frozen=True):
    """A candidate that has refused calls lately: it is asked `most` at once, and no more for `seconds`."""

    provider: str
    deployment: str
    model: str
    most: int
    under_way: int
    seconds: float = 0.0


class Upstreams:
    """What each candidate takes at once."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._kept: dict[_Key, _Upstream] = {}
        self._listener: Callable[[str], None] | None = None

    def on_room(self, listener: Callable[[str], None]) -> None:
        """Have `listener(key)` called when one of them takes another call, unless time alone has brought that."""
        self._listener = listener

    def of(self, candidate: Candidate) -> "_Upstream":
        """That of `candidate`."""
        key = (candidate.provider.name, candidate.deployment, candidate.model)
        kept = self._kept.get(key)
        return kept if kept is not None else self._made(key, candidate)

    def crowded(self) -> list[Crowd]:
        """Those that have refused calls lately."""
        now = self._clock.monotonic()
        return [
            Crowd(*key, int(one.takes.most), one.takes.under_way, max(0.0, max(one.takes.pause, one.takes.until) - now))
            for key, one in self._kept.items()
            if one.takes.limited and not one.takes.forgotten(now)
        ]

    def admit(self, one: "_Upstream", call: Call) -> float:
        """The time by the clock. Raises `Throttled` where `call` has to wait."""
        now = self._clock.monotonic()
        seconds = one.takes.wait(now)
        if not seconds:
            return now
        seconds = max(seconds, one.takes.until - now)
        self._metrics.denied("upstream", "calls")
        most = one.takes.most
        at_once = "one call" if most == 1 else f"{most:g} calls"
        raise Throttled(
            f"{call.candidates[0].name} takes {at_once} at once now: try again in {in_words(seconds)}, since it said: {one.reason}",
            retry_after=seconds,
            bottleneck=one.key,
        )

    def refused(self, one: "_Upstream", error: ProviderFailure, began: float, *, beyond: bool) -> None:
        """Learn from `error`, if it says that a call was one too many; then it says where to wait, too. It `began` then, as one `beyond`
        what is known to be taken."""
        takes = one.takes
        if error.failure != "rate_limited" and not (error.failure == "overloaded" and takes.under_way):
            return
        now = self._clock.monotonic()
        takes.refused(now, error.retry_after, began=began, beyond=beyond)
        one.reason = error.message
        seconds = max(takes.pause, takes.until) - now
        if not seconds and takes.under_way >= takes.most:
            seconds = SOON
        error.waits = {one.key: seconds}

    def left(self, one: "_Upstream") -> None:
        """A call is not under way any more, or one more may be."""
        if self._listener is not None and one.takes.room(self._clock.monotonic()):
            self._listener(one.key)

    def answered(self, one: "_Upstream", *, beyond: bool) -> None:
        """A call is answered, one `beyond` what was known to be taken."""
        if one.takes.answered(self._clock.monotonic(), beyond=beyond):
            self.left(one)

    def kept_back(self, one: "_Upstream") -> None:
        """A call that was let through was denied further on: nobody was asked."""
        one.takes.kept_back(self._clock.monotonic())

    def _made(self, key: _Key, candidate: Candidate) -> "_Upstream":
        if len(self._kept) >= MOST:
            limited = [(of, one) for of, one in self._kept.items() if one.takes.limited or one.takes.under_way]
            self._kept = dict(limited[-MOST // 2 :])
        made = self._kept[key] = _Upstream(self, upstream_key(candidate, "calls"))
        return made


class _Upstream:
    """One candidate. `key` is where calls wait for it, `reason` what it refused the last one with."""

    __slots__ = ("_all", "key", "reason", "takes")

    def __init__(self, all: Upstreams, key: str) -> None:
        self._all = all
        self.key = key
        self.reason = ""
        self.takes = Concurrency()

    def ended(self, outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        """See `Deltas.on_end`."""
        takes = self.takes
        takes.under_way -= 1
        if takes.limited:
            self._all.left(self)


def concurrency(upstreams: Upstreams) -> Policy:
    """Raise `Throttled` for candidates that take no more, and learn from every call how many they take. The offline answerer takes all."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            candidate = call.candidates[0]
            if candidate.level == "offline":
                return await open(call)
            one = upstreams.of(candidate)
            takes = one.takes
            began = upstreams.admit(one, call) if takes.limited else 0.0
            takes.under_way += 1
            beyond = takes.under_way > takes.most
            try:
                deltas = await open(call)
            except BaseException as error:
                takes.under_way -= 1
                if isinstance(error, ProviderFailure):
                    upstreams.refused(one, error, began, beyond=beyond)
                elif isinstance(error, DENIALS):
                    upstreams.kept_back(one)
                if takes.limited:
                    upstreams.left(one)
                raise
            if takes.limited:
                upstreams.answered(one, beyond=beyond)
            deltas.on_end(one.ended)
            return deltas

        return opened

    return policy
