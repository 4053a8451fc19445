"""How many calls at once an upstream takes that does not say, and what becomes of those that were too many."""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cauce.domain.delta import Attempt
from cauce.domain.errors import CauceError, CircuitOpen, DeadlineExceeded, ProviderFailure, Throttled
from cauce.engine.concurrency import AT_FIRST, EARNED, FIRST_TRY, FORGOTTEN, LAST_TRY, LONGEST_PAUSE, MORE, Concurrency
from cauce.engine.policies.concurrency import MOST, Upstreams, concurrency
from cauce.engine.policies.queue import Shares, queue
from cauce.engine.policies.retry import RetrySettings
from cauce.engine.queue.queue import Queue
from cauce.engine.queue.settings import QueueSettings
from cauce.ports.provider import Call, Candidate, Deltas, Policy
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, answering
from tests.http import within
from tests.unit.engine.guarded import ONCE, Guarded, failing, settled

pytestmark = pytest.mark.anyio


def refusing(takes: Concurrency, under_way: int, now: float = 0.0, asked: float | None = None) -> None:
    """It refuses a call while so many others are there."""
    takes.under_way = under_way
    takes.refused(now, asked)


def going(takes: Concurrency, now: float) -> float:
    """When the next call goes, which waits from `now` on."""
    while wait := takes.wait(now):
        now += wait
    return now


def answering_one(takes: Concurrency, now: float) -> None:
    takes.under_way += 1
    takes.answered(now)
    takes.under_way -= 1


def test_as_many_go_as_were_there_when_it_refused_and_after_a_while_one_more_tries() -> None:
    takes = Concurrency()
    refusing(takes, 3, 10.0)
    assert takes.wait(10.0) > 0
    takes.under_way = 2
    assert takes.wait(10.0) == 0
    takes.under_way = 3
    assert takes.wait(10.0 + FIRST_TRY - 0.1) == pytest.approx(0.1)
    assert takes.wait(10.0 + FIRST_TRY) == 0
    # One, not all who wait.
    takes.under_way = 4
    assert takes.wait(10.0 + FIRST_TRY) > 0


def test_each_that_tries_in_vain_is_followed_after_twice_as_long() -> None:
    takes, now, waits = Concurrency(), 10.0, list[float]()
    refusing(takes, 3, now)
    for _ in range(8):
        began = now
        now = going(takes, now)
        waits.append(now - began)
        takes.refused(now, None, began=now, beyond=True)
    assert waits[:4] == pytest.approx([1, 2, 4, 8]) and waits[-1] == pytest.approx(LAST_TRY)
    assert takes.most == 3 and takes.gap == 0


def test_one_that_is_taken_lets_more_go_for_each_answer_until_one_is_refused() -> None:
    takes = Concurrency()
    refusing(takes, 3, 10.0)
    takes.under_way = 4
    assert takes.answered(12.0, beyond=True) and takes.most == 4 + MORE
    takes.under_way = 6
    assert takes.answered(12.0) and takes.most == 6 + MORE
    takes.under_way = 7
    assert not takes.answered(12.0), "it is not full"
    refusing(takes, 7, 12.5)
    takes.under_way = 7
    assert not takes.answered(12.6) and takes.most == 7


def test_answers_of_what_it_was_known_to_take_say_nothing_of_more() -> None:
    takes = Concurrency()
    refusing(takes, 3)
    takes.under_way = 3
    for _ in range(100):
        takes.answered(0.5)
    assert takes.most == 3


def test_two_refusals_in_a_row_of_what_it_might_have_taken_make_a_pause() -> None:
    takes = Concurrency()
    refusing(takes, 8, 10.0)
    takes.under_way = 7
    takes.refused(10.1, None, began=10.05)
    takes.under_way = 6
    assert takes.wait(10.2) == 0
    takes.refused(10.3, None, began=10.2)
    assert takes.wait(10.3) == pytest.approx(0.25)


def test_refusals_at_random_while_others_are_under_way_make_no_time_between_calls() -> None:
    takes, now = Concurrency(), 10.0
    for _ in range(20):
        now += 1.0
        takes.under_way = 100
        takes.refused(now + 0.01, None, began=now)
        takes.answered(now + 0.5)
    assert takes.gap == 0


def test_lone_calls_that_are_refused_between_answers_are_asked_further_apart() -> None:
    takes, now = Concurrency(), 10.0
    refusing(takes, 0, now)
    gaps: list[float] = []
    for _ in range(5):
        takes.answered(now + 0.1)
        now += 1.0
        takes.under_way = 0
        takes.refused(now + 0.01, None, began=now)
        gaps.append(takes.gap)
    assert gaps == sorted(gaps) and gaps[0] > 0


def test_those_that_went_together_and_were_refused_together_count_as_one() -> None:
    takes = Concurrency()
    for left in range(400, 20, -1):
        refusing(takes, left, 10.0)
    assert takes.most == 21 and takes.gap == 0
    takes.under_way = 20
    assert takes.wait(10.0) == 0


def test_while_it_answers_none_one_tries_each_time_after_twice_as_long() -> None:
    takes, now, pauses = Concurrency(), 100.0, list[float]()
    for _ in range(14):
        wait = takes.wait(now)
        pauses.append(wait)
        now += wait
        assert takes.wait(now) == 0
        refusing(takes, 0, now)
    assert pauses[:6] == pytest.approx([0, 0, 0.25, 0.5, 1, 2])
    assert pauses[-1] == LONGEST_PAUSE


def test_what_it_asks_to_wait_is_waited_for() -> None:
    takes = Concurrency()
    refusing(takes, 0, 10.0, asked=7.0)
    assert takes.wait(12.0) == pytest.approx(5.0) and not takes.room(12.0)
    assert takes.wait(17.0) == 0 and takes.room(17.0)


def test_pause_that_it_asks_for_is_not_cut_short_by_a_refusal_that_asks_for_less() -> None:
    takes = Concurrency()
    refusing(takes, 5, 10.0, asked=20.0)
    refusing(takes, 4, 10.1)
    refusing(takes, 3, 10.2, asked=2.0)
    assert takes.wait(11.0) == pytest.approx(19.0)


@pytest.mark.parametrize("asked", [0.0, 0.006])
def test_who_asks_for_no_time_and_refuses_again_is_asked_once_a_second(asked: float) -> None:
    takes, now = Concurrency(), 100.0
    for _ in range(10):
        now += takes.wait(now)
        refusing(takes, 0, now, asked)
    assert takes.wait(now) == pytest.approx(1.0)


def test_thousands_of_refusals_in_a_row_are_counted() -> None:
    takes, now = Concurrency(), 100.0
    for _ in range(3000):
        now += takes.wait(now)
        refusing(takes, 0, now, 1.0)
    assert takes.wait(now) == pytest.approx(1.0)


def test_however_often_it_refuses_after_an_answer_calls_are_half_a_minute_apart_at_most() -> None:
    takes, now = Concurrency(), 100.0
    refusing(takes, 0, now)
    for _ in range(40):
        refusing(takes, 0, now)
        assert takes.wait(now) <= LONGEST_PAUSE
        now = going(takes, now)
        answering_one(takes, now)
    assert takes.gap > 0.9 * LONGEST_PAUSE


def test_when_it_answers_again_for_a_while_the_time_between_calls_is_soon_over() -> None:
    takes, now = Concurrency(), 100.0
    for _ in range(40):
        refusing(takes, 0, now)
        now = going(takes, now)
        answering_one(takes, now)
        refusing(takes, 0, now)
    began = now
    while takes.gap:
        now = going(takes, now)
        answering_one(takes, now)
    assert now - began < 120


def test_what_a_lone_refusal_says_nothing_of_is_found_out_soon() -> None:
    """A lone call was refused: that it takes one at once is a guess."""
    takes = Concurrency()
    refusing(takes, 0)
    for full in (1, 3, 9, 27):
        for _ in range(full):
            assert takes.wait(0.5) == 0
            takes.under_way += 1
        assert takes.wait(0.5) > 0
        for _ in range(full):
            takes.under_way = int(takes.most)
            takes.answered(0.5)
        takes.under_way = 0
    refusing(takes, 8, 1.0)
    takes.under_way = 8
    assert not takes.answered(1.0)


def test_call_that_did_not_go_after_all_costs_no_time() -> None:
    takes = Concurrency()
    refusing(takes, 0, 10.0)
    refusing(takes, 0, 10.0)
    assert takes.wait(11.0) == 0 and takes.wait(11.0) > 0
    takes.kept_back(11.0)
    assert takes.wait(11.0) == 0
    refusing(takes, 0, 11.0, asked=9.0)
    takes.kept_back(11.0)
    assert takes.wait(11.0) == pytest.approx(9.0)


def test_what_it_refused_long_ago_is_forgotten_once_nobody_asks_it() -> None:
    takes = Concurrency()
    refusing(takes, 0)
    assert takes.wait(FORGOTTEN - 1) == 0 and takes.limited
    assert takes.wait(FORGOTTEN + 1) == 0 and not takes.limited


class Seen(msgspec.Struct):
    """What a server saw that was asked as often as its `Concurrency` lets."""

    answered: int = 0
    refused: int = 0
    most: int = 0


def asked(
    seconds: float,
    *,
    takes: float = inf,
    per_second: float = inf,
    length: float = 1.0,
    first: float = 0.05,
    demand: int = 1000,
    hint: float | None = None,
    refuses: Sequence[int] = (),
) -> Seen:
    """A server that `takes` so many at once, `per_second` at most, and refuses the calls numbered in `refuses` whatever it has room
    for, before `demand` clients that come again when they are answered: `first` seconds to the first word, `length` to the last."""
    state, seen, now, number = Concurrency(), Seen(), 0.0, 0
    under_way, came = 0, deque[float]()
    events: list[tuple[float, int, str, bool, float]] = []
    while now < seconds:
        while events and events[0][0] <= now:
            at, _, kind, beyond, began = heappop(events)
            if kind == "first":
                seen.answered += 1
                if state.limited:
                    state.answered(at, beyond=beyond)
                continue
            state.under_way -= 1
            if kind == "refused":
                seen.refused += 1
                state.refused(at, hint, began=began, beyond=beyond)
            else:
                under_way -= 1
        wait = state.wait(now) if state.limited else 0.0
        if state.under_way >= demand:
            wait = 1.0
        if wait:
            now = min(now + wait, events[0][0]) if events else now + wait
            continue
        number += 1
        state.under_way += 1
        began, beyond = (now if state.limited else 0.0), state.under_way > state.most
        while came and came[0] <= now - 1:
            came.popleft()
        if under_way >= takes or len(came) >= per_second or number in refuses:
            heappush(events, (now + 0.003, number, "refused", beyond, began))
        else:
            under_way += 1
            seen.most = max(seen.most, under_way)
            came.append(now)
            heappush(events, (now + min(first, length), number, "first", beyond, began))
            heappush(events, (now + length, number, "last", beyond, began))
        now += 0.0005
    return seen


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0.1, 30.0), st.floats(0.02, 2.0))
def test_server_that_takes_so_many_at_once_is_kept_busy_and_refuses_little(
    takes: int, length: float, first: float
) -> None:
    seconds = 20 * length + 20
    seen = asked(seconds, takes=takes, length=length, first=first, demand=200)
    assert seen.answered >= 0.8 * takes * (seconds - 10) / length
    # Those of the beginning, when nothing was known, and a few that try.
    assert seen.refused <= 200 + 12 + seconds / 10


@pytest.mark.parametrize(
    ("per_second", "length"), [(10, 0.05), (10, 0.3), (10, 1.0), (10, 30.0), (2, 0.5), (2, 5.0), (1, 0.05), (1, 0.5)]
)
@pytest.mark.parametrize("hint", [None, 1.0])
def test_server_that_takes_so_many_a_second_is_asked_for_most_of_them(
    per_second: int, length: float, hint: float | None
) -> None:
    seen = asked(120, per_second=per_second, length=length, first=0.2, demand=20 if length < 30 else 400, hint=hint)
    ideal = min(120 * per_second, (20 if length < 30 else 400) * 120 / length)
    assert seen.answered >= 0.5 * ideal
    # Those of the beginning, when nothing was known; then what a budget of retries would allow.
    assert seen.refused <= 20 + AT_FIRST + EARNED * seen.answered


@pytest.mark.parametrize("after", [1, 3, 50])
def test_refusal_that_says_nothing_of_calls_at_once_keeps_long_answers_waiting_for_seconds_only(after: int) -> None:
    """A hundred and fifty streams of half a minute; now and then one is refused for another reason."""
    seen = asked(12, length=30.0, first=0.3, demand=150, refuses=(after, 40, 70))
    assert seen.most >= 147 and seen.refused == 3


class Crowded(Guarded):
    """Providers whose limits nobody knows, behind a queue unless `queued` says no."""

    def __init__(
        self,
        *providers: ScriptedProvider,
        retries: RetrySettings = ONCE,
        settings: QueueSettings | None = None,
        queued: bool = True,
    ) -> None:
        clock = _Lent()
        settings = settings or QueueSettings()
        metrics = PrometheusMetrics()
        self.lines = Queue(settings, clock, metrics.waited)
        self.upstreams = Upstreams(clock, metrics)
        self.upstreams.on_room(self.lines.room)
        entry: tuple[Policy, ...] = (queue(self.lines, Shares({}), None),) if queued else ()
        super().__init__(*providers, retries=retries, limits=(concurrency(self.upstreams),), entry=entry)
        clock.lend(self.clock)

    @property
    def takes(self) -> Concurrency:
        """What the first of them takes."""
        return self.upstreams.of(self.candidates[0]).takes

    def state(self, place: int = 0) -> str:
        return self.breakers.state(self.candidates[place])


class _Lent(FakeClock):
    """The clock that `Guarded` makes, for what has to be there before."""

    def lend(self, clock: FakeClock) -> None:
        self.__dict__ = clock.__dict__


class Few(ScriptedProvider):
    """Answers `most` at once, each when it is released, and refuses all others with `failure`."""

    def __init__(self, most: int, failure: str = "rate_limited", retry_after: float | None = None) -> None:
        super().__init__("up", answering("ok"))
        self.most = most
        self.failure = failure
        self.retry_after = retry_after
        self.under_way: list[asyncio.Event] = []
        self.refusals = 0

    async def open(self, call: Call) -> Deltas:
        await asyncio.sleep(0)
        if len(self.under_way) >= self.most:
            self.refusals += 1
            raise failing(self.failure, retry_after=self.retry_after)
        gate = asyncio.Event()
        self.under_way.append(gate)
        try:
            await gate.wait()
        finally:
            self.under_way.remove(gate)
        return await super().open(call)

    async def release(self) -> None:
        self.under_way[0].set()
        await settled()


class Held(ScriptedProvider):
    """Refuses every call with `error`, when it is told to."""

    def __init__(self, error: ProviderFailure) -> None:
        super().__init__("up", answering("ok"))
        self.error = error
        self.under_way: list[asyncio.Event] = []

    async def open(self, call: Call) -> Deltas:
        gate = asyncio.Event()
        self.under_way.append(gate)
        try:
            await gate.wait()
        finally:
            self.under_way.remove(gate)
        raise self.error

    async def end(self) -> None:
        await settled()
        self.under_way[0].set()
        await settled()


class Whimsical(ScriptedProvider):
    """Takes `most` at once, which changes, for as long as it likes; it answers at its first delta, or refuses, as it likes."""

    def __init__(self, name: str, chance: random.Random) -> None:
        super().__init__(name, answering("ok"))
        self.chance = chance
        self.most = 3
        self.under_way = 0

    async def open(self, call: Call) -> Deltas:
        for _ in range(self.chance.randrange(5)):
            await asyncio.sleep(0)
        if self.under_way >= self.most:
            raise failing(
                self.chance.choice(["rate_limited", "rate_limited", "overloaded"]),
                retry_after=self.chance.choice([None, None, 0.0, 0.5, 3.0, 100.0]),
            )
        if self.most < 1000 and self.chance.random() < 0.1:
            self.most = self.chance.randrange(5)
        self.under_way += 1
        try:
            for _ in range(self.chance.randrange(200)):
                await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        return await super().open(call)


async def left_all(clients: Sequence["asyncio.Task[str]"]) -> None:
    """All of `clients` leave."""
    for one in clients:
        one.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


@pytest.mark.parametrize("failure", ["rate_limited", "overloaded"])
async def test_those_that_were_too_many_wait_and_are_answered_when_others_have_been(failure: str) -> None:
    up = Few(2, failure)
    system = Crowded(up)
    asking = [system.asking() for _ in range(12)]
    await settled()
    assert (up.refusals, len(system.lines.waiters)) == (10, 10)
    for _ in range(12):
        await up.release()
    assert await within(asyncio.gather(*asking)) == ["ok"] * 12
    # One more is tried when ten have been answered.
    assert up.refusals <= 11
    assert system.state() == "closed"


async def test_newcomer_does_not_overtake_those_that_wait() -> None:
    up = Few(1)
    system = Crowded(up)
    first = [system.asking() for _ in range(3)]
    await settled()
    late = system.asking(key="late")
    await settled()
    asked = up.refusals
    await up.release()
    assert up.refusals == asked and not late.done()
    for _ in range(3):
        await up.release()
    await within(asyncio.gather(*first, late))


async def test_delay_that_it_asks_for_is_waited_out_by_all() -> None:
    up = Few(0, retry_after=20)
    system = Crowded(up)
    asking = [system.asking() for _ in range(3)]
    await settled()
    asked = up.refusals
    up.most = 3
    system.clock.advance(19)
    await settled()
    assert up.refusals == asked and not up.under_way
    system.clock.advance(1.5)
    await settled()
    while up.under_way:
        await up.release()
    assert await within(asyncio.gather(*asking)) == ["ok"] * 3


async def test_next_model_answers_instead_and_is_asked_at_once_the_next_time() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=20)])
    other = ScriptedProvider("other", answering("the other one"))
    system = Crowded(up, other)
    assert [await system.ask(), await system.ask()] == ["the other one"] * 2
    assert len(up.calls) == 1 and system.told == [(1, "up", "open"), (2, "other", "fallback"), (1, "other", "fallback")]


async def test_delay_longer_than_anybody_waits_is_told_at_once() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=3600)], answering("ok"))
    system = Crowded(up)
    for _ in range(2):
        with pytest.raises(Throttled) as refused:
            await within(system.ask())
        assert refused.value.retry_after is not None and refused.value.retry_after >= 3600
    assert len(up.calls) == 1 and not system.lines.waiters
    # It may be well long before.
    system.clock.advance(60)
    assert await within(system.ask()) == "ok"


async def test_past_its_wait_a_call_ends_with_what_the_upstream_said() -> None:
    up = ScriptedProvider("up", [failing("rate_limited")])
    system = Crowded(up, settings=QueueSettings(wait=10))
    asking = system.asking()
    for _ in range(40):
        await settled()
        system.clock.advance(0.25)
    await settled()
    with pytest.raises(CauceError) as refused:
        await within(asking)
    assert refused.value.code == "rate_limited" and "it is down" in refused.value.message
    # At 0, 0, 0.25, 0.75, 1.75, 3.75 and 7.75 seconds.
    assert len(up.calls) == 7


async def test_where_nobody_waits_a_refusal_is_an_error_that_says_when_to_come() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=5)], answering("ok"))
    system = Crowded(up, queued=False)
    with pytest.raises(ProviderFailure):
        await system.ask()
    with pytest.raises(Throttled) as denied:
        await system.ask()
    assert denied.value.retry_after == pytest.approx(5)
    system.clock.advance(5)
    assert await system.ask() == "ok"


async def test_lone_call_that_is_refused_once_is_simply_asked_again() -> None:
    up = ScriptedProvider("up", [failing("rate_limited")], answering("ok"))
    system = Crowded(up, retries=RetrySettings(base=0))
    assert await within(system.ask()) == "ok"
    assert system.told == [(1, "up", "open"), (2, "up", "retry")]


async def test_server_that_is_down_is_the_breakers_business() -> None:
    up = ScriptedProvider("up", [failing("overloaded")])
    system = Crowded(up)
    for _ in range(5):
        with pytest.raises(ProviderFailure):
            await system.ask()
    assert system.state() == "open" and system.upstreams.crowded() == []


async def test_client_that_leaves_makes_room() -> None:
    up = Few(1)
    system = Crowded(up)
    leaving, waiting = system.asking(), system.asking()
    await settled()
    assert len(system.lines.waiters) == 1
    leaving.cancel()
    await settled()
    await up.release()
    assert await within(waiting) == "ok"
    [crowd] = system.upstreams.crowded()
    assert (crowd.provider, crowd.model, crowd.most, crowd.under_way) == ("up", "m", 1, 0)


@pytest.mark.parametrize("asked", [60.0, 90.0])
async def test_when_a_long_pause_ends_one_call_tries(asked: float) -> None:
    up = Held(failing("rate_limited", retry_after=asked))
    system = Crowded(up, settings=QueueSettings(wait=100))
    first = system.asking()
    await up.end()
    system.clock.advance(30)
    waiting = [first, *[system.asking() for _ in range(50)]]
    await settled()
    system.clock.advance(asked - 30)
    await settled()
    assert len(up.under_way) == 1
    await left_all(waiting)


async def test_upstream_that_asks_for_no_time_is_not_asked_as_fast_as_it_refuses() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=0.0)])
    system = Crowded(up)
    asking = system.asking()
    await settled()
    assert len(up.calls) == 2
    await left_all([asking])


async def test_calls_whose_time_is_too_short_for_a_pause_are_told_at_once() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=25)], answering("ok"))
    system = Crowded(up)
    with pytest.raises(Throttled) as first:
        # It keeps five seconds for its answer.
        await within(system.ask(timeout=28))
    patient = system.asking(timeout=600)
    await settled()
    assert len(system.lines.waiters) == 1
    with pytest.raises(Throttled) as newcomer:
        await within(system.ask(timeout=28))
    assert first.value.retry_after == newcomer.value.retry_after == pytest.approx(25)
    assert len(up.calls) == 1 and not patient.done()
    await left_all([patient])


async def test_calls_that_wait_are_told_when_a_pause_comes_that_is_longer_than_their_time() -> None:
    up = Held(failing("rate_limited", retry_after=40.0))
    system = Crowded(up)
    refusing(system.takes, 0, system.clock.monotonic())
    patient = system.asking(timeout=600)
    await settled()
    hurried = [system.asking(timeout=28) for _ in range(3)]
    await settled()
    assert len(system.lines.waiters) == 3
    await up.end()
    for one in hurried:
        with pytest.raises(Throttled, match="try again in 40 s"):
            await within(one)
    assert len(system.lines.waiters) == 1 and system.clock.monotonic() == 1000
    await left_all([patient])


async def test_what_was_refused_is_told_by_the_attempt_after_the_wait() -> None:
    up = ScriptedProvider("up", [failing("rate_limited", retry_after=4)], answering("ok"))
    system = Crowded(up)
    asking = system.asking()
    await settled()
    system.clock.advance(4)
    assert await within(asking) == "ok"
    attempts = [one for one in system.noticed if isinstance(one, Attempt)]
    assert [(one.n, one.strategy, one.reason_code) for one in attempts] == [
        (1, "open", None),
        (2, "retry", "rate_limited"),
    ]


async def test_call_that_is_always_refused_does_not_keep_the_others_waiting() -> None:
    class Picky(ScriptedProvider):
        async def open(self, call: Call) -> Deltas:
            if call.request.timeout == 599:
                raise failing("rate_limited")
            return await super().open(call)

    system = Crowded(Picky("up", answering("ok")))
    large = system.asking(timeout=599)
    for _ in range(8):
        await settled()
        system.clock.advance(0.25)
    others = [system.asking() for _ in range(10)]
    for _ in range(40):
        await settled()
        system.clock.advance(0.25)
    assert await within(asyncio.gather(*others)) == ["ok"] * 10
    assert not large.done()
    await left_all([large])


async def test_answer_that_makes_room_for_one_more_is_told_to_who_waits() -> None:
    up = Few(1)
    system = Crowded(up)
    takes = system.takes
    refusing(takes, 0, system.clock.monotonic())
    # Its first delta comes now, and its end later.
    deltas = asyncio.ensure_future(system.open(system.call()))
    await settled()
    waiting = system.asking()
    await settled()
    assert len(system.lines.waiters) == 1
    system.clock.advance(0.5)
    up.most = 2
    await up.release()
    await settled()
    assert len(up.under_way) == 1 and takes.most == 1 + MORE
    await up.release()
    assert await within(waiting) == "ok"
    await (await within(deltas)).aclose()
    assert takes.under_way == 0


async def test_outage_under_load_is_told_to_all_once_the_circuit_has_opened() -> None:
    """It looks like a crowd at first. Then one probe is enough for all who wait."""
    system: Crowded

    class Down(ScriptedProvider):
        async def open(self, call: Call) -> Deltas:
            self.calls.append(call)
            await system.clock.sleep(1)
            raise failing("overloaded")

    up = Down("up", answering("ok"))
    system = Crowded(up)
    asking = [system.asking(timeout=60) for _ in range(100)]
    for _ in range(9):
        await settled()
        system.clock.advance(1)
    await settled()
    assert [one for one in asking if not one.done()] == []
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert {one.code for one in outcomes if isinstance(one, CauceError)} == {"overloaded"}
    assert len(up.calls) < 110 and system.state() == "open"
    assert not system.lines.waiters and not system.lines.lines


async def test_probe_that_meets_a_crowd_leaves_its_circuit_to_the_next() -> None:
    up = ScriptedProvider("up", *[[failing()]] * 5, answering("ok"))
    system = Crowded(up)
    for _ in range(5):
        with pytest.raises(ProviderFailure):
            await system.ask()
    assert system.state() == "open"
    refusing(system.takes, 0, system.clock.monotonic(), asked=7.0)
    asking = system.asking()
    await settled()
    assert not asking.done() and system.state() == "open"
    system.clock.advance(7)
    assert await within(asking) == "ok"
    assert system.state() == "closed" and system.takes.under_way == 0


async def test_what_was_refused_long_ago_is_not_shown_any_more() -> None:
    up = ScriptedProvider("up", [failing("rate_limited")], answering("ok"))
    system = Crowded(up)
    await system.ask()
    assert system.upstreams.crowded()
    system.clock.advance(FORGOTTEN + 1)
    assert not system.upstreams.crowded()


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_clients_and_upstreams_do_nobody_is_lost_and_every_place_is_given_back(seed: int) -> None:
    """Clients come, read, leave and are refused at any time, of two models with or without a delay; in the end all are answered."""
    chance = random.Random(seed)
    ups = [Whimsical("up", chance), Whimsical("other", chance)]
    system = Crowded(*ups[: 1 + seed % 2], retries=RetrySettings(base=0.1) if seed % 3 else ONCE)
    clients: list[asyncio.Task[str]] = []
    for _ in range(300):
        if chance.random() < 0.5:
            clients.append(system.asking(key=f"key-{chance.randrange(3)}", timeout=chance.choice([9, 28, 600])))
        if clients and chance.random() < 0.2:
            chance.choice(clients).cancel()
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        system.clock.advance(chance.choice([0.0, 0.01, 0.1, 0.7]))
    for up in ups:
        up.most = 1000
    # Longer than the longest delay that one of them asks for: those who come before that are told so, and rightly.
    for _ in range(500):
        await settled()
        system.clock.advance(0.25)
    late = [system.asking(timeout=600) for _ in range(5)]
    for _ in range(500):
        await settled()
        system.clock.advance(0.25)
    assert await within(asyncio.gather(*late)) == ["ok"] * 5
    assert [one for one in clients if not one.done()] == []
    outcomes = await asyncio.gather(*clients, return_exceptions=True)
    told = {CircuitOpen, DeadlineExceeded, ProviderFailure, Throttled}
    assert {type(one) for one in outcomes} <= {str, asyncio.CancelledError, *told}
    assert [system.upstreams.of(one).takes.under_way for one in system.candidates] == [0] * len(system.candidates)
    assert not system.lines.waiters and not system.lines.lines


async def test_candidates_that_are_remembered_are_bounded_and_the_crowded_ones_kept() -> None:
    clock = FakeClock()
    upstreams = Upstreams(clock, PrometheusMetrics())
    provider = ScriptedProvider("up", answering("ok"))

    def of(model: str) -> object:
        return upstreams.of(Candidate(provider, model))

    crowded = upstreams.of(Candidate(provider, "crowded"))
    crowded.takes.refused(clock.monotonic(), None)
    others: Sequence[object] = [of(f"m{number}") for number in range(2 * MOST)]
    assert of("crowded") is crowded and of("m0") is not others[0]
