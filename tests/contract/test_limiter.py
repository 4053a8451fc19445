"""Every limiter keeps the contract: the one in memory, the one in a real Redis, and the one around it with Redis and without."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cauce.domain.errors import CauceError, Overloaded
from cauce.ports.limiter import Amount, Denial, Limit, Limiter, Reservation
from cauce.stores.inproc.limiter import InprocLimiter
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.degraded import DegradedLimiter
from cauce.stores.redis.limiter import LEASE, RedisLimiter
from cauce.stores.redis.settings import RedisSettings
from cauce.system.clock import SystemClock
from cauce.system.ids import RandomIds
from cauce.testing.clock import FakeClock
from cauce.testing.limiter_contract import (
    BUDGET,
    CALLS,
    ONE,
    REQUESTS,
    TOKENS,
    Books,
    LimiterContract,
    denied,
    reserved,
    until_denied,
)
from tests.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.anyio


@pytest.fixture
def books() -> Books:
    return Books()


def shared(connection: RedisConnection, clock: FakeClock, books: Books) -> RedisLimiter:
    return RedisLimiter(connection, clock, RandomIds(), books.spent, clock.now)


class TestInprocLimiter(LimiterContract):
    @pytest.fixture
    def limiter(self, clock: FakeClock, books: Books) -> Limiter:
        return InprocLimiter(clock, books.spent)

    async def test_limits_without_use_are_forgotten(self, clock: FakeClock, books: Books) -> None:
        limiter = InprocLimiter(clock, books.spent, most_idle=100)
        for number in range(10_000):
            limits = (
                Limit(f"key:default/{number}:requests/minute", "requests", "minute", 5),
                Limit(f"key:default/{number}:tokens/minute", "tokens", "minute", 500),
                Limit(f"key:default/{number}:calls", "calls", "moment", 5),
                Limit(f"key:default/{number}:dollars/day", "dollars", "day", 5),
            )
            await limiter.settle(await reserved(limiter, *limits, amount=Amount(10, 0.1)), Amount(10, 0.1))
            clock.advance(30)
        assert limiter.remembered < 400

    async def test_calls_under_way_are_never_forgotten(self, clock: FakeClock) -> None:
        limiter = InprocLimiter(clock, most_idle=4)
        held = [await reserved(limiter, Limit(f"key:{number}:calls", "calls", "moment", 1)) for number in range(100)]
        clock.advance(100_000)
        await reserved(limiter, REQUESTS)
        for reservation in held:
            await denied(limiter, *reservation.limits)

    async def test_the_ledger_is_asked_once_for_all_who_come_at_once(self, clock: FakeClock, books: Books) -> None:
        limiter = InprocLimiter(clock, books.spent)
        await asyncio.gather(*[limiter.reserve((BUDGET,), Amount(dollars=0.01)) for _ in range(50)])
        assert len(books.asked) == 1

    async def test_ledger_that_could_not_be_read_is_asked_again(self, clock: FakeClock) -> None:
        answers: list[float | CauceError] = [Overloaded("the ledger cannot be read now"), 9.5]

        async def spent(limit: Limit, since: float) -> float:
            answer = answers.pop(0)
            if isinstance(answer, CauceError):
                raise answer
            return answer

        limiter = InprocLimiter(clock, spent)
        with pytest.raises(Overloaded):
            await limiter.reserve((BUDGET,), Amount(dollars=1))
        await denied(limiter, BUDGET, amount=Amount(dollars=1))

    async def test_who_leaves_while_the_ledger_is_asked_leaves_nothing_behind(
        self, clock: FakeClock, books: Books
    ) -> None:
        limiter = InprocLimiter(clock, books.spent)
        leaving = asyncio.create_task(limiter.reserve((CALLS, BUDGET), Amount(dollars=9)))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await reserved(limiter, CALLS, BUDGET, amount=Amount(dollars=10))
        assert len(books.asked) == 1


class TestRedisLimiter(LimiterContract):
    @pytest.fixture
    async def limiter(self, connection: RedisConnection, clock: FakeClock, books: Books) -> AsyncIterator[Limiter]:
        limiter = shared(connection, clock, books)
        await limiter.start()
        await until_listening(connection)
        yield limiter
        await limiter.aclose()

    async def test_two_processes_share_every_limit(
        self, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        here, there = shared(connection, clock, books), shared(connection, clock, books)
        held = await reserved(here, CALLS, TOKENS, BUDGET, amount=Amount(900, 6))
        await denied(there, TOKENS, amount=Amount(900))
        await denied(there, BUDGET, amount=Amount(dollars=5))
        await reserved(there, CALLS)
        await denied(here, CALLS)
        await here.settle(held, Amount(0, 0))
        await reserved(there, CALLS, TOKENS, BUDGET, amount=Amount(900, 10))

    async def test_calls_of_a_node_that_died_are_let_go_after_a_while(
        self, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        dead, alive = shared(connection, clock, books), shared(connection, clock, books)
        await reserved(dead, CALLS, BUDGET, amount=Amount(dollars=8))
        await reserved(dead, CALLS)
        clock.advance(LEASE - 1)
        await denied(alive, CALLS)
        await denied(alive, BUDGET, amount=Amount(dollars=3))
        clock.advance(2)
        await reserved(alive, CALLS, BUDGET, amount=Amount(dollars=10))

    async def test_calls_of_a_node_that_lives_are_held_however_long_they_last(
        self, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        limiter = shared(connection, clock, books)
        await limiter.start()
        for _ in range(2):
            await reserved(limiter, CALLS)
        for _ in range(20):
            await clock.until_waiting()
            clock.advance(LEASE / 3)
            await clock.until_waiting()
        await denied(limiter, CALLS)
        await limiter.aclose()

    async def test_without_a_given_time_it_is_the_server_s_own(self, connection: RedisConnection) -> None:
        limiter = RedisLimiter(connection, SystemClock(), RandomIds())
        reservation = await reserved(limiter, REQUESTS, TOKENS, CALLS, BUDGET, amount=Amount(100, 1))
        seconds, _ = await connection.run(lambda redis: redis.time())
        assert abs(seconds - reservation.at) < 60
        await limiter.settle(reservation, Amount(50, 0.5))

    async def test_who_leaves_in_the_midst_of_it_leaves_nothing_behind(
        self, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        limiter = shared(connection, clock, books)
        for _ in range(20):
            leaving = asyncio.create_task(limiter.reserve((CALLS,), ONE))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        await limiter.aclose()
        clock.advance(LEASE + 1)
        await reserved(limiter, CALLS)
        await reserved(limiter, CALLS)


class TestDegradedLimiterWithItsServer(LimiterContract):
    @pytest.fixture
    async def limiter(self, connection: RedisConnection, clock: FakeClock, books: Books) -> AsyncIterator[Limiter]:
        inner = shared(connection, clock, books)
        await inner.start()
        await until_listening(connection)
        yield DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=1)
        await inner.aclose()


class TestDegradedLimiterAlone(LimiterContract):
    @pytest.fixture
    async def limiter(self, clock: FakeClock, books: Books) -> AsyncIterator[Limiter]:
        # Nobody listens there.
        connection = RedisConnection(RedisSettings("redis://127.0.0.1:1/0"), clock)
        await connection.start()
        inner = shared(connection, clock, books)
        yield DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=1)
        await connection.aclose()


class TestGoingAndComingBack:
    @pytest.fixture(autouse=True)
    def patience(self) -> None:
        """None."""

    @pytest.fixture
    def own_server(self) -> Iterator[RedisServer]:
        with running_redis() as running:
            yield running

    @pytest.fixture
    async def connection(self, own_server: RedisServer, clock: FakeClock) -> AsyncIterator[RedisConnection]:
        connection = RedisConnection(RedisSettings(own_server.url), clock)
        await connection.start()
        yield connection
        await connection.aclose()

    async def back(self, connection: RedisConnection, clock: FakeClock) -> None:
        """Return once the connection has found its server again."""
        came = asyncio.Event()
        connection.on_change(lambda up: came.set())
        while not connection.up:
            await clock.until_waiting()
            clock.advance(5)
            await asyncio.wait({asyncio.create_task(came.wait())}, timeout=0.1)

    async def test_without_its_server_a_node_keeps_to_its_share(
        self, own_server: RedisServer, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        inner = shared(connection, clock, books)
        limiter = DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=2)
        eight = Limit("provider:up:calls", "calls", "moment", 8)
        assert limiter.mode == "shared"
        own_server.stop()
        assert await until_denied(limiter, eight) == 4
        assert (await denied(limiter, eight)).limit == eight
        assert limiter.mode == "local share"

    async def test_what_was_let_through_before_still_counts_when_the_server_goes(
        self, own_server: RedisServer, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        inner = shared(connection, clock, books)
        limiter = DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=1)
        held = await reserved(limiter, CALLS, REQUESTS, amount=ONE)
        await reserved(limiter, CALLS, REQUESTS, amount=ONE)
        own_server.stop()
        assert await until_denied(limiter, CALLS) == 0
        assert await until_denied(limiter, REQUESTS) == 0
        await limiter.settle(held, ONE)
        await reserved(limiter, CALLS)

    async def test_what_was_let_through_alone_still_counts_when_the_server_is_back(
        self, own_server: RedisServer, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        inner = shared(connection, clock, books)
        limiter = DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=1)
        await reserved(limiter, REQUESTS)
        own_server.stop()
        held = await reserved(limiter, CALLS, TOKENS, amount=Amount(1_000))
        own_server.start()
        await self.back(connection, clock)
        assert limiter.mode == "shared"
        await reserved(limiter, CALLS)
        await denied(limiter, CALLS)
        await denied(limiter, TOKENS, amount=Amount(10_000))
        await limiter.settle(held, Amount(1_000))
        await reserved(limiter, CALLS)

    async def test_a_server_that_is_there_from_the_start_leaves_no_node_with_a_share(
        self, own_server: RedisServer, clock: FakeClock, books: Books
    ) -> None:
        connection = RedisConnection(RedisSettings(own_server.url), clock)
        inner = shared(connection, clock, books)
        limiter = DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=4)
        await connection.start()
        assert await until_denied(limiter, Limit("provider:up:calls", "calls", "moment", 8)) == 8
        await connection.aclose()

    async def test_what_was_spent_alone_is_told_to_the_server_when_it_is_back(
        self, own_server: RedisServer, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        inner = shared(connection, clock, books)
        limiter = DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=1)
        await limiter.settle(await reserved(limiter, BUDGET, amount=Amount(dollars=3)), Amount(dollars=3))
        own_server.stall()
        during = await reserved(limiter, BUDGET, amount=Amount(dollars=3))
        await limiter.settle(during, Amount(dollars=3))
        own_server.go_on()
        await self.back(connection, clock)
        assert isinstance(await limiter.reserve((BUDGET,), Amount(dollars=4.5)), Denial)
        elsewhere = shared(connection, clock, books)
        # What it had been asked when it stalled it does after all: nobody renews that.
        clock.advance(LEASE + 1)
        assert isinstance(await elsewhere.reserve((BUDGET,), Amount(dollars=4.5)), Denial)
        assert isinstance(await elsewhere.reserve((BUDGET,), Amount(dollars=3.9)), Reservation)

    async def test_who_leaves_while_the_server_is_told_of_it_does_not_make_it_forgotten(
        self, own_server: RedisServer, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        inner = shared(connection, clock, books)
        limiter = DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=1)
        await limiter.settle(await reserved(limiter, BUDGET, amount=Amount(dollars=3)), Amount(dollars=3))
        own_server.stall()
        during = await reserved(limiter, BUDGET, amount=Amount(dollars=3))
        await limiter.settle(during, Amount(dollars=3))
        own_server.go_on()
        await self.back(connection, clock)
        # All connections are in use, so that it has to wait for one.
        busy = [asyncio.create_task(connection.run(lambda redis: redis.blpop(["none"], 0.1))) for _ in range(16)]
        await asyncio.sleep(0)
        leaving = asyncio.create_task(limiter.reserve((BUDGET,), Amount(dollars=0.1)))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, *busy, return_exceptions=True)
        await limiter.settle(await reserved(limiter, BUDGET, amount=Amount(dollars=0.1)), Amount(dollars=0.1))
        elsewhere = shared(connection, clock, books)
        clock.advance(LEASE + 1)
        assert isinstance(await elsewhere.reserve((BUDGET,), Amount(dollars=4.5)), Denial)

    async def test_going_and_coming_is_told_in_the_log_once_each(
        self,
        own_server: RedisServer,
        connection: RedisConnection,
        clock: FakeClock,
        books: Books,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        inner = shared(connection, clock, books)
        limiter = DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=1)
        own_server.stop()
        with caplog.at_level("INFO", "cauce.stores"):
            for _ in range(20):
                await limiter.settle(await reserved(limiter, CALLS), ONE)
            own_server.start()
            await self.back(connection, clock)
            await limiter.settle(await reserved(limiter, CALLS), ONE)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    async def test_one_that_stalls_holds_nobody_up_for_long_and_then_nobody_at_all(
        self, own_server: RedisServer, connection: RedisConnection, clock: FakeClock, books: Books
    ) -> None:
        inner = shared(connection, clock, books)
        limiter = DegradedLimiter(inner, InprocLimiter(clock, books.spent), connection, clock, nodes=1)
        many = Limit("provider:up:calls", "calls", "moment", 1_000)
        own_server.stall()
        async with asyncio.timeout(10):
            await asyncio.gather(*[reserved(limiter, many) for _ in range(100)])
            for _ in range(100):
                await reserved(limiter, many)
        own_server.go_on()


async def until_listening(connection: RedisConnection) -> None:
    """Return once somebody has subscribed."""
    channel = connection.key("room")
    while not (await connection.run(lambda redis: redis.pubsub_numsub(channel)))[0][1]:
        await asyncio.sleep(0)
