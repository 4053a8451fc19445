"""Whatever is reserved, settled, released and waited for in whatever order: no limiter ever lets more through than the limits say.

The model is a list of what was let through, and when.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cauce.ports.limiter import Amount, Denial, Limit, Limiter, Reservation
from cauce.stores.inproc.limiter import InprocLimiter
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.degraded import DegradedLimiter
from cauce.stores.redis.limiter import RedisLimiter
from cauce.stores.redis.settings import RedisSettings
from cauce.system.ids import RandomIds
from cauce.testing.clock import FakeClock
from tests.redis_server import running_redis

REQUESTS = Limit("key:a:requests/minute", "requests", "minute", 12)
TOKENS = Limit("key:a:tokens/minute", "tokens", "minute", 1_000)
CALLS = Limit("key:a:calls", "calls", "moment", 4)
DOLLARS = Limit("key:a:dollars/day", "dollars", "day", 10)
ALL = (REQUESTS, TOKENS, CALLS, DOLLARS)
_ROUNDING = 1e-3

Close = Callable[[], Awaitable[None]]
Make = Callable[[FakeClock], Awaitable[tuple[Limiter, Close]]]


class Event(msgspec.Struct):
    """What was let through: tokens and dollars as far as they are known, and whether it is under way."""

    at: float
    tokens: float
    dollars: float
    reservation: Reservation
    open: bool = True
    made: bool = True

    def under(self, limit: Limit) -> bool:
        return limit in self.reservation.limits


class Machine(RuleBasedStateMachine):
    """See the module. Calls use at most what was reserved."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.runner = asyncio.Runner()
        self.limiter, self.close = self.runner.run(make(self.clock))
        self.events: list[Event] = []

    def teardown(self) -> None:
        self.runner.run(self.close())
        self.runner.close()

    @rule(
        tokens=st.sampled_from([0, 1, 50, 100, 400, 1_000]),
        dollars=st.sampled_from([0.0, 0.5, 3.0]),
        limits=st.sampled_from([ALL, (REQUESTS,), (TOKENS,), (CALLS, DOLLARS), (TOKENS, CALLS)]),
        count=st.integers(1, 6),
    )
    def reserve(self, tokens: float, dollars: float, limits: tuple[Limit, ...], count: int) -> None:
        for _ in range(count):
            answer = self.runner.run(self.limiter.reserve(limits, Amount(tokens, dollars)))
            if isinstance(answer, Denial):
                assert answer.limit in limits and (answer.wait is None or answer.wait > 0)
            else:
                self.events.append(Event(self.clock.now(), tokens, dollars, answer))

    @rule(which=st.integers(0, 3), share=st.sampled_from([0.0, 0.3, 1.0]))
    def settle(self, which: int, share: float) -> None:
        for event in [event for event in self.events if event.open][which : which + 1]:
            event.open = False
            event.tokens, event.dollars = event.tokens * share, event.dollars * share
            self.runner.run(self.limiter.settle(event.reservation, Amount(event.tokens, event.dollars)))

    @rule(which=st.integers(0, 3))
    def release(self, which: int) -> None:
        for event in [event for event in self.events if event.open][which : which + 1]:
            event.open, event.made, event.tokens, event.dollars = False, False, 0.0, 0.0
            self.runner.run(self.limiter.release(event.reservation))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 8.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def no_minute_has_too_much(self) -> None:
        for first in self.events:
            within = [event for event in self.events if first.at <= event.at < first.at + 60]
            assert sum([event.tokens for event in within if event.under(TOKENS)]) <= TOKENS.most + _ROUNDING
            assert sum([event.made for event in within if event.under(REQUESTS)]) <= REQUESTS.most

    @invariant()
    def not_too_many_are_under_way(self) -> None:
        assert sum([event.open for event in self.events if event.under(CALLS)]) <= CALLS.most

    @invariant()
    def no_day_is_spent_beyond_its_budget(self) -> None:
        # 2023-11-14 22:13:20 UTC, plus the little that these rules wait: one day.
        assert sum([event.dollars for event in self.events if event.under(DOLLARS)]) <= DOLLARS.most + _ROUNDING


async def _inproc(clock: FakeClock) -> tuple[Limiter, Close]:
    async def close() -> None:
        return None

    return InprocLimiter(clock), close


def test_limiter_in_memory_never_lets_more_through_than_it_may() -> None:
    run_state_machine_as_test(lambda: Machine(_inproc), settings=settings(max_examples=150, stateful_step_count=50))


@pytest.mark.parametrize("around", [False, True])
def test_limiter_in_redis_never_lets_more_through_than_it_may(around: bool) -> None:
    with running_redis() as server:

        async def make(clock: FakeClock) -> tuple[Limiter, Close]:
            connection = RedisConnection(RedisSettings(server.url), clock)
            await connection.start()
            await connection.run(lambda redis: redis.flushall())
            shared: Any = RedisLimiter(connection, clock, RandomIds(), time=clock.now)
            limiter = DegradedLimiter(shared, InprocLimiter(clock), connection, clock, 1) if around else shared
            return limiter, connection.aclose

        # Leases are a matter of the contract: nobody renews them here, and no rule waits so long.
        run_state_machine_as_test(
            lambda: _Quick(make), settings=settings(max_examples=30, stateful_step_count=30, deadline=None)
        )


class _Quick(Machine):
    """Calls end before their leases do."""

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 8.0, 25.0]))
    def wait(self, seconds: float) -> None:
        for _ in range(len([event for event in self.events if event.open])):
            self.settle(0, 1.0)
        self.clock.advance(seconds)


@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1_500)), min_size=1, max_size=60),
    st.sampled_from([10.0, 333.0, 1_000.0]),
)
def test_no_window_of_a_minute_has_more_than_the_limit_where_estimates_are_right(
    steps: list[tuple[float, float]], most: float
) -> None:
    async def play() -> None:
        clock = FakeClock()
        limiter = InprocLimiter(clock)
        limit = Limit("provider:up:tokens/minute", "tokens", "minute", most)
        passed: list[tuple[float, float]] = []
        for pause, tokens in steps:
            clock.advance(pause)
            tokens = min(tokens, most)
            answer = await limiter.reserve((limit,), Amount(tokens))
            if isinstance(answer, Denial):
                assert answer.wait is not None
                clock.advance(answer.wait + 1e-6)
                answer = await limiter.reserve((limit,), Amount(tokens))
            assert isinstance(answer, Reservation), "the wait that was told was too short"
            await limiter.settle(answer, Amount(tokens))
            passed.append((clock.now(), tokens))
        for began, _ in passed:
            assert sum([tokens for at, tokens in passed if began <= at < began + 60]) <= most + _ROUNDING

    asyncio.run(play())
