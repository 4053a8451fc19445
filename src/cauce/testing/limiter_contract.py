"""What every limiter must do: one suite, run over each adapter.

    class TestMyLimiter(LimiterContract):
        @pytest.fixture
        async def limiter(self, clock, books): yield MyLimiter(clock, books.spent)

Needs pytest with the anyio plugin, and fixtures `clock` (`FakeClock`) and `books` (`Books`), what the ledger says was spent.
"""

import asyncio

import pytest

from cauce.ports.limiter import Amount, Denial, Limit, Limiter, Reservation
from cauce.testing.clock import FakeClock

DAY = 86_400.0
REQUESTS = Limit("key:default/web:requests/minute", "requests", "minute", 20)
TOKENS = Limit("provider:up:tokens/minute", "tokens", "minute", 10_000)
CALLS = Limit("provider:up:calls", "calls", "moment", 2)
BUDGET = Limit("key:default/web:dollars/day", "dollars", "day", 10.0)
MONTHLY = Limit("key:default/web:dollars/month", "dollars", "month", 100.0)
ONE = Amount()


class Books:
    """A ledger that says what a test has put into it."""

    def __init__(self) -> None:
        self.dollars = 0.0
        self.asked: list[tuple[str, float]] = []

    async def spent(self, limit: Limit, since: float) -> float:
        self.asked.append((limit.key, since))
        await asyncio.sleep(0)
        return self.dollars


async def reserved(limiter: Limiter, *limits: Limit, amount: Amount = ONE) -> Reservation:
    """A reservation that must be granted."""
    answer = await limiter.reserve(limits, amount)
    assert isinstance(answer, Reservation), f"denied: {answer}"
    return answer


async def denied(limiter: Limiter, *limits: Limit, amount: Amount = ONE) -> Denial:
    """A reservation that must be denied."""
    answer = await limiter.reserve(limits, amount)
    assert isinstance(answer, Denial), f"granted: {answer}"
    return answer


async def until_denied(limiter: Limiter, limit: Limit, amount: Amount = ONE) -> int:
    """How many are granted at this moment."""
    granted = 0
    while isinstance(await limiter.reserve((limit,), amount), Reservation):
        granted += 1
    return granted


class LimiterContract:
    """See the module."""

    pytestmark = pytest.mark.anyio

    async def test_nothing_that_is_limited_by_nothing_is_denied(self, limiter: Limiter) -> None:
        for _ in range(100):
            await reserved(limiter)

    async def test_a_tenth_of_a_minute_s_requests_may_come_at_once(self, limiter: Limiter) -> None:
        assert await until_denied(limiter, REQUESTS) == 2

    async def test_after_the_wait_it_tells_there_is_room_for_one_more(self, limiter: Limiter, clock: FakeClock) -> None:
        await until_denied(limiter, REQUESTS)
        denial = await denied(limiter, REQUESTS)
        assert denial.limit == REQUESTS and denial.wait is not None and 0 < denial.wait < 60
        clock.advance(denial.wait + 0.001)
        assert await until_denied(limiter, REQUESTS) == 1

    async def test_no_minute_of_a_flood_has_more_requests_than_the_limit(
        self, limiter: Limiter, clock: FakeClock
    ) -> None:
        times: list[float] = []
        for _ in range(1300):
            times += [clock.now()] * await until_denied(limiter, REQUESTS)
            clock.advance(0.1)
        busiest = max([sum([time <= other < time + 60 for other in times]) for time in times])
        assert 18 <= busiest <= 20

    async def test_one_request_a_minute_is_one_request_a_minute(self, limiter: Limiter, clock: FakeClock) -> None:
        once = Limit("key:default/rare:requests/minute", "requests", "minute", 1)
        await reserved(limiter, once)
        clock.advance(59)
        await denied(limiter, once)
        clock.advance(3)
        await reserved(limiter, once)

    async def test_all_limits_are_debited_or_none(self, limiter: Limiter) -> None:
        await reserved(limiter, CALLS)
        await reserved(limiter, CALLS)
        for _ in range(5):
            await denied(limiter, REQUESTS, CALLS)
        assert await until_denied(limiter, REQUESTS) == 2

    async def test_of_two_that_deny_the_one_with_the_longer_wait_is_told(self, limiter: Limiter) -> None:
        slow = Limit("key:default/slow:requests/minute", "requests", "minute", 2)
        await until_denied(limiter, slow)
        await until_denied(limiter, REQUESTS)
        assert (await denied(limiter, slow, REQUESTS)).limit == slow
        assert (await denied(limiter, REQUESTS, slow)).limit == slow

    async def test_a_released_request_was_never_made(self, limiter: Limiter) -> None:
        for _ in range(10):
            await limiter.release(await reserved(limiter, REQUESTS))
        assert await until_denied(limiter, REQUESTS) == 2

    async def test_a_request_released_late_gives_no_room_that_had_come_back_by_itself(
        self, limiter: Limiter, clock: FakeClock
    ) -> None:
        late = await reserved(limiter, REQUESTS)
        clock.advance(4)
        await reserved(limiter, REQUESTS)
        await limiter.release(late)
        assert await until_denied(limiter, REQUESTS) == 1

    async def test_tokens_given_back_late_let_no_minute_have_more_than_the_limit(
        self, limiter: Limiter, clock: FakeClock
    ) -> None:
        lasting: list[Reservation] = []
        for _ in range(15):
            lasting.append(await reserved(limiter, TOKENS, amount=Amount(1_000)))
            clock.advance(7)
        used = 0
        for reservation in lasting:
            used += await until_denied(limiter, TOKENS, Amount(500)) * 500
            await limiter.settle(reservation, ONE)
        used += await until_denied(limiter, TOKENS, Amount(500)) * 500
        assert used == 10_000

    async def test_tokens_that_were_not_used_are_given_back(self, limiter: Limiter) -> None:
        for _ in range(10):
            await limiter.settle(await reserved(limiter, TOKENS, amount=Amount(900)), Amount(10))
        denial = await denied(limiter, TOKENS, amount=Amount(950))
        assert denial.wait is not None and denial.wait < 1

    async def test_tokens_that_were_used_beyond_the_estimate_are_owed(self, limiter: Limiter, clock: FakeClock) -> None:
        await limiter.settle(await reserved(limiter, TOKENS, amount=Amount(100)), Amount(5_000))
        denial = await denied(limiter, TOKENS, amount=Amount(100))
        assert denial.wait is not None and denial.wait > 20
        clock.advance(denial.wait + 0.001)
        await reserved(limiter, TOKENS, amount=Amount(100))

    async def test_more_tokens_than_may_come_at_once_pass_after_a_pause(
        self, limiter: Limiter, clock: FakeClock
    ) -> None:
        await reserved(limiter, TOKENS, amount=Amount(1_000))
        denial = await denied(limiter, TOKENS, amount=Amount(4_000))
        assert denial.wait is not None
        clock.advance(denial.wait + 0.001)
        await reserved(limiter, TOKENS, amount=Amount(4_000))
        await denied(limiter, TOKENS, amount=Amount(1))

    async def test_more_tokens_than_a_whole_minute_has_pass_as_all_of_them(
        self, limiter: Limiter, clock: FakeClock
    ) -> None:
        await reserved(limiter, TOKENS, amount=Amount(50_000))
        denial = await denied(limiter, TOKENS, amount=Amount(50_000))
        assert denial.wait is not None and 60 < denial.wait < 130
        clock.advance(denial.wait + 0.001)
        await reserved(limiter, TOKENS, amount=Amount(50_000))

    async def test_calls_at_once_wait_for_one_to_end(self, limiter: Limiter) -> None:
        first = await reserved(limiter, CALLS)
        await reserved(limiter, CALLS)
        assert await denied(limiter, CALLS) == Denial(CALLS, None)
        await limiter.settle(first, ONE)
        await reserved(limiter, CALLS)
        await denied(limiter, CALLS)

    async def test_who_was_denied_is_told_when_a_call_has_ended(self, limiter: Limiter) -> None:
        told = asyncio.Event()
        keys: list[str] = []

        def listener(key: str) -> None:
            keys.append(key)
            told.set()

        limiter.on_room(listener)
        held = [await reserved(limiter, CALLS), await reserved(limiter, CALLS)]
        await denied(limiter, CALLS)
        await limiter.release(held[0])
        async with asyncio.timeout(10):
            await told.wait()
        assert keys == [CALLS.key]

    async def test_a_whole_budget_is_spent_and_no_more_whoever_comes_at_once(self, limiter: Limiter) -> None:
        answers = await asyncio.gather(*[limiter.reserve((BUDGET,), Amount(dollars=0.5)) for _ in range(50)])
        granted = [answer for answer in answers if isinstance(answer, Reservation)]
        assert len(granted) == 20
        for reservation in granted:
            await limiter.settle(reservation, Amount(dollars=0.5))
        denial = await denied(limiter, BUDGET, amount=Amount(dollars=0.01))
        assert denial.limit == BUDGET and denial.wait is not None and denial.wait <= DAY

    async def test_calls_that_cost_next_to_nothing_use_a_budget_up_too(self, limiter: Limiter) -> None:
        small = Limit(BUDGET.key, "dollars", "day", 2e-6)
        for _ in range(10):
            held = await reserved(limiter, small, amount=Amount(dollars=2e-7))
            await limiter.settle(held, Amount(dollars=2e-7))
        await denied(limiter, small, amount=Amount(dollars=2e-7))

    async def test_a_budget_that_is_only_held_may_have_room_when_a_call_ends(self, limiter: Limiter) -> None:
        held = await reserved(limiter, BUDGET, amount=Amount(dollars=9))
        assert (await denied(limiter, BUDGET, amount=Amount(dollars=2))).wait is None
        await limiter.settle(held, Amount(dollars=1))
        await reserved(limiter, BUDGET, amount=Amount(dollars=9))

    async def test_a_budget_goes_on_from_what_the_ledger_knows(self, limiter: Limiter, books: Books) -> None:
        books.dollars = 9.5
        await denied(limiter, BUDGET, amount=Amount(dollars=1))
        await reserved(limiter, BUDGET, amount=Amount(dollars=0.5))
        assert len(books.asked) == 1

    async def test_the_ledger_is_asked_for_the_day_and_for_the_month(
        self, limiter: Limiter, books: Books, clock: FakeClock
    ) -> None:
        # 2023-11-14 22:13:20 UTC.
        await reserved(limiter, BUDGET, MONTHLY, amount=Amount(dollars=1))
        assert books.asked == [(BUDGET.key, 1_699_920_000.0), (MONTHLY.key, 1_698_796_800.0)]

    async def test_a_new_day_begins_with_a_whole_budget(self, limiter: Limiter, books: Books, clock: FakeClock) -> None:
        held = await reserved(limiter, BUDGET, amount=Amount(dollars=10))
        await limiter.settle(held, Amount(dollars=10))
        denial = await denied(limiter, BUDGET, amount=Amount(dollars=10))
        assert denial.wait is not None
        clock.advance(denial.wait - 1)
        await denied(limiter, BUDGET, amount=Amount(dollars=10))
        clock.advance(2)
        await reserved(limiter, BUDGET, amount=Amount(dollars=10))

    async def test_a_call_over_midnight_counts_for_the_day_it_ends_on(self, limiter: Limiter, clock: FakeClock) -> None:
        clock.advance(DAY - clock.now() % DAY - 5)
        lasting = await reserved(limiter, BUDGET, amount=Amount(dollars=6))
        clock.advance(10)
        assert (await denied(limiter, BUDGET, amount=Amount(dollars=5))).wait is None
        await limiter.settle(lasting, Amount(dollars=6))
        assert (await denied(limiter, BUDGET, amount=Amount(dollars=5))).wait is not None
        await reserved(limiter, BUDGET, amount=Amount(dollars=4))

    async def test_the_upstream_s_own_word_holds_until_its_time_is_over(
        self, limiter: Limiter, clock: FakeClock
    ) -> None:
        await limiter.tighten(REQUESTS, 0, 30)
        denial = await denied(limiter, REQUESTS)
        assert denial.wait is not None and 29 < denial.wait <= 30
        clock.advance(30.001)
        await reserved(limiter, REQUESTS)

    async def test_what_the_upstream_says_is_left_is_all_there_is(self, limiter: Limiter, clock: FakeClock) -> None:
        await limiter.tighten(TOKENS, 500, 20)
        await reserved(limiter, TOKENS, amount=Amount(400))
        denial = await denied(limiter, TOKENS, amount=Amount(200))
        assert denial.wait is not None and 19 < denial.wait <= 20
        await reserved(limiter, TOKENS, amount=Amount(100))
        clock.advance(20.001)
        await reserved(limiter, TOKENS, amount=Amount(1_000))

    async def test_a_friendlier_word_of_the_upstream_loosens_nothing(self, limiter: Limiter) -> None:
        await limiter.tighten(REQUESTS, 0, 30)
        await limiter.tighten(REQUESTS, 100, 60)
        await limiter.tighten(REQUESTS, 5, 10)
        denial = await denied(limiter, REQUESTS)
        assert denial.wait is not None and denial.wait > 29

    async def test_a_limit_without_an_end_holds_only_what_the_upstream_says(
        self, limiter: Limiter, clock: FakeClock
    ) -> None:
        endless = Limit("upstream:up/m:requests/minute", "requests", "minute", float("inf"))
        tokens = Limit("upstream:up/m:tokens/minute", "tokens", "minute", float("inf"))
        for _ in range(100):
            await limiter.settle(await reserved(limiter, endless, tokens, amount=Amount(1e6)), Amount(2e6))
        await limiter.tighten(endless, 1, 60)
        await reserved(limiter, endless, tokens, amount=Amount(1e6))
        await denied(limiter, endless, tokens, amount=Amount(1e6))
