"""What every ledger that can be read must do: one suite, run over each adapter.

    class TestMyLedger(LedgerContract):
        @pytest.fixture
        async def books(self, clock): ...     # a `ports.ledger.Ledger`, `Usage` and `Feedback` in one

Needs pytest with the anyio plugin and a fixture `clock` of type `FakeClock`.
"""

from typing import Any, Protocol

import msgspec
import pytest

from cauce.domain.delta import Outcome
from cauce.domain.errors import ErrorCode, InvalidRequest
from cauce.domain.histogram import RELATIVE_ERROR, percentiles
from cauce.domain.request import Scope
from cauce.domain.usage import Usage as Used
from cauce.ports.ledger import Entry, Ledger
from cauce.ports.usage import ALL_TENANTS, Dimension, Feedback, Group, Holder, Opinion, Query, Report, Tenants, Usage
from cauce.testing.clock import FakeClock

OWNER = Scope(tenant="a", key="web")
DAY = 86400.0


class Books(Ledger, Usage, Feedback, Protocol):
    """What the suite is run over."""


def entry(clock: FakeClock, number: int = 1, **changed: Any) -> Entry:
    """An attempt that has completed now, but for what is `changed`: 100 tokens in, 20 out, 0.01 USD, 2 s."""
    made = Entry(
        at=clock.now(),
        request_id=f"req_{number}",
        scope=OWNER,
        provider="openai",
        model="gpt",
        level="primary",
        outcome="completed",
        error_code=None,
        usage=Used(100, 20, 40, 5, 7, 0.01, "priced"),
        latency=2.0,
        first_delta=0.5,
        listed_cost=0.01,
        price_snapshot="2026-11",
        stream_id=f"str_{number}",
    )
    return msgspec.structs.replace(made, **changed)


def failed(clock: FakeClock, number: int = 1, **changed: Any) -> Entry:
    """An attempt that has failed before anything came."""
    outcome: Outcome = "failed"
    code: ErrorCode = "overloaded"
    return entry(
        clock,
        number,
        **{"outcome": outcome, "error_code": code, "usage": Used(estimated=True), "first_delta": None, **changed},
    )


async def report(
    books: Usage, clock: FakeClock, *by: Dimension, tenant: Tenants = "a", days: float = 3.0, **where: str
) -> Report:
    """What the last `days` came to."""
    since, until = clock.now() - days * DAY, clock.now() + 1
    equal: Any = tuple(where.items())
    return await books.report(Query(tenant, since, until, by, equal))


def named(report: Report) -> dict[tuple[str, ...], Group]:
    """The groups, by their values."""
    return {group.by: group for group in report.groups}


class LedgerContract:
    """See the module."""

    pytestmark = pytest.mark.anyio

    async def test_nothing_recorded_is_nothing_used(self, books: Books, clock: FakeClock) -> None:
        told = await report(books, clock, "model")
        assert told.total == Group() and told.groups == ()

    async def test_what_is_recorded_counts_at_once(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock))
        sums = (await report(books, clock)).total.sums
        assert (sums.requests, sums.attempts, sums.input_tokens, sums.output_tokens) == (1, 1, 100, 20)
        assert (sums.cached_tokens, sums.cache_write_tokens, sums.reasoning_tokens) == (40, 5, 7)
        assert sums.cost == pytest.approx(0.01)

    async def test_groups_add_up_to_the_total(self, books: Books, clock: FakeClock) -> None:
        for number in range(12):
            scope = Scope("a", f"key{number % 3}")
            books.record(entry(clock, number, model=f"m{number % 2}", scope=scope))
        told = await report(books, clock, "model", "key")
        assert len(told.groups) == 6 and told.total.sums.attempts == 12
        assert sum(group.sums.input_tokens for group in told.groups) == told.total.sums.input_tokens == 1200

    async def test_groups_are_named_by_what_they_have_in_common(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, endpoint="embeddings", deployment="eu", level="fallback"))
        for dimension, value in (
            ("provider", "openai"),
            ("model", "openai/gpt"),
            ("endpoint", "embeddings"),
            ("key", "web"),
            ("level", "fallback"),
            ("deployment", "eu"),
            ("tenant", "a"),
            ("day", "2023-11-14"),
        ):
            assert list(named(await report(books, clock, dimension))) == [(value,)]  # type: ignore[arg-type]

    async def test_request_with_several_attempts_is_one_request(self, books: Books, clock: FakeClock) -> None:
        books.record(failed(clock, 1))
        books.record(entry(clock, 1, n=2, provider="anthropic", model="haiku", level="fallback"))
        told = await report(books, clock, "provider")
        assert (told.total.sums.requests, told.total.sums.attempts) == (1, 2)
        groups = named(told)
        assert (groups[("openai",)].sums.requests, groups[("anthropic",)].sums.requests) == (1, 0)

    async def test_request_is_answered_where_an_attempt_completed(self, books: Books, clock: FakeClock) -> None:
        for number in range(5):
            one = {"conversation_id": f"c{number % 2}", "scope": Scope("a", "web", "ana")}
            books.record(failed(clock, number, **one))
            books.record(entry(clock, number, n=2, provider="anthropic", model="haiku", level="fallback", **one))
        books.record(entry(clock, 5, usage=Used(10, 5), provider="anthropic", model="haiku", level="cache"))
        books.record(entry(clock, 6, outcome="incomplete", provider="anthropic", model="haiku"))
        told = await report(books, clock, "level")
        answered = {by[0]: (group.sums.requests, group.sums.answered) for by, group in named(told).items()}
        assert answered == {"primary": (6, 0), "fallback": (0, 5), "cache": (1, 1)}
        assert (told.total.sums.requests, told.total.sums.answered) == (7, 6)
        assert (await report(books, clock, user="ana")).total.sums.answered == 5
        by_conversation = named(await report(books, clock, "conversation"))
        assert {by[0]: group.sums.answered for by, group in by_conversation.items()} == {"c0": 3, "c1": 2}

    async def test_part_that_is_unpriced_tells_how_much_of_it_was_answered(
        self, books: Books, clock: FakeClock
    ) -> None:
        books.record(entry(clock, 1, usage=Used(10, 5)))
        books.record(entry(clock, 2, usage=Used(10, 5, estimated=True), outcome="incomplete"))
        total = (await report(books, clock)).total
        assert (total.unpriced.attempts, total.unpriced.answered) == (2, 1)
        assert (total.estimated.attempts, total.estimated.answered) == (1, 0)

    async def test_failures_are_counted_by_code(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, 1))
        books.record(failed(clock, 2))
        books.record(failed(clock, 3, error_code="timeout"))
        books.record(failed(clock, 4, outcome="cancelled", error_code=None))
        total = (await report(books, clock)).total
        assert total.outcomes == {"completed": 1, "failed": 2, "cancelled": 1}
        assert total.errors == {"overloaded": 1, "timeout": 1}
        assert total.error_rate == 0.5

    async def test_estimated_and_unpriced_stand_apart(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, 1))
        books.record(entry(clock, 2, usage=Used(10, 5, cost=0.5, cost_source="estimated", estimated=True)))
        books.record(entry(clock, 3, usage=Used(1000, 500)))
        total = (await report(books, clock)).total
        assert (total.estimated.attempts, total.estimated.input_tokens, total.estimated.cost) == (1, 10, 0.5)
        assert (total.unpriced.attempts, total.unpriced.tokens) == (1, 1500)
        assert total.sums.cost == pytest.approx(0.51)

    async def test_attempt_that_used_nothing_is_neither_estimated_nor_unpriced(
        self, books: Books, clock: FakeClock
    ) -> None:
        books.record(failed(clock))
        total = (await report(books, clock)).total
        assert (total.estimated.attempts, total.unpriced.attempts) == (0, 0)

    async def test_answer_out_of_the_cache_used_nothing(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, level="cache"))
        total = (await report(books, clock)).total
        assert (total.sums.requests, total.sums.tokens, total.sums.cost) == (1, 0, 0.0)
        assert total.spread.latency == total.spread.first_delta == {} and sum(total.spread.request.values()) == 1

    async def test_tenants_see_only_their_own(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, 1))
        books.record(entry(clock, 2, scope=Scope("b", "web")))
        assert (await report(books, clock)).total.sums.attempts == 1
        assert (await report(books, clock, tenant="nobody")).total.sums.attempts == 0
        told = await report(books, clock, "tenant", tenant=ALL_TENANTS)
        assert {by: group.sums.attempts for by, group in named(told).items()} == {("a",): 1, ("b",): 1}

    async def test_only_what_fits_is_added_up(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, 1))
        books.record(entry(clock, 2, model="mini"))
        books.record(entry(clock, 3, scope=Scope("a", "other")))
        assert (await report(books, clock, model="openai/gpt")).total.sums.attempts == 2
        assert (await report(books, clock, model="openai/gpt", key="web")).total.sums.attempts == 1
        assert (await report(books, clock, provider="none")).total.sums.attempts == 0

    async def test_users_are_told_apart_by_day(self, books: Books, clock: FakeClock) -> None:
        for user in ("ana", "ana", "bo", None):
            books.record(entry(clock, scope=Scope("a", "web", user)))
        clock.advance(DAY)
        books.record(entry(clock, scope=Scope("a", "web", "ana")))
        told = await report(books, clock, "user")
        assert {by: group.sums.attempts for by, group in named(told).items()} == {("ana",): 3, ("bo",): 1}
        assert (await report(books, clock, "user", "day")).total.sums.attempts == 4
        assert (await report(books, clock, "user", days=0.1)).total.sums.attempts == 1

    async def test_users_by_model_are_refused_by_name(self, books: Books, clock: FakeClock) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await report(books, clock, "user", "model")
        assert refused.value.field == "group_by"

    async def test_conversations_are_told_apart_from_everything_else_and_by_it(
        self, books: Books, clock: FakeClock
    ) -> None:
        ana = Scope("a", "web", "ana")
        books.record(failed(clock, 1, conversation_id="c1", scope=ana))
        books.record(entry(clock, 1, conversation_id="c1", scope=ana, n=2, model="mini"))
        books.record(entry(clock, 2, conversation_id="c1", level="cache"))
        books.record(entry(clock, 3, conversation_id="c2", endpoint="embeddings"))
        books.record(entry(clock, 4, conversation_id="c1", scope=Scope("b", "web")))
        books.record(entry(clock, 5))
        told = await report(books, clock, "conversation")
        figures = [
            (group.by, group.sums.requests, group.sums.attempts, group.sums.input_tokens) for group in told.groups
        ]
        assert figures == [(("c1",), 2, 3, 100), (("c2",), 1, 1, 100)] and told.total.sums.attempts == 4
        assert (told.since % DAY, told.until % DAY) == (0, 0)
        by_model = named(await report(books, clock, "model", "user", conversation="c1"))
        assert {by: group.sums.attempts for by, group in by_model.items()} == {
            ("openai/gpt", "ana"): 1,
            ("openai/mini", "ana"): 1,
            ("openai/gpt", ""): 1,
        }
        assert list(named(await report(books, clock, "conversation", user="ana"))) == [("c1",)]
        assert list(named(await report(books, clock, "conversation", endpoint="embeddings"))) == [("c2",)]
        assert (await report(books, clock, conversation="c3")).total.sums.attempts == 0
        assert (await report(books, clock, conversation="c2")).total.sums.cost == pytest.approx(0.01)

    async def test_conversations_are_told_day_by_day(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, 1, conversation_id="c1"))
        clock.advance(DAY)
        books.record(entry(clock, 2, conversation_id="c1"))
        told = await report(books, clock, "day", conversation="c1")
        assert [(group.by, group.sums.attempts) for group in told.groups] == [
            (("2023-11-14",), 1),
            (("2023-11-15",), 1),
        ]
        assert (await report(books, clock, "conversation", days=0.1)).total.sums.attempts == 1

    async def test_times_are_kept_to_the_hour(self, books: Books, clock: FakeClock) -> None:
        start = clock.now() // 3600 * 3600
        books.record(entry(clock, 1, at=start - 1))
        books.record(entry(clock, 2, at=start))
        books.record(entry(clock, 3, at=start + 3599))
        books.record(entry(clock, 4, at=start + 3600))
        clock.advance(2 * DAY)
        told = await books.report(Query("a", start + 10, start + 20))
        assert (told.since, told.until, told.total.sums.attempts) == (start, start + 3600, 2)

    async def test_any_span_of_days_and_months_adds_up(self, books: Books, clock: FakeClock) -> None:
        began = clock.now()
        for day in range(100):
            books.record(entry(clock, day, at=began + day * DAY))
        clock.advance(100 * DAY)
        for first, days in ((0, 100), (3, 1), (10, 40), (20, 61), (99, 1), (16, 32)):
            since = began + first * DAY
            told = await books.report(Query("a", since, since + days * DAY - 3600, ("day",)))
            assert told.total.sums.attempts == len(told.groups) == days
            whole = await books.report(Query("a", since, since + days * DAY - 3600))
            assert whole.total.sums.attempts == days

    async def test_percentiles_are_within_their_error(self, books: Books, clock: FakeClock) -> None:
        for number in range(1, 201):
            books.record(entry(clock, number, latency=number / 100, first_delta=number / 1000))
        spread = (await report(books, clock)).total.spread
        for counts, unit in ((spread.latency, 100), (spread.first_delta, 1000)):
            for share, told in zip((0.5, 0.95, 0.99), percentiles(counts, (0.5, 0.95, 0.99)), strict=True):
                assert told == pytest.approx(share * 200 / unit, rel=RELATIVE_ERROR * 1.001)

    async def test_latency_of_a_request_takes_in_its_failed_attempts_and_its_wait(
        self, books: Books, clock: FakeClock
    ) -> None:
        books.record(failed(clock, 1, latency=3.0, waited=10.0))
        clock.advance(5)
        books.record(entry(clock, 1, n=2, latency=4.0))
        spread = (await report(books, clock)).total.spread
        [attempt], [request] = percentiles(spread.latency, (0.5,)), percentiles(spread.request, (0.5,))
        assert attempt == pytest.approx(4.0, rel=RELATIVE_ERROR) and request == pytest.approx(18.0, rel=RELATIVE_ERROR)

    async def test_failed_attempts_are_not_in_the_percentiles(self, books: Books, clock: FakeClock) -> None:
        books.record(failed(clock, latency=500.0))
        assert (await report(books, clock)).total.spread.latency == {}

    async def test_spending_is_told_by_key_user_and_tenant(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, 1, scope=Scope("a", "web", "ana")))
        books.record(entry(clock, 2, scope=Scope("a", "app", "ana")))
        books.record(entry(clock, 3, scope=Scope("a", "app")))
        books.record(entry(clock, 4, scope=Scope("b", "app", "ana")))
        since = clock.now() // DAY * DAY
        assert await books.spent(Holder("tenant", "a"), "requests", since) == 3
        assert await books.spent(Holder("key", "a", "app"), "dollars", since) == pytest.approx(0.02)
        assert await books.spent(Holder("user", "a", "ana"), "tokens", since) == 240
        assert await books.spent(Holder("user", "a", "nobody"), "tokens", since) == 0

    async def test_spending_before_its_time_does_not_count(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, 1))
        clock.advance(DAY)
        books.record(entry(clock, 2))
        assert await books.spent(Holder("tenant", "a"), "requests", clock.now() // DAY * DAY) == 1

    async def test_feedback_is_joined_to_the_answer(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock, 1))
        books.record(entry(clock, 2, model="mini"))
        assert await books.give(OWNER, Opinion("str_1", "up"))
        assert await books.give(OWNER, Opinion("req_2", "down", 0.25, "no"))
        groups = named(await report(books, clock, "model"))
        good, bad = groups[("openai/gpt",)].votes, groups[("openai/mini",)].votes
        assert (good.up, good.down, good.mean_score) == (1, 0, None)
        assert (bad.up, bad.down, bad.mean_score) == (0, 1, 0.25)

    async def test_last_opinion_of_a_key_is_the_one_that_counts(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock))
        await books.give(OWNER, Opinion("str_1", "up", 1.0))
        await books.give(OWNER, Opinion("req_1", "down"))
        await books.give(Scope("a", "other"), Opinion("str_1", "down"))
        votes = (await report(books, clock)).total.votes
        assert (votes.up, votes.down, votes.scores) == (0, 2, 0)

    async def test_feedback_on_an_unknown_answer_is_refused(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock))
        assert not await books.give(OWNER, Opinion("str_2", "up"))
        assert not await books.give(Scope("b", "web"), Opinion("str_1", "up"))
        assert not await books.give(OWNER, Opinion("", "up"))

    async def test_feedback_goes_to_the_model_that_answered(self, books: Books, clock: FakeClock) -> None:
        books.record(failed(clock, 1))
        books.record(entry(clock, 1, n=2, provider="anthropic", model="haiku"))
        await books.give(OWNER, Opinion("req_1", "up"))
        groups = named(await report(books, clock, "provider"))
        assert (groups[("openai",)].votes.up, groups[("anthropic",)].votes.up) == (0, 1)

    async def test_approval_of_a_model_is_what_people_said(self, books: Books, clock: FakeClock) -> None:
        books.record(entry(clock))
        assert books.approval("openai/gpt") is None
        await books.give(OWNER, Opinion("str_1", "up", 0.5))
        votes = books.approval("openai/gpt")
        assert votes is not None and (votes.up, votes.down, votes.mean_score) == (1, 0, 0.5)
        assert books.approval("openai/mini") is None

    async def test_names_of_clients_choosing_do_no_harm(self, books: Books, clock: FakeClock) -> None:
        books.record(
            entry(clock, 1, scope=Scope("a", "web", "\ud800'; --\x00" + "x" * 5000), conversation_id="c" * 5000)
        )
        books.record(entry(clock, 2, stream_id="\ud800"))
        assert (await report(books, clock)).total.sums.attempts == 2
        for dimension in ("user", "conversation"):
            [group] = (await report(books, clock, dimension)).groups
            assert len(group.by[0]) == 200

    async def test_figures_beyond_reason_are_still_sums(self, books: Books, clock: FakeClock) -> None:
        for number in range(3):
            books.record(entry(clock, number, usage=Used(2**53, 2**53, cost=1e15, cost_source="reported")))
        assert (await report(books, clock)).total.sums.input_tokens == 3 * 2**53
