"""Vectors behind the cache: kept, shared and given when no provider answers, by the policies that completions pass too."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cauce.domain.delta import Attempt, Level, Status
from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import BudgetExceeded, CauceError, DeadlineExceeded, NotCached, ProviderFailure, Throttled
from cauce.domain.request import Request, Sampling, Scope
from cauce.domain.usage import Usage
from cauce.engine.caching.key import Keys
from cauce.engine.caching.settings import CacheSettings
from cauce.engine.caching.shelf import Books, Shelf, Tally
from cauce.engine.compose import compose
from cauce.engine.embedding import Vectors
from cauce.engine.fallback import fallback
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.cache import Caching
from cauce.engine.policies.deadline import deadline
from cauce.engine.policies.trace import trace
from cauce.ports.cache import CacheControl, CachedAnswer
from cauce.ports.provider import Call, Candidate, Deltas
from cauce.stores.inproc.cache import InprocCache
from cauce.stores.inproc.ledger import InprocLedger
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider
from tests.http import within

pytestmark = pytest.mark.anyio

DOWN = ProviderFailure("it is down", failure="transient", provider="up")
ASKED = EmbeddingRequest("x", ("a text",))
MADE = Embeddings(((0.5, -0.25),), Usage(7, cost=0.5, cost_source="priced"), "m")

Step = Embeddings | CauceError | asyncio.Event


class Cached:
    """An embedder behind the cache, as bootstrap puts one there. Each call takes the next script; the last one serves all further."""

    def __init__(self, *scripts: list[Step], settings: CacheSettings | None = None) -> None:
        self.clock = FakeClock()
        self.ledger = InprocLedger()
        settings = settings or CacheSettings()
        self.store = InprocCache(self.clock, settings.memory)
        self.tally = Tally()
        self.caching = Caching(
            Shelf(self.store, self.store, settings, Keys(settings.scope), Books(self.clock, self.ledger), self.tally)
        )
        self.candidate = Candidate(ScriptedProvider("up"), "m")
        self.levels: dict[Level, int] = {}
        self.asked = self.closed = 0

        async def ask(call: Call) -> Deltas:
            script = scripts[min(self.asked, len(scripts) - 1)]
            self.asked += 1
            try:
                for step in script:
                    match step:
                        case Embeddings():
                            return Vectors(step)
                        case CauceError():
                            raise step
                        case _:
                            await step.wait()
            except asyncio.CancelledError:
                self.closed += 1
                raise
            raise AssertionError("a script ends with an answer or an error")

        cascade = fallback(self.clock, self.caching.stale)
        self.open = compose(ask, trace(self.levels), deadline(self.clock), self.caching.policy, cascade, attempt())

    def call(
        self,
        asked: EmbeddingRequest = ASKED,
        control: CacheControl | None = None,
        scope: Scope | None = None,
        notice: Callable[[Status | Attempt], None] = lambda _: None,
    ) -> Call:
        request = Request("x", (), Sampling(temperature=0.0), user=asked.user, timeout=asked.timeout)
        control = control or CacheControl()
        return Call(request, scope or Scope(), (self.candidate,), notice=notice, cache=control, embedding=asked)

    async def vectors(self, call: Call | None = None) -> Embeddings:
        deltas = await self.open(call or self.call())
        assert isinstance(deltas, Vectors)
        while await deltas.read():
            pass
        return deltas.embeddings


async def waiting(*calls: Coroutine[Any, Any, Embeddings]) -> list[asyncio.Task[Embeddings]]:
    """The calls, all of them waiting."""
    tasks = [asyncio.create_task(call) for call in calls]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_same_texts_are_given_the_same_vectors_at_no_cost() -> None:
    cached = Cached([MADE])
    first, call = await cached.vectors(), cached.call()
    second = await cached.vectors(call)
    assert cached.asked == 1 and first == MADE and second.vectors == MADE.vectors
    assert (call.course.cache, call.course.level) == ("hit", "cache")
    [entry] = cached.ledger.entries()
    assert (entry.endpoint, entry.level, entry.usage.input_tokens, entry.usage.cost) == ("embeddings", "cache", 7, 0.0)
    assert (cached.levels["primary"], cached.levels["cache"]) == (1, 1)


async def test_hundred_identical_requests_make_one_call() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, MADE])
    tasks = await waiting(*[cached.vectors() for _ in range(100)])
    gate.set()
    assert await within(asyncio.gather(*tasks)) == [MADE] * 100
    assert cached.asked == 1
    assert (cached.tally.misses, cached.tally.shared, cached.tally.stored) == (1, 99, 1)
    assert [entry.usage.cost for entry in cached.ledger.entries()] == [0.0] * 99
    assert (cached.levels["primary"], cached.levels["cache"]) == (1, 99)


async def test_leader_that_leaves_does_not_take_the_vectors_of_others_with_it() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, MADE])
    leader, *others = await waiting(*[cached.vectors() for _ in range(3)])
    leader.cancel()
    await asyncio.wait({leader})
    gate.set()
    assert await within(asyncio.gather(*others)) == [MADE] * 2
    assert (cached.asked, cached.closed) == (1, 0)


async def test_call_is_closed_once_the_last_of_them_has_left() -> None:
    cached = Cached([asyncio.Event()], [MADE])
    tasks = await waiting(*[cached.vectors() for _ in range(3)])
    for task in tasks:
        assert cached.closed == 0
        task.cancel()
        await asyncio.wait({task})
    assert cached.closed == 1
    assert await cached.vectors() == MADE


async def test_failed_call_has_one_successor_and_what_that_fails_with_is_everybodys() -> None:
    gate = asyncio.Event()
    for last, given in ((MADE, 9), (DOWN, 0)):
        cached = Cached([gate, DOWN], [gate, last])
        gate.clear()
        tasks = await waiting(*[cached.vectors() for _ in range(10)])
        gate.set()
        results = await within(asyncio.gather(*tasks, return_exceptions=True))
        assert (results.count(MADE), cached.asked) == (given, 2)
        assert all([isinstance(result, ProviderFailure) for result in results if result != MADE])


@pytest.mark.parametrize(
    "denial",
    [Throttled("no room for this key", retry_after=1.0, bottleneck="poor"), BudgetExceeded("its budget is used up")],
    ids=["limit", "budget"],
)
async def test_limit_or_budget_of_one_caller_is_no_error_of_another(denial: CauceError) -> None:
    gate = asyncio.Event()
    cached = Cached([gate, denial], [gate, denial], [MADE])
    poor, rich = Scope(key="poor"), Scope(key="rich")
    leader, same, other = await waiting(*[cached.vectors(cached.call(scope=scope)) for scope in (poor, poor, rich)])
    gate.set()
    results = await within(asyncio.gather(leader, same, other, return_exceptions=True))
    assert results[0] is denial and isinstance(results[1], type(denial)) and results[2] == MADE


async def test_deadline_of_one_caller_is_no_error_of_another() -> None:
    gate = asyncio.Event()
    hurried = EmbeddingRequest("x", ("a text",), timeout=5.0)
    patient = EmbeddingRequest("x", ("a text",), timeout=50.0)
    cached = Cached([gate, MADE])
    leader, follower = await waiting(cached.vectors(cached.call(patient)), cached.vectors(cached.call(hurried)))
    cached.clock.advance(6.0)
    with pytest.raises(DeadlineExceeded):
        await within(follower)
    gate.set()
    assert await within(leader) == MADE and cached.asked == 1


async def test_old_vectors_are_given_when_no_provider_answers_and_do_not_become_new_by_that() -> None:
    cached = Cached([MADE], [DOWN])
    await cached.vectors()
    for hour in (1, 2, 3):
        cached.clock.advance(3600)
        told: list[Status | Attempt] = []
        call = cached.call(notice=told.append)
        assert (await cached.vectors(call)).vectors == MADE.vectors
        assert (call.course.cache, call.course.age, call.course.level) == ("stale", 3600.0 * hour, "cache")
        last = told[-1]
        assert isinstance(last, Attempt) and (last.strategy, last.age) == ("stale", 3600 * hour)
    assert (cached.asked, cached.tally.stored, cached.tally.stale) == (4, 1, 3)
    assert (cached.levels["primary"], cached.levels["cache"]) == (1, 3)


async def test_everybody_who_waits_for_a_call_that_fails_is_given_the_old_vectors() -> None:
    gate = asyncio.Event()
    cached = Cached([MADE], [gate, DOWN])
    await cached.vectors()
    cached.clock.advance(3600)
    calls = [cached.call() for _ in range(10)]
    tasks = await waiting(*[cached.vectors(call) for call in calls])
    gate.set()
    given = await within(asyncio.gather(*tasks))
    assert {one.vectors for one in given} == {MADE.vectors} and cached.asked == 2
    assert {(call.course.cache, call.course.age) for call in calls} == {("stale", 3600.0)}


async def test_vectors_that_are_too_old_are_no_better_than_an_error() -> None:
    cached = Cached([MADE], [DOWN], settings=CacheSettings(stale=7200))
    await cached.vectors()
    cached.clock.advance(7201)
    with pytest.raises(ProviderFailure, match="it is down"):
        await cached.vectors()


async def test_client_says_how_old_vectors_may_be() -> None:
    cached = Cached([MADE], [DOWN])
    await cached.vectors()
    cached.clock.advance(500)
    for control in (CacheControl(wanted=True, stale_if_error=100), CacheControl(read=False), CacheControl(store=False)):
        with pytest.raises(ProviderFailure):
            await cached.vectors(cached.call(control=control))
    with pytest.raises(NotCached):
        await cached.vectors(cached.call(control=CacheControl(wanted=True, only_cached=True)))
    await cached.vectors(cached.call(control=CacheControl(wanted=True, stale_if_error=300)))
    assert cached.tally.stale == 1


async def test_vectors_of_many_texts_are_shared_and_kept_for_those_who_ask_for_it() -> None:
    many = EmbeddingRequest("x", tuple([str(number) for number in range(17)]))
    cached = Cached([MADE])
    for _ in range(2):
        call = cached.call(many)
        await cached.vectors(call)
        assert call.course.cache == "none"
    for _ in range(2):
        await cached.vectors(cached.call(many, CacheControl(wanted=True, max_age=60)))
    assert cached.asked == 3


async def test_vectors_that_cannot_be_kept_are_given_all_the_same() -> None:
    for made, settings in (
        (Embeddings(((0.5,),), Usage(2**70), "m"), CacheSettings()),
        (MADE, CacheSettings(max_answer=8)),
    ):
        cached = Cached([made], settings=settings)
        assert [await cached.vectors() for _ in range(2)] == [made, made]
        assert cached.asked == 2 and len(cached.store) == 0


async def test_vectors_that_cannot_be_read_any_more_are_asked_for_again() -> None:
    cached = Cached([MADE])
    key = Keys().of(cached.call())
    assert key is not None
    await cached.store.put(key, CachedAnswer(b"\xc1", cached.clock.now(), "up", "m"), 60)
    assert await cached.vectors() == MADE and cached.asked == 1
