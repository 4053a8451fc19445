"""Answers that are given again, and calls that several clients share, on scripted providers."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import msgspec
import pytest

from cauce.domain.completion import Completion
from cauce.domain.delta import Attempt, Delta, Finish, Level, Restart, Status, Text, ToolCall, ToolResult
from cauce.domain.errors import CauceError, DeadlineExceeded, NotCached, Overloaded, ProviderFailure, Throttled
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Sampling, Scope
from cauce.domain.usage import Usage
from cauce.engine.caching.key import Keys
from cauce.engine.caching.settings import CacheSettings
from cauce.engine.caching.shelf import Books, Shelf, Tally
from cauce.engine.compose import collect, compose
from cauce.engine.fallback import fallback
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.cache import Caching
from cauce.engine.policies.deadline import deadline
from cauce.ports.cache import CacheControl, CachedAnswer
from cauce.ports.provider import Call, Candidate, Deltas
from cauce.stores.inproc.cache import InprocCache
from cauce.stores.inproc.ledger import InprocLedger
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, Step, answering
from tests.http import within

pytestmark = pytest.mark.anyio

HELLO = answering("hello there")
DOWN = ProviderFailure("it is down", failure="transient", provider="up")


class Cached:
    """A provider behind a cache, as bootstrap puts one there, and what was told to whom."""

    def __init__(
        self, *scripts: Sequence[Step], settings: CacheSettings | None = None, level: Level = "primary"
    ) -> None:
        self.clock = FakeClock()
        self.ledger = InprocLedger()
        self.provider = ScriptedProvider("up", *(scripts or (HELLO,)))
        self.candidate = Candidate(self.provider, "m", level)
        settings = settings or CacheSettings()
        self.store = InprocCache(self.clock, settings.memory)
        self.tally = Tally()
        books = Books(self.clock, self.ledger)
        self.caching = Caching(Shelf(self.store, self.store, settings, Keys(settings.scope), books, self.tally))
        self.noticed: list[Status | Attempt] = []

        async def ask(call: Call) -> Deltas:
            return await call.candidate.provider.open(call)

        asked = compose(ask, attempt())
        cascade = fallback(self.clock, self.caching.stale)
        self.open = compose(asked, deadline(self.clock), self.caching.policy, cascade)

    @property
    def asked(self) -> int:
        """How many calls have reached the provider."""
        return len(self.provider.calls)

    def call(
        self,
        text: str = "hi",
        *,
        temperature: float | None = 0.0,
        scope: Scope | None = None,
        control: CacheControl | None = None,
        timeout: float | None = None,
    ) -> Call:
        request = Request(
            "x", (Message("user", (TextPart(text),)),), Sampling(temperature=temperature), timeout=timeout
        )
        return Call(
            request,
            scope or Scope(),
            (self.candidate,),
            "req_1",
            notice=self.noticed.append,
            cache=control or CacheControl(),
        )

    async def answer(self, call: Call | None = None) -> Completion:
        return await collect(await self.open(call or self.call()))

    async def stream(self, call: Call | None = None) -> list[Delta]:
        async with aclosing(await self.open(call or self.call())) as deltas:
            return [delta async for delta in deltas]


async def test_same_request_is_answered_without_asking_again() -> None:
    cached = Cached()
    first, call = await cached.answer(), cached.call()
    second = await cached.answer(call)
    assert cached.asked == 1
    assert first.choices == second.choices
    assert (call.course.cache, call.course.level) == ("hit", "cache")
    assert cached.noticed[-1] == Attempt(1, "up", "m", "cache", strategy="cache", age=0)


async def test_answer_from_the_cache_tells_its_tokens_and_costs_nothing() -> None:
    paid = Finish("stop", Usage(1000, 100, cost=0.5, cost_source="reported"))
    cached = Cached([Text("hi"), paid])
    assert (await cached.answer()).usage.cost == 0.5
    usage = (await cached.answer()).usage
    assert (usage.input_tokens, usage.output_tokens, usage.cost, usage.cost_source) == (1000, 100, 0.0, "priced")
    [entry] = cached.ledger.entries()
    assert (entry.level, entry.provider, entry.model, entry.outcome) == ("cache", "up", "m", "completed")
    assert entry.usage.cost == 0.0


async def test_stream_is_replayed_delta_by_delta_as_it_was() -> None:
    tool = [ToolCall(0, "c", "f", "{", "piece"), ToolCall(0, "c", "f", "}"), ToolCall(0, "c", "f", "{}", "ready")]
    cached = Cached([Text("a"), Text("b", begins=True), *tool, Finish("tool_calls", Usage(3, 5))])
    first, second = await cached.stream(), await cached.stream()
    assert cached.asked == 1 and len(first) == 6
    assert second[:-1] == first[:-1]
    assert isinstance(second[-1], Finish) and second[-1].reason == "tool_calls"


@pytest.mark.parametrize("temperature", [None, 0.7, 1.0])
async def test_answers_that_differ_each_time_are_not_kept(temperature: float | None) -> None:
    cached = Cached()
    call = cached.call(temperature=temperature)
    await cached.answer(call)
    await cached.answer(call)
    assert cached.asked == 2 and call.course.cache == "none"


async def test_client_may_ask_for_the_cache_at_any_temperature() -> None:
    cached = Cached()
    for _ in range(2):
        await cached.answer(cached.call(temperature=0.7, control=CacheControl(wanted=True, max_age=60)))
    assert cached.asked == 1


async def test_answer_is_asked_for_again_once_its_time_is_over() -> None:
    cached = Cached(settings=CacheSettings(ttl=300))
    await cached.answer()
    cached.clock.advance(300)
    await cached.answer()
    assert cached.asked == 1
    cached.clock.advance(1)
    await cached.answer()
    assert cached.asked == 2
    await cached.answer()
    assert cached.asked == 2


async def test_old_answer_is_given_when_no_model_answers() -> None:
    cached = Cached(HELLO, [DOWN])
    first = await cached.answer()
    cached.clock.advance(3600)
    call = cached.call()
    stale = await cached.answer(call)
    assert cached.asked == 2 and stale.choices == first.choices
    assert (call.course.cache, call.course.age) == ("stale", 3600.0)
    last = cached.noticed[-1]
    assert isinstance(last, Attempt) and (last.level, last.strategy) == ("cache", "stale")


async def test_old_answer_does_not_become_new_by_being_given() -> None:
    cached = Cached(HELLO, [DOWN])
    await cached.answer()
    for _ in range(3):
        cached.clock.advance(3600)
        await cached.answer()
    assert cached.asked == 4 and cached.tally.stored == 1


async def test_answer_that_is_too_old_is_no_better_than_an_error() -> None:
    cached = Cached(HELLO, [DOWN], settings=CacheSettings(stale=7200))
    await cached.answer()
    cached.clock.advance(7201)
    with pytest.raises(ProviderFailure, match="it is down"):
        await cached.answer()


@pytest.mark.parametrize(
    ("control", "age", "use"),
    [
        (CacheControl(), 200, "hit"),
        (CacheControl(read=False), 1, "miss"),
        (CacheControl(store=False), 1, "none"),
        (CacheControl(wanted=True, max_age=100), 101, "miss"),
        (CacheControl(wanted=True, max_age=1000), 900, "hit"),
        (CacheControl(wanted=True, min_fresh=100), 250, "miss"),
        (CacheControl(wanted=True, min_fresh=100), 150, "hit"),
        (CacheControl(wanted=True, max_stale=100), 390, "stale"),
        (CacheControl(wanted=True, max_stale=100), 410, "miss"),
        (CacheControl(wanted=True, only_cached=True), 200, "hit"),
    ],
)
async def test_client_says_how_old_an_answer_may_be(control: CacheControl, age: float, use: str) -> None:
    cached = Cached()
    await cached.answer()
    cached.clock.advance(age)
    call = cached.call(control=control)
    await cached.answer(call)
    assert call.course.cache == use
    assert cached.asked == (1 if use in ("hit", "stale") else 2)


async def test_client_that_wants_cached_answers_only_gets_no_other() -> None:
    cached = Cached()
    control = CacheControl(wanted=True, only_cached=True)
    with pytest.raises(NotCached) as refused:
        await cached.answer(cached.call(control=control))
    assert refused.value.status == 504
    never = msgspec.structs.replace(cached.call(control=control).request, conversation_id="c")
    with pytest.raises(NotCached):
        await cached.answer(msgspec.structs.replace(cached.call(control=control), request=never))
    assert cached.asked == 0


async def test_refreshed_answer_takes_the_place_of_the_old_one() -> None:
    cached = Cached(answering("old"), answering("new"))
    await cached.answer()
    await cached.answer(cached.call(control=CacheControl(read=False)))
    assert (await cached.answer()).choices[0].text == "new"


async def test_client_says_how_old_an_answer_may_be_when_no_model_answers() -> None:
    cached = Cached(HELLO, [DOWN])
    await cached.answer()
    cached.clock.advance(500)
    with pytest.raises(ProviderFailure):
        await cached.answer(cached.call(control=CacheControl(wanted=True, stale_if_error=100)))
    with pytest.raises(ProviderFailure):
        await cached.answer(cached.call(control=CacheControl(read=False)))
    call = cached.call(control=CacheControl(wanted=True, stale_if_error=300))
    await cached.answer(call)
    assert call.course.cache == "stale"


NOT_KEPT: list[tuple[str, Sequence[Step]]] = [
    ("an error", [DOWN]),
    ("an answer that was cut", [Text("hel"), DOWN]),
    ("an answer without its end", [Text("hel")]),
    ("an incomplete answer", [Text("hel"), Finish("error", outcome="incomplete")]),
    ("an answer that only seems to stop", [Text("hel"), Finish("stop", outcome="incomplete")]),
    ("a filtered answer", [Text("hel"), Finish("content_filter")]),
    ("an empty answer", [Finish("stop")]),
    ("an answer that began anew", [Text("hel"), Restart(1, "cut"), Text("hello"), Finish("stop")]),
    ("an answer with a tool that ran here", [Text("a"), ToolResult("c", "f", "42"), Finish("stop")]),
    ("one of several that was filtered", [Text("a"), Text("b", 1), Finish("stop", reasons=("stop", "content_filter"))]),
]


@pytest.mark.parametrize("script", [script for _, script in NOT_KEPT], ids=[name for name, _ in NOT_KEPT])
async def test_only_whole_answers_are_kept(script: Sequence[Step]) -> None:
    cached = Cached(script)
    for _ in range(2):
        try:
            await cached.answer()
        except CauceError:
            continue
    assert cached.asked == 2 and len(cached.store) == 0


async def test_answer_of_the_offline_answerer_is_not_kept() -> None:
    cached = Cached(level="offline")
    await cached.answer()
    await cached.answer()
    assert cached.asked == 2


async def test_answer_larger_than_one_may_be_is_streamed_and_not_kept() -> None:
    words = [Text("x" * 1000) for _ in range(20)]
    cached = Cached([*words, Finish("stop")], settings=CacheSettings(max_answer=4000))
    for _ in range(2):
        assert (await cached.answer()).choices[0].text == "x" * 20_000
    assert cached.asked == 2 and len(cached.store) == 0


async def test_answer_that_only_json_could_hold_is_given_and_not_kept() -> None:
    cached = Cached([ToolCall(0, "c", "f", "{}", "ready"), Finish("tool_calls", Usage(2**70, 1))])
    for _ in range(2):
        assert (await cached.answer()).usage.input_tokens == 2**70
    assert cached.asked == 2


async def test_answer_to_a_prompt_that_was_cut_short_is_not_kept() -> None:
    cached = Cached()
    call = cached.call()
    call.course.truncated = 2
    await cached.answer(call)
    await cached.answer()
    assert cached.asked == 2


async def test_entry_that_cannot_be_read_any_more_is_asked_for_again() -> None:
    cached = Cached()
    call = cached.call()
    key = Keys().of(call)
    assert key is not None
    await cached.store.put(key, CachedAnswer(b"\xc1", cached.clock.now(), "up", "m"), 60)
    assert (await cached.answer()).choices[0].text == "hello there"
    assert cached.asked == 1


# ---- shared calls


async def together(count: int, cached: Cached) -> list[asyncio.Task[list[Delta]]]:
    """`count` clients that ask the same, all of them waiting."""
    tasks = [asyncio.create_task(cached.stream()) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_hundred_identical_requests_make_one_call() -> None:
    gate = asyncio.Event()
    cached = Cached(
        [gate, Text("hello "), Text("there"), Finish("stop", Usage(3, 5, 0, cost=0.5, cost_source="priced"))]
    )
    tasks = await together(100, cached)
    gate.set()
    answers = await within(asyncio.gather(*tasks))
    assert cached.asked == 1
    assert {"".join([delta.text for delta in answer if isinstance(delta, Text)]) for answer in answers} == {
        "hello there"
    }
    assert sum([answer[-1].usage.cost for answer in answers if isinstance(answer[-1], Finish)]) == 0.5
    assert len(cached.ledger.entries()) == 99
    assert (cached.tally.misses, cached.tally.shared) == (1, 99)


async def test_follower_has_each_delta_when_it_comes() -> None:
    gate = asyncio.Event()
    cached = Cached([Text("one"), gate, Text("two"), Finish("stop")])
    leader = await within(cached.open(cached.call()))
    follower = await within(cached.open(cached.call()))
    async with aclosing(leader), aclosing(follower):
        assert await within(follower.read()) == (Text("one"),)
        waiting = asyncio.create_task(follower.read())
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.set()
        assert await within(waiting) == (Text("two"),)
    assert cached.asked == 1


async def test_follower_that_comes_late_gets_all_of_it() -> None:
    gate = asyncio.Event()
    cached = Cached([Text("one"), Text("two"), gate, Finish("stop")])
    leader = await cached.open(cached.call())
    await leader.read()
    await leader.read()
    late = asyncio.create_task(cached.answer())
    await asyncio.sleep(0)
    gate.set()
    assert (await within(late)).choices[0].text == "onetwo"
    await collect(leader)
    assert cached.asked == 1


async def test_leader_that_leaves_does_not_take_the_answer_with_it() -> None:
    gate = asyncio.Event()
    cached = Cached([Text("one"), gate, Text("two"), Finish("stop")])
    leader = await cached.open(cached.call())
    [follower] = await together(1, cached)
    await leader.aclose()
    assert not cached.provider.closed.is_set()
    gate.set()
    assert Text("two") in await within(follower)
    await cached.answer()
    assert cached.asked == 1, "the answer that its leader left was not kept"


async def test_leader_that_leaves_before_the_first_delta_does_not_either() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, *HELLO])
    leader, follower = await together(2, cached)
    leader.cancel()
    await asyncio.wait({leader})
    gate.set()
    assert Text("there") in await within(follower)
    assert cached.asked == 1


async def test_upstream_is_closed_when_the_last_reader_has_gone() -> None:
    cached = Cached([Text("one"), asyncio.Event(), Finish("stop")])
    leader, follower = await cached.open(cached.call()), await cached.open(cached.call())
    await leader.aclose()
    assert not cached.provider.closed.is_set()
    await follower.aclose()
    assert cached.provider.closed.is_set()
    assert cached.asked == 1


async def test_upstream_is_closed_when_the_only_client_leaves_while_it_waits() -> None:
    before = asyncio.all_tasks()
    cached = Cached([asyncio.Event(), *HELLO])
    [only] = await together(1, cached)
    only.cancel()
    await asyncio.wait({only})
    assert cached.provider.closed.is_set()
    assert asyncio.all_tasks() == before


async def test_request_after_the_last_reader_has_gone_makes_its_own_call() -> None:
    cached = Cached([Text("one"), asyncio.Event(), Finish("stop")], HELLO)
    leader = await cached.open(cached.call())
    await leader.aclose()
    assert (await within(cached.answer())).choices[0].text == "hello there"
    assert cached.asked == 2


async def test_one_follower_asks_anew_when_the_leader_had_no_answer() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, DOWN], HELLO)
    tasks = await together(50, cached)
    gate.set()
    results = await within(asyncio.gather(*tasks, return_exceptions=True))
    assert cached.asked == 2
    assert [isinstance(result, ProviderFailure) for result in results] == [True, *[False] * 49]


async def test_failure_that_stays_is_everybodys_after_two_calls() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, DOWN])
    tasks = await together(50, cached)
    gate.set()
    results = await within(asyncio.gather(*tasks, return_exceptions=True))
    assert cached.asked == 2
    assert all([isinstance(result, ProviderFailure) for result in results])


async def test_callers_own_mistake_is_not_asked_for_again() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, ProviderFailure("no such tool", failure="bad_request", provider="up")])
    tasks = await together(10, cached)
    gate.set()
    await within(asyncio.gather(*tasks, return_exceptions=True))
    assert cached.asked == 1


async def test_limit_of_one_caller_is_not_that_of_another() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, Throttled("not now", retry_after=5, bottleneck="key:a")], HELLO)
    mine = asyncio.create_task(cached.answer(cached.call(scope=Scope(key="a"))))
    await asyncio.sleep(0)
    others = [asyncio.create_task(cached.answer(cached.call(scope=Scope(key="b")))) for _ in range(3)]
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(Throttled):
        await within(mine)
    assert [one.choices[0].text for one in await within(asyncio.gather(*others))] == ["hello there"] * 3
    assert cached.asked == 2


async def test_limit_of_one_caller_never_becomes_that_of_another() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    denied = Throttled("not now", retry_after=5, bottleneck="key:a")
    cached = Cached([first, denied], [second, denied], HELLO)
    mine = [asyncio.create_task(cached.answer(cached.call(scope=Scope(key="a")))) for _ in range(2)]
    await asyncio.sleep(0)
    other = asyncio.create_task(cached.answer(cached.call(scope=Scope(key="b"))))
    await asyncio.sleep(0)
    for gate in (first, second):
        gate.set()
        await asyncio.wait(mine, return_when=asyncio.FIRST_COMPLETED)
    results = await within(asyncio.gather(*mine, return_exceptions=True))
    assert all([isinstance(result, Throttled) for result in results])
    assert (await within(other)).choices[0].text == "hello there"
    assert cached.asked == 3


async def test_deadline_of_one_request_never_becomes_that_of_another() -> None:
    first, second, late = asyncio.Event(), asyncio.Event(), DeadlineExceeded("too late")
    cached = Cached([first, late], [second, late], HELLO)
    tasks = [asyncio.create_task(cached.answer()) for _ in range(3)]
    await asyncio.sleep(0)
    first.set()
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    second.set()
    results = await within(asyncio.gather(*tasks, return_exceptions=True))
    assert [isinstance(result, DeadlineExceeded) for result in results] == [True, True, False]
    assert cached.asked == 3


async def test_request_that_comes_while_a_call_is_being_closed_makes_its_own() -> None:
    cached = Cached([Text("one"), asyncio.Event(), Finish("stop")], HELLO)
    leader = await cached.open(cached.call())
    leaving, new = asyncio.create_task(leader.aclose()), asyncio.create_task(cached.answer())
    assert (await within(new)).choices[0].text == "hello there"
    await within(leaving)
    assert cached.asked == 2


async def test_cut_reaches_followers_as_it_reaches_the_leader() -> None:
    gate = asyncio.Event()
    cached = Cached([Text("one"), gate, DOWN])
    leader, follower = await cached.open(cached.call()), await cached.open(cached.call())
    gate.set()
    for deltas in (leader, follower):
        assert await deltas.read() == (Text("one"),)
        with pytest.raises(ProviderFailure, match="it is down"):
            await deltas.read()
    assert cached.asked == 1 and len(cached.store) == 0
    entry = cached.ledger.entries()[-1]
    assert (entry.level, entry.outcome, entry.error_code) == ("cache", "failed", "provider_error")


async def test_follower_waits_no_longer_than_its_own_deadline() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, *HELLO])
    leader = asyncio.create_task(cached.answer(cached.call(timeout=60)))
    await asyncio.sleep(0)
    hasty = asyncio.create_task(cached.answer(cached.call(timeout=5)))
    await cached.clock.until_waiting(1)
    await asyncio.sleep(0)
    cached.clock.advance(6)
    with pytest.raises(DeadlineExceeded):
        await within(hasty)
    gate.set()
    assert (await within(leader)).choices[0].text == "hello there"


async def test_request_that_wants_a_new_answer_does_not_share_a_call_under_way() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, *answering("old")], answering("new"))
    [first] = await together(1, cached)
    fresh = await within(cached.answer(cached.call(control=CacheControl(read=False))))
    assert fresh.choices[0].text == "new"
    gate.set()
    assert Text("old") in await within(first)


async def test_reader_that_stalls_does_not_hold_up_the_others_of_a_large_answer() -> None:
    words = [Text("x" * 1000) for _ in range(40)]
    gate = asyncio.Event()
    cached = Cached([Text("first"), gate, *words, Finish("stop")], settings=CacheSettings(max_answer=5000))
    stalled, eager = await cached.open(cached.call()), await cached.open(cached.call())
    gate.set()
    assert len((await within(collect(eager))).choices[0].text) == 40_005
    assert await stalled.read() == (Text("first"),)
    with pytest.raises(Overloaded):
        await stalled.read()
    await stalled.aclose()


async def test_reader_that_is_alone_may_take_its_time() -> None:
    words = [Text("x" * 1000) for _ in range(40)]
    cached = Cached([Text("first"), *words, Finish("stop")], settings=CacheSettings(max_answer=5000))
    alone = await cached.open(cached.call())
    for _ in range(20):
        await asyncio.sleep(0)
    assert len((await within(collect(alone))).choices[0].text) == 40_005


async def test_followers_are_told_what_the_call_waits_for() -> None:
    gate = asyncio.Event()
    cached = Cached([gate, *HELLO])
    [leader] = await together(1, cached)
    told: list[Status | Attempt] = []
    follower = asyncio.create_task(cached.stream(msgspec.structs.replace(cached.call(), notice=told.append)))
    await asyncio.sleep(0)
    for told_to_all in (Status("waiting", "place 3"), Attempt(2, "up", "m", "primary", strategy="retry")):
        cached.provider.calls[0].notice(told_to_all)
    gate.set()
    await within(asyncio.gather(leader, follower))
    assert told == [Status("waiting", "place 3"), Attempt(1, "up", "m", "cache", strategy="shared", age=0)]


async def test_nothing_is_left_running_when_all_have_been_answered() -> None:
    before = asyncio.all_tasks()
    cached = Cached()
    for task in await together(20, cached):
        await within(task)
    assert asyncio.all_tasks() == before


async def test_usage_of_a_shared_call_that_breaks_is_what_it_had_used() -> None:
    system = Cached((Text("one "), asyncio.Event()))
    used = Usage(7, 2, cost=0.5, cost_source="priced")

    async def spent(call: Call) -> Deltas:
        opened = await system.provider.open(call)
        opened.on_finish(lambda usage: used)
        return opened

    flown = await compose(spent, system.caching.policy)(system.call())
    await flown.aclose()
    assert flown.used == used
