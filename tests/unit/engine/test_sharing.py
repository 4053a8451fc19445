"""Who shares the call of another, in front of the limits and the queue as they are: nobody is held to what holds for that one alone."""

import asyncio
from collections.abc import Sequence

import pytest

from cauce.domain.completion import Completion
from cauce.domain.delta import Finish, Status, Text
from cauce.domain.errors import CauceError, ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.model import UNKNOWN, ModelFacts
from cauce.domain.price import Prices
from cauce.domain.price import Rates as TokenRates
from cauce.domain.request import Request, Sampling, Scope
from cauce.engine.amounts import Amounts
from cauce.engine.caching.key import Keys
from cauce.engine.caching.settings import CacheSettings
from cauce.engine.caching.shelf import Books, Shelf, Tally
from cauce.engine.compose import collect, compose
from cauce.engine.estimator import Estimator
from cauce.engine.fallback import fallback
from cauce.engine.limit_settings import Budget, BudgetsSettings, KeyRates, LimitsSettings, Rates
from cauce.engine.limits import LimitBook, ProviderRates
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.cache import Caching
from cauce.engine.policies.deadline import deadline
from cauce.engine.policies.limit import Limiting, limit_caller, limit_candidate
from cauce.engine.policies.queue import Shares, queue
from cauce.engine.queue.queue import Queue
from cauce.engine.queue.settings import QueueSettings
from cauce.ports.provider import Call, Candidate, Deltas
from cauce.stores.inproc.cache import InprocCache
from cauce.stores.inproc.ledger import InprocLedger
from cauce.stores.inproc.limiter import InprocLimiter
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, Step, answering
from tests.http import within
from tests.unit.engine.guarded import settled

pytestmark = pytest.mark.anyio

HELLO = answering("hello there")
PRICED = ModelFacts(prices=Prices(TokenRates.given(1.0, 1_000_000.0)), max_output=64)
"""A dollar per token that is answered."""

LATE = ProviderFailure("it took too long", failure="transient", provider="up", code="timeout")


class Sharing:
    """A provider behind cache, queue and limits."""

    def __init__(
        self,
        *scripts: Sequence[Step],
        rates: Rates | None = None,
        keys: dict[str, KeyRates] | None = None,
        budgets: BudgetsSettings | None = None,
        facts: ModelFacts = UNKNOWN,
    ) -> None:
        self.clock = FakeClock()
        self.provider = ScriptedProvider("up", *scripts)
        self.candidate = Candidate(self.provider, "m", facts=facts)
        metrics, limiter, limits = PrometheusMetrics(), InprocLimiter(self.clock), LimitsSettings(keys=keys or {})
        budgets = budgets or BudgetsSettings()
        book = LimitBook(limits, budgets, {"up": ProviderRates(rates or Rates())})
        limiting = Limiting(limiter, book, Amounts(Estimator(), budgets.assumed_output), metrics)
        self.lines = Queue(QueueSettings(), self.clock, metrics.waited)
        limiter.on_room(self.lines.room)
        self.tally = Tally()
        store, books = InprocCache(self.clock, 1_000_000), Books(self.clock, InprocLedger())
        caching = Caching(Shelf(store, store, CacheSettings(), Keys(), books, self.tally))
        self.flights = caching._flights

        async def ask(call: Call) -> Deltas:
            return await call.candidate.provider.open(call)

        self.open = compose(
            ask,
            deadline(self.clock),
            caching.policy,
            queue(self.lines, Shares(dict(limits.keys)), book),
            limit_caller(limiting),
            fallback(self.clock, caching.stale, queued=True),
            limit_candidate(limiting),
            attempt(),
        )

    @property
    def asked(self) -> list[str]:
        """The keys of those for whom the provider was asked."""
        return [call.scope.key for call in self.provider.calls]

    def asking(
        self,
        key: str = "anonymous",
        text: str = "hi",
        *,
        timeout: float | None = None,
        streamed: bool = True,
        user: str | None = None,
    ) -> "asyncio.Task[Completion]":
        request = Request(
            "x", (Message("user", (TextPart(text),)),), Sampling(temperature=0.0), timeout=timeout, user=user
        )
        call = Call(request, Scope(key=key), (self.candidate,), "req_1", streamed=streamed)
        return asyncio.create_task(self._answered(call))

    async def _answered(self, call: Call) -> Completion:
        return await collect(await self.open(call))


def texts(answers: Sequence[Completion]) -> set[str]:
    return {one.choices[0].text for one in answers}


@pytest.mark.parametrize("streamed", [False, True])
async def test_request_that_has_time_does_not_wait_for_one_that_has_hardly_any(streamed: bool) -> None:
    gate, slow = asyncio.Event(), asyncio.Event()
    sharing = Sharing([Text("one"), gate, LATE], [slow, *HELLO])
    hasty = sharing.asking(timeout=2)
    await settled()
    sharing.clock.advance(0.5)
    patient = [sharing.asking(streamed=streamed) for _ in range(20)]
    await settled()
    sharing.clock.advance(1.5)
    gate.set()
    with pytest.raises(CauceError, match="too long"):
        await within(hasty)
    slow.set()
    assert texts(await within(asyncio.gather(*patient))) == {"hello there"}
    assert len(sharing.asked) == 2 and not sharing.flights


async def test_the_hasty_join_the_patient() -> None:
    gate = asyncio.Event()
    sharing = Sharing([gate, *HELLO])
    asking = [sharing.asking(timeout=timeout) for timeout in (None, 60, 5)]
    await settled()
    gate.set()
    assert texts(await within(asyncio.gather(*asking))) == {"hello there"}
    assert len(sharing.asked) == 1


async def test_plain_request_asks_anew_when_the_time_of_another_ends_a_call_that_has_begun() -> None:
    gate, slow = asyncio.Event(), asyncio.Event()
    sharing = Sharing([Text("one"), gate, LATE], [slow, *HELLO])
    leader = sharing.asking(timeout=30)
    await settled()
    sharing.clock.advance(4)
    followers = [sharing.asking(timeout=30, streamed=False) for _ in range(20)]
    await settled()
    assert len(sharing.asked) == 1
    sharing.clock.advance(26)
    gate.set()
    with pytest.raises(CauceError, match="too long"):
        await within(leader)
    await settled()
    assert not any([one.done() for one in followers])
    slow.set()
    assert texts(await within(asyncio.gather(*followers))) == {"hello there"}
    assert len(sharing.asked) == 2


async def test_call_that_was_cut_before_its_time_is_a_failure_of_the_upstream_for_all() -> None:
    gate = asyncio.Event()
    sharing = Sharing([Text("one"), gate, LATE], HELLO)
    asking = [sharing.asking(timeout=30, streamed=False) for _ in range(3)]
    await settled()
    gate.set()
    results = await within(asyncio.gather(*asking, return_exceptions=True))
    assert all([isinstance(one, ProviderFailure) for one in results]) and len(sharing.asked) == 1


QUEUED = {"batch": KeyRates(concurrent=1, priority=-1), "gold": KeyRates(priority=5)}


async def test_request_does_not_wait_behind_the_limits_of_another_key() -> None:
    busy, gate = asyncio.Event(), asyncio.Event()
    sharing = Sharing([busy, *HELLO], [gate, *HELLO], keys=QUEUED)
    first = sharing.asking("batch", "something else")
    await settled()
    batch = sharing.asking("batch")
    await settled()
    assert len(sharing.lines.waiters) == 1
    gold = [sharing.asking("gold") for _ in range(10)]
    await settled()
    assert sharing.asked == ["batch", "gold"]
    # What was asked for one of them is there for all.
    assert len(sharing.lines.waiters) == 0
    gate.set()
    assert texts(await within(asyncio.gather(batch, *gold))) == {"hello there"}
    assert sharing.asked == ["batch", "gold"]
    assert (sharing.tally.misses, sharing.tally.shared) == (1, 10)
    busy.set()
    await within(first)
    assert not sharing.flights and not sharing.lines.lines


async def test_each_key_waits_in_its_own_place_and_the_first_that_is_let_through_answers_all() -> None:
    busy, gate = asyncio.Event(), asyncio.Event()
    sharing = Sharing([busy, *HELLO], [gate, *HELLO], rates=Rates(concurrent=1), keys=QUEUED)
    first = sharing.asking("other", "something else")
    await settled()
    asking = [sharing.asking(key) for key in ("batch", "plain", "gold") for _ in range(10)]
    await settled()
    assert sharing.asked == ["other"] and len(sharing.lines.waiters) == 3
    busy.set()
    await within(first)
    await settled()
    assert sharing.asked == ["other", "gold"] and len(sharing.lines.waiters) == 0
    gate.set()
    assert texts(await within(asyncio.gather(*asking))) == {"hello there"}
    assert sharing.asked == ["other", "gold"]
    assert not sharing.flights and not sharing.lines.lines


@pytest.mark.parametrize("keys", [1, 100])
async def test_hundred_identical_requests_at_once_make_one_call_whatever_their_keys(keys: int) -> None:
    gate = asyncio.Event()
    sharing = Sharing([gate, *HELLO], rates=Rates(concurrent=50), keys={"*": KeyRates(concurrent=2)})
    asking = [sharing.asking(f"key-{number % keys}", user=f"user-{number}") for number in range(100)]
    await settled()
    gate.set()
    assert texts(await within(asyncio.gather(*asking))) == {"hello there"}
    assert len(sharing.asked) == 1
    assert (sharing.tally.misses, sharing.tally.shared) == (1, 99)
    assert not sharing.flights and not sharing.lines.lines


async def test_call_that_is_tried_again_and_waits_for_room_is_left_by_other_keys() -> None:
    sharing = Sharing([asyncio.Event()], HELLO)
    leader = sharing.asking("batch")
    await settled()
    follower = sharing.asking("gold")
    await settled()
    assert sharing.asked == ["batch"]
    call = sharing.provider.calls[0]
    call.course.queued = True
    call.notice(Status("waiting", "Place 1 in the queue"))
    assert (await within(follower)).choices[0].text == "hello there"
    assert sharing.asked == ["batch", "gold"]
    assert (await within(leader)).choices[0].text == "hello there"


async def test_answer_that_a_small_budget_cuts_short_is_nobody_elses() -> None:
    gate = asyncio.Event()
    sharing = Sharing(
        [gate, Text("cut"), Finish("length")],
        HELLO,
        budgets=BudgetsSettings(assumed_output=8, keys={"poor": Budget(day=40.0)}),
        facts=PRICED,
    )
    poor = sharing.asking("poor")
    await settled()
    rich = [sharing.asking("rich", streamed=bool(number % 2)) for number in range(10)]
    await settled()
    late = sharing.asking("rich")
    await settled()
    gate.set()
    assert (await within(poor)).choices[0].text == "cut"
    assert texts(await within(asyncio.gather(*rich, late))) == {"hello there"}
    assert sharing.asked == ["poor", "rich"]
    assert [call.request.sampling.max_tokens for call in sharing.provider.calls] == [32, None]


async def test_budget_of_one_user_is_not_that_of_another() -> None:
    gate = asyncio.Event()
    sharing = Sharing(
        [gate, Text("cut"), Finish("length")],
        HELLO,
        budgets=BudgetsSettings(assumed_output=8, users={"ana": Budget(day=40.0)}),
        facts=PRICED,
    )
    ana = sharing.asking(user="ana")
    others = [sharing.asking(user=f"user-{number}") for number in range(10)]
    await settled()
    gate.set()
    assert (await within(ana)).choices[0].text == "cut"
    assert texts(await within(asyncio.gather(*others))) == {"hello there"}
    assert len(sharing.asked) == 2


async def test_those_whose_budgets_bind_alike_share_among_themselves() -> None:
    gate = asyncio.Event()
    budgets = BudgetsSettings(assumed_output=8, keys={"poor": Budget(day=40.0)})
    sharing = Sharing([gate, Text("cut"), Finish("length")], budgets=budgets, facts=PRICED)
    asking = [sharing.asking("poor") for _ in range(10)]
    await settled()
    gate.set()
    assert texts(await within(asyncio.gather(*asking))) == {"cut"}
    assert len(sharing.asked) == 1
