"""What every cache of answers must do: one suite, run over each adapter.

    class TestMyCache(CacheContract):
        @pytest.fixture
        def cache(self, clock): return MyCache(...)

        @pytest.fixture
        def bounded(self, clock):
            async def make(most_bytes): return MyCache(..., most_bytes)
            return make

`bounded` makes caches of the same answers, as several processes would have them; where there can be one only, all are the same. Needs
pytest with the anyio plugin and a fixture `clock` of type `FakeClock`. Adapters whose store has a clock of its own set `OWN_CLOCK`.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cauce.ports.cache import Cache, CachedAnswer
from cauce.testing.clock import FakeClock

KEY = bytes(range(20))
OTHER = bytes(range(20, 40))
MOST = 400_000
"""Bytes that the bounded caches of the suite may hold."""

SIZE = 5000
"""Bytes of most answers in them."""

Bounded = Callable[[int], Awaitable[Cache]]


def key_of(number: int) -> bytes:
    """One of many keys."""
    return number.to_bytes(20, "big")


async def kept(cache: Cache, numbers: range) -> list[int]:
    """Bytes of each of the answers `numbers` that are there."""
    found = [await cache.get(key_of(number)) for number in numbers]
    return [len(answer.deltas) for answer in found if answer is not None]


async def fill(cache: Cache, numbers: range, keep: float = 60, size: int = SIZE) -> None:
    """Keep the answers `numbers`, one after the other."""
    for number in numbers:
        await cache.put(key_of(number), cached("x" * size), keep)


def cached(text: str = "hello", stored: float = 1_700_000_000.0) -> CachedAnswer:
    """An answer that may be kept."""
    return CachedAnswer(text.encode(), stored, "openai", "gpt-5-mini", 3)


class CacheContract:
    """Inherit and give a `cache` fixture. Answers are kept for a minute, unless time moves on."""

    pytestmark = pytest.mark.anyio
    OWN_CLOCK = False

    async def test_answer_is_there_as_it_was_put(self, cache: Cache) -> None:
        await cache.put(KEY, cached(), 60)
        assert await cache.get(KEY) == cached()

    async def test_answer_may_hold_any_bytes(self, cache: Cache) -> None:
        every = CachedAnswer(bytes(range(256)) * 40, 1.5, "prövider", "modelo/ñ", 1)
        await cache.put(KEY, every, 60)
        assert await cache.get(KEY) == every

    async def test_what_was_never_put_is_not_there(self, cache: Cache) -> None:
        await cache.put(KEY, cached(), 60)
        assert await cache.get(OTHER) is None

    async def test_later_answer_takes_the_place_of_the_earlier(self, cache: Cache) -> None:
        await cache.put(KEY, cached("old"), 60)
        await cache.put(KEY, cached("new"), 60)
        assert await cache.get(KEY) == cached("new")

    async def test_deleted_answer_is_gone(self, cache: Cache) -> None:
        await cache.put(KEY, cached(), 60)
        await cache.put(OTHER, cached(), 60)
        await cache.delete(KEY)
        await cache.delete(bytes(20))
        assert await cache.get(KEY) is None
        assert await cache.get(OTHER) == cached()

    async def test_answer_is_kept_for_its_time_and_no_longer(self, cache: Cache, clock: FakeClock) -> None:
        if self.OWN_CLOCK:
            pytest.skip("its store has a clock of its own")
        await cache.put(KEY, cached(stored=clock.now()), 60)
        clock.advance(59)
        assert await cache.get(KEY) is not None
        clock.advance(2)
        assert await cache.get(KEY) is None

    async def test_answer_that_is_not_to_be_kept_is_not_there(self, cache: Cache) -> None:
        await cache.put(KEY, cached(), 0)
        assert await cache.get(KEY) is None

    async def test_many_answers_do_not_get_into_each_others_way(self, cache: Cache) -> None:
        for number in range(200):
            await cache.put(number.to_bytes(20, "big"), cached(str(number)), 60)
        for number in range(200):
            assert await cache.get(number.to_bytes(20, "big")) == cached(str(number))

    async def test_answers_that_are_kept_are_never_more_than_may_be(self, bounded: Bounded) -> None:
        cache = await bounded(MOST)
        for number in range(200):
            await cache.put(key_of(number), cached("x" * (2000 + 500 * (number % 17))), 60)
            if number % 20 == 19:
                assert sum(await kept(cache, range(200))) <= MOST
        assert sum(await kept(cache, range(200))) > MOST / 2

    async def test_answers_that_were_kept_last_stay(self, bounded: Bounded) -> None:
        cache = await bounded(MOST)
        await fill(cache, range(200))
        assert len(await kept(cache, range(180, 200))) == 20
        assert await kept(cache, range(100)) == []

    async def test_answers_of_several_processes_share_the_room(self, bounded: Bounded) -> None:
        one, two = await bounded(MOST), await bounded(MOST)
        await asyncio.gather(fill(one, range(100)), fill(two, range(100, 200)))
        for cache in (one, two):
            assert MOST / 2 < sum(await kept(cache, range(200))) <= MOST
        await fill(one, range(200, 210))
        assert len(await kept(two, range(200, 210))) == 10
        assert sum(await kept(two, range(210))) <= MOST

    async def test_what_has_expired_makes_room_before_what_has_not(self, bounded: Bounded, clock: FakeClock) -> None:
        cache = await bounded(MOST)
        third = int(0.35 * MOST / SIZE)
        await fill(cache, range(third))
        await fill(cache, range(third, 2 * third), 0.3 if self.OWN_CLOCK else 30)
        await self.until_gone(cache, range(third, 2 * third), clock)
        await fill(cache, range(2 * third, 3 * third))
        assert len(await kept(cache, range(third))) == third
        assert len(await kept(cache, range(2 * third, 3 * third))) == third

    async def until_gone(self, cache: Cache, numbers: range, clock: FakeClock) -> None:
        """Return once the time of the answers `numbers` is over."""
        if not self.OWN_CLOCK:
            clock.advance(31)
        async with asyncio.timeout(10):
            while await kept(cache, numbers):
                pass

    async def test_answer_that_takes_the_place_of_another_counts_once(self, bounded: Bounded) -> None:
        cache = await bounded(MOST)
        await fill(cache, range(10))
        for _ in range(30):
            await fill(cache, range(10, 11), size=MOST // 3)
        assert len(await kept(cache, range(10))) == 10

    async def test_answer_that_was_deleted_leaves_its_room(self, bounded: Bounded) -> None:
        cache = await bounded(MOST)
        await fill(cache, range(10))
        for number in range(10, 40):
            await fill(cache, range(number, number + 1), size=MOST // 3)
            await cache.delete(key_of(number))
        assert len(await kept(cache, range(10))) == 10

    async def test_answer_that_is_too_large_is_not_kept_and_takes_no_room(self, bounded: Bounded) -> None:
        cache = await bounded(MOST)
        await fill(cache, range(11))
        await cache.put(key_of(10), cached("x" * 2 * MOST), 60)
        assert await cache.get(key_of(10)) is None
        assert len(await kept(cache, range(10))) == 10
