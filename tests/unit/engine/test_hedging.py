"""A second model is asked beside one that is slow to begin."""

import asyncio

import msgspec
import pytest

from cauce.domain.errors import CauceError, ProviderFailure
from cauce.ports.provider import Call, Deltas, Open
from cauce.testing.scripted import ScriptedProvider, answering
from tests.http import within
from tests.unit.engine.guarded import ONCE, Guarded, failing, settled

pytestmark = pytest.mark.anyio


def hedged(*providers: ScriptedProvider, after: float = 2.0) -> Guarded:
    system = Guarded(*providers, retries=ONCE)
    system.candidates = tuple([msgspec.structs.replace(one, hedge=after) for one in system.candidates])
    return system


async def test_nobody_else_is_asked_while_the_first_is_in_time() -> None:
    other = ScriptedProvider("b", answering("from b"))
    assert await hedged(ScriptedProvider("a", answering("from a")), other).ask() == "from a"
    assert other.calls == []


async def test_the_next_one_answers_when_it_is_faster_and_the_slow_one_is_closed_and_accounted_for() -> None:
    slow = ScriptedProvider("a", [asyncio.Event()])
    system = hedged(slow, ScriptedProvider("b", answering("from b")))
    asking = system.asking()
    await settled()
    system.clock.advance(2)
    assert await within(asking) == "from b"
    assert slow.closed.is_set()
    assert system.told == [(1, "a", "open"), (2, "b", "hedge")]
    outcomes = {entry.provider: (entry.n, entry.outcome) for entry in system.ledger.entries()}
    assert outcomes == {"a": (1, "cancelled"), "b": (2, "completed")}


async def test_the_first_answers_after_all_and_the_other_is_closed_and_not_told_of() -> None:
    gate = asyncio.Event()
    other = ScriptedProvider("b", [asyncio.Event()])
    system = hedged(ScriptedProvider("a", [gate, *answering("from a")]), other)
    asking = system.asking()
    await settled()
    system.clock.advance(2)
    await settled()
    assert len(other.calls) == 1
    gate.set()
    assert await within(asking) == "from a"
    assert other.closed.is_set() and system.told == [(1, "a", "open")]
    assert sorted([(entry.n, entry.outcome) for entry in system.ledger.entries()]) == [
        (1, "completed"),
        (2, "cancelled"),
    ]


async def test_client_that_leaves_while_the_slow_one_is_closed_leaves_nothing_open() -> None:
    closing, may_close = asyncio.Event(), asyncio.Event()

    def slow_to_leave(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            try:
                return await open(call)
            except asyncio.CancelledError:
                closing.set()
                await may_close.wait()
                raise

        return opened

    other = ScriptedProvider("b", answering("from b"))
    slow = ScriptedProvider("a", [asyncio.Event()])
    system = Guarded(slow, other, retries=ONCE, limits=(slow_to_leave,))
    system.candidates = tuple([msgspec.structs.replace(one, hedge=2.0) for one in system.candidates])
    asking = system.asking()
    await settled()
    system.clock.advance(2)
    await within(closing.wait())
    asking.cancel()
    may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await settled()
    assert slow.closed.is_set() and other.closed.is_set()
    assert sorted([entry.outcome for entry in system.ledger.entries()]) == ["cancelled", "cancelled"]


async def test_two_that_begin_at_once_are_one_answer() -> None:
    gate = asyncio.Event()
    first, other = ScriptedProvider("a", [gate, *answering("from a")]), ScriptedProvider("b", [gate, *answering("b")])
    system = hedged(first, other)
    asking = system.asking()
    await settled()
    system.clock.advance(2)
    await settled()
    gate.set()
    assert await within(asking) == "from a"
    assert other.closed.is_set()


async def test_the_first_fails_while_the_other_is_under_way() -> None:
    broken, gate = asyncio.Event(), asyncio.Event()
    system = hedged(ScriptedProvider("a", [broken, failing()]), ScriptedProvider("b", [gate, *answering("from b")]))
    asking = system.asking()
    await settled()
    system.clock.advance(2)
    await settled()
    broken.set()
    await settled()
    assert not asking.done()
    gate.set()
    assert await within(asking) == "from b"


async def test_a_failure_in_time_goes_to_the_next_as_ever() -> None:
    system = hedged(ScriptedProvider("a", [failing()]), ScriptedProvider("b", answering("from b")))
    assert await system.ask() == "from b"
    assert system.told == [(1, "a", "open"), (2, "b", "fallback")]


async def test_when_both_fail_the_third_is_asked() -> None:
    gate = asyncio.Event()
    broken = [ScriptedProvider(name, [gate, failing()]) for name in "ab"]
    system = hedged(*broken, ScriptedProvider("c", answering("from c")))
    asking = system.asking()
    await settled()
    system.clock.advance(2)
    await settled()
    gate.set()
    assert await within(asking) == "from c"
    assert [len(one.calls) for one in broken] == [1, 1]


async def test_a_sole_model_is_not_hedged_with_the_offline_answerer() -> None:
    offline = ScriptedProvider("offline", answering("no model"))
    gate = asyncio.Event()
    system = hedged(ScriptedProvider("a", [gate, *answering("from a")]), offline)
    asking = system.asking()
    await settled()
    system.clock.advance(2)
    await settled()
    gate.set()
    assert await within(asking) == "from a" and offline.calls == []


async def test_client_that_leaves_closes_both() -> None:
    silent = [ScriptedProvider(name, [asyncio.Event()]) for name in "ab"]
    system = hedged(*silent)
    asking = system.asking()
    await settled()
    system.clock.advance(2)
    await settled()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert all(one.closed.is_set() for one in silent)


async def test_hedging_adds_a_fifth_to_the_load_at_most() -> None:
    other = ScriptedProvider("b", [asyncio.Event()])
    gate = asyncio.Event()
    system = hedged(ScriptedProvider("a", [gate, *answering("from a")]), other)
    asking = [system.asking() for _ in range(20)]
    await settled()
    system.clock.advance(2)
    await settled()
    gate.set()
    await within(asyncio.gather(*asking))
    # Those that it has in hand, and a fifth of the calls.
    assert len(other.calls) == 3 + 3


async def test_mistake_of_the_caller_is_told() -> None:
    system = hedged(ScriptedProvider("a", [failing("bad_request")]), ScriptedProvider("b", answering("from b")))
    with pytest.raises(ProviderFailure) as caught:
        await system.ask()
    assert isinstance(caught.value, CauceError) and caught.value.failure == "bad_request"
