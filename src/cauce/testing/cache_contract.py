"""What every cache of answers must do: one suite, run over each adapter.

    class TestMyCache(CacheContract):
        @pytest.fixture
        def cache(self, clock): return MyCache(...)

Needs pytest with the anyio plugin and a fixture `clock` of type `FakeClock`. Adapters whose store has a clock of its own set `OWN_CLOCK`.
"""

import pytest

from cauce.ports.cache import Cache, CachedAnswer
from cauce.testing.clock import FakeClock

KEY = bytes(range(20))
OTHER = bytes(range(20, 40))


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
