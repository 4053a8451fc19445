"""Waiting for room, in front of the limits as they are."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cauce.domain.delta import Finish, Status, Text
from cauce.domain.errors import CauceError, Throttled
from cauce.domain.message import Message, TextPart
from cauce.engine.amounts import Amounts
from cauce.engine.estimator import Estimator
from cauce.engine.limit_settings import BudgetsSettings, KeyRates, LimitsSettings, Rates
from cauce.engine.limits import LimitBook, ProviderRates
from cauce.engine.policies.limit import Limiting, limit_caller, limit_candidate
from cauce.engine.policies.queue import Shares, queue
from cauce.engine.queue.queue import Queue
from cauce.engine.queue.settings import QueueSettings
from cauce.ports.limiter import Amount, Denial, Limit, Reservation
from cauce.ports.provider import Call, Deltas, Open, Policy
from cauce.stores.inproc.limiter import InprocLimiter
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, answering
from tests.http import within
from tests.unit.engine.guarded import Guarded, settled
from tests.unit.engine.guarded import failing as down

pytestmark = pytest.mark.anyio


class Counted:
    """How often `open` was tried below the queue."""

    def __init__(self) -> None:
        self.tries = 0

    def policy(self, open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            self.tries += 1
            return open(call)

        return opened


class Queued(Guarded):
    """Providers with `rates`, a queue in front of them."""

    def __init__(
        self,
        *providers: ScriptedProvider,
        rates: Rates | dict[str, Rates],
        keys: dict[str, KeyRates] | None = None,
        settings: QueueSettings | None = None,
        limiter: type[InprocLimiter] = InprocLimiter,
    ) -> None:
        clock = _Lent()
        each = rates if isinstance(rates, dict) else {one.name: rates for one in providers}
        limits = LimitsSettings(keys=keys or {})
        book = LimitBook(limits, BudgetsSettings(), {name: ProviderRates(one) for name, one in each.items()})
        counts = limiter(clock)
        metrics = PrometheusMetrics()
        limiting = Limiting(counts, book, Amounts(Estimator(), 4096), metrics)
        self.waits: list[float] = []
        self.counted = Counted()
        self.lines = Queue(settings or QueueSettings(), clock, self.waits.append)
        counts.on_room(self.lines.room)
        entry: tuple[Policy, ...] = (
            queue(self.lines, Shares(dict(limits.keys)), book),
            self.counted.policy,
            limit_caller(limiting),
        )
        super().__init__(*providers, limits=(limit_candidate(limiting),), entry=entry)
        clock.lend(self.clock)

    def places(self) -> list[int]:
        return [one.facts["place"] for one in self.noticed if isinstance(one, Status)]


class _Lent(FakeClock):
    """The clock that `Guarded` makes, for what has to be there before."""

    def lend(self, clock: FakeClock) -> None:
        self.__dict__ = clock.__dict__


class Served:
    """Who was let through, in order. Each call is under way until it is released."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.under_way: list[asyncio.Event] = []
        self.most = 0
        self.provider = ScriptedProvider("up", answering("ok"))
        self._open: Callable[[Call], Awaitable[Deltas]] = self.provider.open
        self.provider.open = self.open  # type: ignore[method-assign]

    async def open(self, call: Call) -> Deltas:
        self.order.append(call.scope.key)
        gate = asyncio.Event()
        self.under_way.append(gate)
        self.most = max(self.most, len(self.under_way))
        try:
            await gate.wait()
        finally:
            self.under_way.remove(gate)
        return await self._open(call)

    async def release(self, count: int = 1) -> None:
        for _ in range(count):
            self.under_way[0].set()
            await settled()


async def leave(*clients: asyncio.Task[str]) -> None:
    """Whoever still waits does so no more."""
    for one in clients:
        one.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


async def test_call_waits_for_a_place_among_those_under_way() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=1))
    first, second = system.asking(), system.asking()
    await settled()
    assert len(served.order) == 1 and len(system.lines.waiters) == 1
    await served.release()
    assert await within(first) == "ok" and len(served.order) == 2
    await served.release()
    assert await within(second) == "ok"
    assert system.lines.lines == {} and len(system.lines.waiters) == 0


async def test_call_waits_for_the_minute_to_go_on() -> None:
    up = ScriptedProvider("up", answering("ok"))
    system = Queued(up, rates=Rates(requests_per_minute=10))
    await system.ask()
    waiting = system.asking()
    await settled()
    assert len(up.calls) == 1
    system.clock.advance(60 / 9)
    assert await within(waiting) == "ok"
    assert system.waits == [pytest.approx(60 / 9, abs=0.01)]


async def test_what_a_call_has_waited_stands_in_its_course() -> None:
    system = Queued(ScriptedProvider("up", answering("ok")), rates=Rates(requests_per_minute=10))
    await system.ask()
    call = system.call()
    waiting = asyncio.create_task(system.open(call))
    await settled()
    system.clock.advance(7)
    await (await within(waiting)).aclose()
    assert call.course.waited == pytest.approx(7) and call.course.attempts == 1


async def test_two_keys_share_alike_however_much_one_of_them_asks() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=2))
    flood = [system.asking(key="flood") for _ in range(100)]
    await settled()
    few = [system.asking(key="few") for _ in range(20)]
    await settled()
    before = len(served.order)
    for _ in range(40):
        await served.release()
    counts = Counter(served.order[before : before + 40])
    assert counts == {"few": 20, "flood": 20}
    assert served.most == 2
    await leave(*flood, *few)


async def test_key_that_was_served_a_lot_owes_nothing_to_one_that_comes_later() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=1))
    old = [system.asking(key="old") for _ in range(40)]
    await settled()
    await served.release(20)
    new = [system.asking(key="new") for _ in range(15)]
    await settled()
    before = len(served.order)
    await served.release(10)
    counts = Counter(served.order[before:])
    assert set(counts.values()) == {5}
    await leave(*old, *new)


async def test_weights_and_priorities_come_from_the_keys() -> None:
    served = Served()
    keys = {"gold-*": KeyRates(weight=3), "urgent": KeyRates(priority=1)}
    system = Queued(served.provider, rates=Rates(concurrent=1), keys=keys)
    asking = [system.asking(key="first")]
    await settled()
    asking += [system.asking(key=key) for key in ["plain"] * 12 + ["gold-1"] * 12 + ["urgent"]]
    await settled()
    await served.release(17)
    assert served.order[1] == "urgent"
    assert Counter(served.order[2:18]) == {"gold-1": 12, "plain": 4}
    await leave(*asking)


async def test_newcomers_do_not_overtake_though_there_is_room_when_they_come() -> None:
    up = ScriptedProvider("up", answering("ok"))
    system = Queued(up, rates=Rates(requests_per_minute=10))
    await system.ask()
    waiting = [system.asking(key=f"k{number}") for number in range(3)]
    await settled()
    # Room comes with time, and nobody has been woken yet.
    system.clock._elapsed += 7
    late = system.asking(key="late")
    await settled()
    assert [call.scope.key for call in up.calls] == ["anonymous"]
    system.clock.advance(0)
    await settled()
    assert up.calls[1].scope.key == "k0"
    await leave(*waiting, late)


async def test_those_who_can_go_elsewhere_do_not_stand_in_line() -> None:
    up, other = Served(), ScriptedProvider("other", answering("from other"))
    system = Queued(up.provider, other, rates={"up": Rates(concurrent=1)})
    both = system.candidates
    system.candidates = both[:1]
    waiting = [system.asking() for _ in range(2)]
    await settled()
    assert len(system.lines.waiters) == 1
    system.candidates = both
    assert await system.ask() == "from other"
    await leave(*waiting)


async def test_call_with_two_candidates_takes_whichever_has_room_first() -> None:
    up, other = Served(), Served()
    other.provider._name = "other"
    system = Queued(up.provider, other.provider, rates=Rates(concurrent=1))
    asking = [system.asking() for _ in range(3)]
    await settled()
    assert (len(up.order), len(other.order), len(system.lines.waiters)) == (1, 1, 1)
    await other.release()
    assert (len(up.order), len(other.order), len(system.lines.waiters)) == (1, 2, 0)
    await up.release()
    await other.release()
    assert await within(asyncio.gather(*asking)) == ["ok"] * 3


async def test_client_that_leaves_gives_up_its_place() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=1))
    asking = [system.asking(key=key) for key in ("first", "leaves", "stays")]
    await settled()
    asking[1].cancel()
    await settled()
    assert len(system.lines.waiters) == 1
    await served.release()
    assert served.order == ["first", "stays"]
    await served.release()
    assert await within(asking[2]) == "ok"


async def test_the_one_whose_turn_it_is_leaves_and_the_next_one_gets_on() -> None:
    system = Queued(ScriptedProvider("up", answering("ok")), rates=Rates(requests_per_minute=10))
    await system.ask()
    turn, after = system.asking(), system.asking()
    await settled()
    system.clock.advance(3)
    turn.cancel()
    await settled()
    system.clock.advance(60 / 9 - 3)
    assert await within(after) == "ok"


async def test_one_key_at_its_own_limit_does_not_keep_the_others_waiting() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=2), keys={"slow": KeyRates(concurrent=1)})
    asking = [system.asking(key=key) for key in ("slow", "other", "slow", "slow", "third")]
    await settled()
    assert served.order == ["slow", "other"]
    served.under_way[1].set()
    await settled()
    assert served.order == ["slow", "other", "third"]
    await leave(*asking)


async def test_past_its_wait_a_call_is_refused_with_a_truthful_delay() -> None:
    system = Queued(
        ScriptedProvider("up", answering("ok")),
        rates=Rates(requests_per_minute=10),
        settings=QueueSettings(wait=20),
    )
    await system.ask()
    asking = [system.asking(timeout=300) for _ in range(12)]
    for _ in range(20):
        await settled()
        system.clock.advance(1)
    await settled()
    outcomes = await within(asyncio.gather(*asking, return_exceptions=True))
    answered = [one for one in outcomes if one == "ok"]
    refused = [one for one in outcomes if isinstance(one, Throttled)]
    assert len(answered) == 2 and len(refused) == 10
    # Two got through in 14 s, and the third could not in the 6 s that were left. Who gave up first saw ten who wait, itself included,
    # and all of them will come again.
    assert sorted([round(one.retry_after or 0) for one in refused]) == list(range(7, 71, 7))
    assert "calls wait" in refused[0].message


async def test_no_call_waits_into_the_time_of_its_answer() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=1))
    holding = system.asking()
    await settled()
    asking = system.asking(timeout=12)
    await settled()
    system.clock.advance(6.9)
    await settled()
    assert not asking.done()
    system.clock.advance(0.1)
    with pytest.raises(Throttled):
        await within(asking)
    with pytest.raises(Throttled):
        await within(system.asking(timeout=5))
    await served.release()
    assert await within(holding) == "ok"


async def test_room_that_cannot_come_in_time_is_not_waited_for() -> None:
    system = Queued(ScriptedProvider("up", answering("ok")), rates=Rates(requests_per_minute=1))
    await system.ask()
    with pytest.raises(Throttled) as denied:
        await within(system.asking())
    assert denied.value.retry_after is not None and 60 <= denied.value.retry_after < 70
    assert system.waits == []


async def test_more_than_the_length_are_refused_at_once() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=1), settings=QueueSettings(length=2))
    asking = [system.asking() for _ in range(3)]
    await settled()
    with pytest.raises(Throttled, match="there is no room now, and 2 calls wait"):
        await within(system.asking())
    await leave(*asking)


async def _flooded(settings: QueueSettings) -> tuple[Queued, Served, list[asyncio.Task[str]]]:
    """`batch` has far more waiting than there is room for, at its own limit; `gold` asks another provider, which is idle."""
    served, idle = Served(), Served()
    idle.provider._name = "idle"
    keys = {"batch": KeyRates(concurrent=1, priority=-1), "gold": KeyRates(concurrent=2, priority=5)}
    system = Queued(served.provider, idle.provider, rates=Rates(), keys=keys, settings=settings)
    both = system.candidates
    system.candidates = both[:1]
    flood = [system.asking(key="batch") for _ in range(60)]
    await settled()
    system.candidates = both[1:]
    return system, idle, flood


async def test_key_that_fills_the_queue_makes_room_for_another() -> None:
    system, idle, flood = await _flooded(QueueSettings(length=20))
    assert len(system.lines.waiters) == 20
    gold = [system.asking(key="gold") for _ in range(6)]
    await settled()
    assert len(system.lines.waiters) == 20 and not any([one.done() for one in gold])
    refused = [one.exception() for one in flood if one.done()]
    assert len(refused) == 39 + 4 and all([isinstance(one, Throttled) and one.retry_after for one in refused])
    # What came last goes first.
    assert [number for number, one in enumerate(flood) if not one.done()] == list(range(17))
    for _ in range(6):
        await idle.release()
    assert await within(asyncio.gather(*gold)) == ["ok"] * 6
    await leave(*flood)
    assert not system.lines.waiters and not system.lines.lines


async def test_call_whose_place_goes_to_another_is_told_how_long_the_line_is() -> None:
    served = Served()
    keys = {"gold": KeyRates(concurrent=1)}
    system = Queued(served.provider, rates=Rates(concurrent=1), keys=keys, settings=QueueSettings(length=3))
    asking = [system.asking(key="batch") for _ in range(5)]
    await settled()
    for _ in range(2):
        system.clock.advance(10)
        await served.release()
    asking += [system.asking(key="batch") for _ in range(2)]
    await settled()
    assert len(system.lines.waiters) == 3
    gold = system.asking(key="gold")
    await settled()
    with pytest.raises(Throttled, match="its place went to") as denied:
        await within(asking[-1])
    # Two were served in twenty seconds, and three waited, itself included.
    assert denied.value.retry_after == pytest.approx(30)
    await leave(*asking, gold)


async def test_the_one_whose_turn_it_is_gives_up_its_place_and_the_next_one_gets_on() -> None:
    served = Served()
    keys = {"gold": KeyRates(priority=5)}
    system = Queued(served.provider, rates=Rates(concurrent=1), keys=keys, settings=QueueSettings(length=1))
    asking = [system.asking(key="batch") for _ in range(2)]
    await settled()
    gold = system.asking(key="gold")
    with pytest.raises(Throttled):
        await within(asking[1])
    await served.release()
    assert served.order == ["batch", "gold"]
    await served.release()
    assert await within(gold) == "ok" and await within(asking[0]) == "ok"
    assert not system.lines.waiters and not system.lines.lines


async def test_calls_wait_within_their_bytes_as_within_their_number() -> None:
    system, idle, flood = await _flooded(QueueSettings(bytes=5000))
    waiting = len(system.lines.waiters)
    assert 5 < waiting < 59
    gold = [system.asking(key="gold") for _ in range(6)]
    await settled()
    assert len(system.lines.waiters) == waiting and not any([one.done() for one in gold])
    for _ in range(6):
        await idle.release()
    assert await within(asyncio.gather(*gold)) == ["ok"] * 6
    await leave(*flood)


async def test_call_larger_than_all_that_may_wait_is_refused_and_drives_nobody_out() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=1), settings=QueueSettings(bytes=1000))
    asking = [system.asking() for _ in range(3)]
    await settled()
    large = system.call(key="gold")
    message = Message("user", (TextPart("x" * 1000),))
    large = msgspec.structs.replace(large, request=msgspec.structs.replace(large.request, messages=(message,)))
    with pytest.raises(Throttled, match="there is no room now, and 2 calls wait"):
        await within(system.open(large))
    await leave(*asking)


async def test_when_waiting_did_not_help_the_offline_answerer_does() -> None:
    served = Served()
    offline = ScriptedProvider("offline", answering("no model"))
    system = Queued(served.provider, offline, rates={"up": Rates(concurrent=1)}, settings=QueueSettings(wait=30))
    holding = system.asking()
    await settled()
    asking = system.asking()
    await settled()
    assert not asking.done()
    system.clock.advance(30)
    assert await within(asking) == "no model"
    await served.release()
    assert await within(holding) == "ok"


async def test_clients_are_told_their_places_as_they_change_and_not_more_often_than_once_a_second() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=1))
    asking = [system.asking() for _ in range(4)]
    await settled()
    assert sorted(system.places()) == [1, 2, 3]
    await served.release(2)
    assert len(system.places()) == 3
    system.clock.advance(1)
    await settled()
    assert sorted(system.places()) == [1, 1, 2, 3]
    system.clock.advance(1)
    await settled()
    assert len(system.places()) == 4
    await leave(*asking)


async def test_an_admission_costs_two_tries_however_many_wait() -> None:
    served = Served()
    system = Queued(served.provider, rates=Rates(concurrent=10), settings=QueueSettings(wait=600))
    asking = [system.asking() for _ in range(510)]
    await settled()
    before = system.counted.tries
    assert before <= 530
    while len(served.order) < 510:
        served.under_way[0].set()
        await settled()
    assert system.counted.tries - before <= 1100
    assert served.most == 10
    for gate in served.under_way:
        gate.set()
    assert set(await within(asyncio.gather(*asking))) == {"ok"}


async def test_call_that_fails_on_its_turn_lets_the_next_one_try() -> None:
    up = ScriptedProvider("up", answering("ok"), [_refused()], answering("ok"))
    system = Queued(up, rates=Rates(requests_per_minute=10))
    await system.ask()
    failing, after = system.asking(), system.asking()
    for _ in range(14):
        await settled()
        system.clock.advance(1)
    with pytest.raises(CauceError):
        await within(failing)
    assert await within(after) == "ok"


async def test_a_retry_that_finds_no_room_waits_for_it() -> None:
    up = ScriptedProvider("up", [down()], answering("second"))
    system = Queued(up, rates=Rates(requests_per_minute=10))
    asking = system.asking()
    for _ in range(8):
        await settled()
        system.clock.advance(1)
    assert await within(asking) == "second"
    assert system.told == [(1, "up", "open"), (2, "up", "retry")]


def _refused() -> CauceError:
    return down("bad_request")


async def test_answers_that_are_under_way_hold_their_place_until_their_end() -> None:
    gate = asyncio.Event()
    up = ScriptedProvider("up", [Text("a"), gate, Finish("stop")], answering("second"))
    system = Queued(up, rates=Rates(concurrent=1))
    first = system.asking()
    await settled()
    second = system.asking()
    await settled()
    assert len(up.calls) == 1
    gate.set()
    assert await within(second) == "second" and await within(first) == "a"


class _Remote(InprocLimiter):
    """A limiter that answers later, as one behind a socket does."""

    async def reserve(self, limits: Sequence[Limit], amount: Amount) -> Reservation | Denial:
        # Before it has decided: who leaves later holds a reservation, and gives it back.
        await asyncio.sleep(0)
        answer = await super().reserve(limits, amount)
        if isinstance(answer, Denial):
            # Room may come while the word of there being none is on its way.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return answer

    async def settle(self, reservation: Reservation, amount: Amount) -> None:
        # Whoever leaves now has given it back already.
        await super().settle(reservation, amount)
        await asyncio.sleep(0)

    async def release(self, reservation: Reservation) -> None:
        await super().release(reservation)
        await asyncio.sleep(0)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["stay", "leave", "end"])), max_size=40),
    st.booleans(),
    st.sampled_from([3, 10_000]),
)
def test_no_wake_up_is_lost_whoever_comes_and_goes(moves: list[tuple[str, str]], remote: bool, length: int) -> None:
    """The clock stands still: whoever gets on does so because it was told of room."""

    async def play() -> None:
        served = Served()
        system = Queued(
            served.provider,
            rates=Rates(concurrent=2),
            keys={"c": KeyRates(concurrent=1, priority=1)},
            settings=QueueSettings(length=length),
            limiter=_Remote if remote else InprocLimiter,
        )
        asking: list[asyncio.Task[str]] = []
        for key, move in moves:
            asking.append(system.asking(key=key))
            if move == "leave":
                asking[len(asking) // 2].cancel()
            elif move == "end" and served.under_way:
                served.under_way[0].set()
            for _ in range(len(move)):
                await asyncio.sleep(0)
        await settled()
        while not all(task.done() for task in asking):
            assert served.under_way, "calls wait, and nobody is under way"
            served.under_way[0].set()
            await settled()
            await settled()
        assert served.most <= 2
        assert not system.lines.lines and not system.lines.waiters
        await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(play())
