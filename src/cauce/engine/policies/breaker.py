"""Candidates that are not well are left alone until they are: nobody waits for what will fail, and they get the rest they need.

There is one circuit per provider, deployment, model and endpoint, and for a route with settings of its own another one, which counts
that route's calls alone. A key that is refused, or has no money left, opens all circuits of the provider and deployment. What opens
one stands in `domain.errors.says_unwell`, when in `engine.circuits`.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial

import msgspec

from cauce.domain.delta import Outcome
from cauce.domain.errors import CauceError, CircuitOpen, ProviderFailure, says_unwell
from cauce.domain.usage import Usage
from cauce.engine.circuits import Circuit, State
from cauce.engine.duration import in_words
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Deltas, Open, Policy
from cauce.ports.resilience import BreakerSettings

MOST = 2000
"""Circuits that are kept. Beyond that, those of candidates that are well are forgotten, then those known for longest."""

HURRY = 5.0
"""Seconds until a first delta that a candidate must have had: who gives it less cannot say that it is not well, while it answers others."""

_ROUNDING = 0.1
_KEY_REFUSED = frozenset({401, 402})
_Key = tuple[str, str, str, str, str]


class Standing(msgspec.Struct, frozen=True):
    """How one circuit stands. `route`: whose it is alone. `seconds` until it may be probed; `reason` is the failure that opened it."""

    provider: str
    deployment: str
    model: str
    endpoint: str
    route: str
    state: State
    seconds: float = 0.0
    reason: str = ""


class Breaker:
    """One circuit, the time, and whoever waits for the outcome of its probe."""

    __slots__ = ("_clock", "_settings", "_told", "circuit", "of_key")

    def __init__(self, settings: BreakerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._told: asyncio.Event | None = None
        self.circuit = Circuit(settings)
        self.of_key = False
        """It is open for something that holds for every model of the key."""

    async def admit(self, call: Call) -> int:
        """0, or the number of the probe that `call` is. Raises `CircuitOpen`.

        A call that has nowhere else to go waits for the outcome of the probe under way.
        """
        circuit, clock = self.circuit, self._clock
        probe = circuit.ask(clock.monotonic(), forced=call.probe)
        while probe is None and call.probe and circuit.state == "half_open" and not self._late(call):
            # Whoever queues behind it may wait for the same.
            call.admitted()
            await self._outcome(call)
            probe = circuit.ask(clock.monotonic())
        if probe is None:
            raise self._denial(call.candidate)
        return probe

    def _late(self, call: Call) -> bool:
        return call.deadline is not None and self._clock.monotonic() >= call.deadline

    async def _outcome(self, call: Call) -> None:
        """Return when the probe under way has ended, or has hung, or the time of `call` is over."""
        until = self.circuit.probing_until
        if call.deadline is not None:
            until = min(until, call.deadline)
        if self._told is None:
            self._told = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(max(0.0, until - self._clock.monotonic())):
                await self._told.wait()

    def passed(self, probe: int) -> bool:
        """The probe has its first delta. Whether its circuit is closed by that."""
        closed = self.circuit.passed(probe)
        self._tell()
        return closed

    def failed(self, probe: int, error: CauceError) -> None:
        """A call or a probe (if `probe` is not 0) has failed by the candidate's own fault."""
        now = self._clock.monotonic()
        if isinstance(error, ProviderFailure) and error.failure in ("auth", "quota"):
            self.trip(error)
        elif probe:
            self.circuit.failed(probe, now, error.message, error.retry_after)
        else:
            self.circuit.bad(now, error.message, error.retry_after)
        self._tell()

    def trip(self, error: CauceError) -> None:
        """Open it at once, until the reset that `error` announces, else for the longest time."""
        seconds = error.retry_after if error.retry_after is not None else self._settings.longest
        self.circuit.trip(self._clock.monotonic(), error.message, seconds)

    def left(self, probe: int) -> None:
        """The probe was given up, and says nothing."""
        self.circuit.left(probe, self._clock.monotonic())
        self._tell()

    def ended(self, call: Call, outcome: Outcome, _: Usage, error: CauceError | None) -> None:
        """The answer to `call` has ended: a cut one has failed; one that the client left, or had no more time for, says nothing."""
        if outcome in ("completed", "incomplete"):
            self.circuit.good(self._clock.monotonic())
        elif isinstance(error, ProviderFailure) and says_unwell(error):
            over = call.deadline is not None and self._clock.monotonic() >= call.deadline - _ROUNDING
            if not (over and error.code == "timeout"):
                self.failed(0, error)

    def excuses(self, call: Call, error: ProviderFailure, probe: int) -> bool:
        """Whether `error` says nothing: `call` had too little time for it to, and others were answered lately."""
        if not hurried(call, error):
            return False
        return probe > 0 or self.circuit.window.counts(self._clock.monotonic())[0] > 0

    def _denial(self, candidate: Candidate) -> CircuitOpen:
        circuit = self.circuit
        until = circuit.probing_until if circuit.state == "half_open" else circuit.until
        seconds = max(0.0, until - self._clock.monotonic())
        return CircuitOpen(
            f"{candidate.name} is left alone for {in_words(seconds)}, since it failed: {circuit.reason}",
            retry_after=seconds,
        )

    def _tell(self) -> None:
        if self._told is not None:
            self._told.set()
            self._told = None


class Breakers:
    """All of them. `common` holds where a candidate has no settings of its own."""

    def __init__(self, common: BreakerSettings, clock: Clock) -> None:
        self._common = common
        self._clock = clock
        self._kept: dict[_Key, Breaker] = {}
        self._refused: dict[tuple[str, str], CauceError] = {}
        """Keys that are refused, and how."""

    def guards(self, candidate: Candidate) -> bool:
        """Whether `candidate` has a circuit. The offline answerer, which always is well, has none."""
        return candidate.level != "offline" and (candidate.resilience.breaker or self._common).enabled

    def of(self, candidate: Candidate, endpoint: str = "chat") -> Breaker:
        """That of `candidate` at `endpoint`."""
        key = _key(candidate, endpoint)
        kept = self._kept.get(key)
        return kept if kept is not None else self._made(key, candidate.resilience.breaker or self._common)

    def failed(self, candidate: Candidate, breaker: Breaker, probe: int, error: CauceError) -> None:
        """`candidate` has failed by its own fault: note it, for every model of its key if that is what was refused."""
        breaker.failed(probe, error)
        if isinstance(error, ProviderFailure) and _of_key(error):
            key = (candidate.provider.name, candidate.deployment)
            self._refused[key] = error
            for other in self._under(key):
                other.of_key = True
                if other is not breaker:
                    other.trip(error)

    def passed(self, candidate: Candidate, breaker: Breaker, probe: int) -> None:
        """A probe of `candidate` has its first delta; if its key had been refused, it is not any more."""
        if breaker.passed(probe) and breaker.of_key:
            key = (candidate.provider.name, candidate.deployment)
            self._refused.pop(key, None)
            for other in self._under(key):
                if other.of_key:
                    other.of_key = False
                    other.circuit.reset()

    def state(self, candidate: Candidate, endpoint: str = "chat") -> State:
        """How the circuit of `candidate` stands, without making one."""
        kept = self._kept.get(_key(candidate, endpoint))
        return kept.circuit.state if kept is not None else "closed"

    def standing(self) -> list[Standing]:
        """Of all there are."""
        now = self._clock.monotonic()
        return [
            Standing(*key, one.circuit.state, max(0.0, one.circuit.until - now), one.circuit.reason)
            if one.circuit.state != "closed"
            else Standing(*key, "closed")
            for key, one in self._kept.items()
        ]

    def _under(self, key: tuple[str, str]) -> Iterator[Breaker]:
        return iter([one for of, one in self._kept.items() if of[:2] == key])

    def _made(self, key: _Key, settings: BreakerSettings) -> Breaker:
        if len(self._kept) >= MOST:
            ill = [(of, one) for of, one in self._kept.items() if one.circuit.state != "closed"]
            # Of too many that are not well, those known for longest have to go too.
            self._kept = dict(ill[-MOST // 2 :])
        made = self._kept[key] = Breaker(settings, self._clock)
        refused = self._refused.get(key[:2])
        if refused is not None:
            made.of_key = True
            made.trip(refused)
        return made


def breaker(breakers: Breakers) -> Policy:
    """Raise `CircuitOpen` for candidates that are not well, and learn from every call who is."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            candidate = call.candidates[0]
            if not breakers.guards(candidate):
                return await open(call)
            one = breakers.of(candidate, call.endpoint)
            probe = 0 if one.circuit.state == "closed" else await one.admit(call)
            try:
                deltas = await open(call)
            except BaseException as error:
                if isinstance(error, ProviderFailure) and says_unwell(error) and not one.excuses(call, error, probe):
                    breakers.failed(candidate, one, probe, error)
                elif probe and isinstance(error, ProviderFailure) and error.code == "timeout":
                    one.left(probe)
                elif probe and isinstance(error, ProviderFailure):
                    # It answered, though not what was hoped for.
                    breakers.passed(candidate, one, probe)
                elif probe:
                    one.left(probe)
                raise
            if probe:
                breakers.passed(candidate, one, probe)
            deltas.on_end(partial(one.ended, call))
            return deltas

        return opened

    return policy


def hurried(call: Call, error: ProviderFailure) -> bool:
    """Whether the candidate was given up before the time that it may need was over."""
    patience = call.patience
    if error.code != "timeout" or patience is None:
        return False
    return patience < min(HURRY, call.candidates[0].timeouts.first_delta)


def _key(candidate: Candidate, endpoint: str) -> _Key:
    return candidate.provider.name, candidate.deployment, candidate.model, endpoint, candidate.resilience.route


def _of_key(error: ProviderFailure) -> bool:
    """Whether `error` holds for all models of a key. A 403 may be about one model, and many quotas are by model."""
    return error.upstream_status in _KEY_REFUSED
