"""Every stream log agrees with a model: a list of texts, an epoch and two flags."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cauce.domain.delta import Finish, Text
from cauce.domain.stream import Commit, Erased, Hold, Record, Whose
from cauce.ports.stream_log import Cancelled, Fenced, StreamLog
from cauce.stores.followed_log import SharedLogOptions
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_log import PostgresStreamLog
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.redis.stream_log import RedisStreamLog
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import CANCELLED, KEY, LEASE, created, whole
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis

Opened = Callable[[FakeClock], AbstractAsyncContextManager[Callable[[], AbstractAsyncContextManager[StreamLog]]]]
"""A place for records, empty; and what opens a log over them, as often as one likes."""


class LogMachine(RuleBasedStateMachine):
    """One stream. `records` is what was appended after record 1, each with its epoch."""

    def __init__(self, place: Opened) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.stack = contextlib.AsyncExitStack()
        self.place = place
        self.records: list[tuple[int, str]] = []
        self.epoch = 1
        self.cancelled = False
        self.erased = False
        self.ended = False

    @initialize(early=st.booleans())
    def begin(self, early: bool) -> None:
        async def begun() -> None:
            self.open = await self.stack.enter_async_context(self.place(self.clock))
            self.log = await self.stack.enter_async_context(self.open())
            if early:
                assert await self.log.request_cancel(KEY) is None
                self.log = await self.stack.enter_async_context(self.open())
                self.cancelled = True
            self.hold = await created(self.log)

        self.runner.run(begun())

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    def append(self, hold: Hold, commit: Commit) -> type[Exception] | None:
        try:
            fresh = self.runner.run(self.log.append(hold, commit))
        except (Fenced, Cancelled) as refused:
            return type(refused)
        self.hold = fresh
        return None

    @property
    def refusal(self) -> type[Exception] | None:
        """What content meets now."""
        return Fenced if self.ended else Cancelled if self.cancelled else None

    @rule(words=st.lists(st.text(st.characters(codec="utf-8"), max_size=3), max_size=3))
    def write(self, words: list[str]) -> None:
        refused = self.append(self.hold, Commit(tuple([Text(word) for word in words]), "running"))
        assert refused is self.refusal
        if refused is None:
            self.records += [(self.epoch, word) for word in words]

    @rule(behind=st.integers(1, 3))
    def write_with_a_stale_tail(self, behind: int) -> None:
        stale = Hold(KEY, self.hold.epoch, self.hold.tail - behind)
        assert self.append(stale, Commit((Text("stale"),), "running")) is Fenced

    @rule(off=st.sampled_from([-1, 1]), ending=st.booleans())
    def write_in_another_epoch(self, off: int, ending: bool) -> None:
        stale = Hold(KEY, self.hold.epoch + off, self.hold.tail)
        assert self.append(stale, CANCELLED if ending else Commit((Text("zombie"),), "running")) is Fenced

    @rule()
    def cancel(self) -> None:
        self.runner.run(self.log.request_cancel(KEY))
        self.cancelled = self.cancelled or not self.ended

    @precondition(lambda self: not self.ended)
    @rule(whose=st.sampled_from([Whose(KEY.principal), Whose(KEY.principal, id=KEY.id)]))
    def erase(self, whose: Whose) -> None:
        assert self.runner.run(self.log.erase(whose)) == Erased(open=(KEY,))
        self.cancelled = self.erased = True

    @precondition(lambda self: self.records or self.cancelled)
    @rule()
    def finish(self) -> None:
        outcome = "cancelled" if self.cancelled else "completed"
        through = () if self.cancelled else ("running",)
        refused = self.append(self.hold, Commit((Finish("stop", outcome=outcome),), outcome, through))
        assert refused is (Fenced if self.ended else None)
        self.ended = True

    @rule(released=st.booleans(), node=st.sampled_from(["b", "c"]))
    def take_over(self, released: bool, node: str) -> None:
        if released:
            self.runner.run(self.log.release([self.hold]))
        else:
            self.clock.advance(LEASE + 1)
        orphans = self.runner.run(self.log.orphans(10))
        assert [head.key for head in orphans] == ([] if self.ended else [KEY])
        for head in orphans:
            hold = self.runner.run(self.log.claim(head, node))
            assert hold == Hold(KEY, self.epoch + 1, len(self.records) + 1)
            assert self.runner.run(self.log.claim(head, node)) is None
            self.hold = hold
            self.epoch += 1

    @rule()
    def renew(self) -> None:
        (renewed,) = self.runner.run(self.log.renew([self.hold]))
        assert renewed.verdict == ("lost" if self.ended else "cancel" if self.cancelled else "kept")

    # One that is erased goes with the next sweep after its end: that is the contract's.
    @precondition(lambda self: not (self.erased and self.ended))
    @rule()
    def sweep(self) -> None:
        assert self.runner.run(self.log.sweep(10)) == 0

    @rule()
    def reopen(self) -> None:
        async def again() -> StreamLog:
            return await self.stack.enter_async_context(self.open())

        self.log = self.runner.run(again())

    @rule(after=st.integers(0, 8), limit=st.integers(1, 4))
    def read(self, after: int, limit: int) -> None:
        found = self.runner.run(self.log.read(KEY, after, limit))
        assert list(found) == self.everything[after : after + limit]

    @property
    def everything(self) -> list[Record]:
        return self.runner.run(whole(self.log))

    @invariant()
    def log_is_the_model(self) -> None:
        records = self.everything
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        texts = [(record.epoch, record.delta.text) for record in records if isinstance(record.delta, Text)]
        assert texts == self.records
        ends = [isinstance(record.delta, Finish) for record in records]
        assert sum(ends) == int(self.ended) and ends[-1] == self.ended
        head = self.runner.run(self.log.head(KEY))
        assert head is not None and (head.tail, head.epoch) == (len(records), self.epoch)
        assert (head.cancel_requested, head.ended) == (self.cancelled, self.ended)


def agree(place: Opened, examples: int) -> None:
    """Fails where the log and the model disagree."""
    run_state_machine_as_test(
        lambda: LogMachine(place), settings=settings(max_examples=examples, stateful_step_count=25, deadline=None)
    )


@contextlib.asynccontextmanager
async def in_memory(clock: FakeClock) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[StreamLog]]]:
    log = InprocStreamLog(clock, lease=LEASE)

    @contextlib.asynccontextmanager
    async def open() -> AsyncIterator[StreamLog]:
        yield log

    yield open


def test_log_in_memory_agrees_with_the_model() -> None:
    agree(in_memory, 60)


def test_log_on_disk_agrees_with_the_model(tmp_path: Path) -> None:
    numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def on_disk(clock: FakeClock) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[StreamLog]]]:
        path = tmp_path / str(next(numbers)) / "streams.db"

        @contextlib.asynccontextmanager
        async def open() -> AsyncIterator[StreamLog]:
            options = StreamLogOptions(lease=LEASE, synchronous="normal")
            log = SqliteStreamLog(path, clock, "a", options)
            await log.start()
            yield log
            await log.stop()

        yield open

    agree(on_disk, 30)


def test_log_in_redis_agrees_with_the_model() -> None:
    numbers = itertools.count()

    with running_redis() as server:

        @contextlib.asynccontextmanager
        async def in_redis(clock: FakeClock) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[StreamLog]]]:
            connection = RedisConnection(RedisSettings(server.url, prefix=f"model{next(numbers)}:"), clock)
            await connection.start()

            @contextlib.asynccontextmanager
            async def open() -> AsyncIterator[StreamLog]:
                log = RedisStreamLog(connection, clock, "a", SharedLogOptions(lease=LEASE), time=clock.now)
                yield log
                await log.stop()

            yield open
            await connection.aclose()

        agree(in_redis, 30)


def test_log_in_postgresql_agrees_with_the_model() -> None:
    numbers = itertools.count()

    with running_postgres() as url:

        @contextlib.asynccontextmanager
        async def in_postgresql(
            clock: FakeClock,
        ) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[StreamLog]]]:
            settings = PostgresSettings(url, f"model{next(numbers)}")

            @contextlib.asynccontextmanager
            async def open() -> AsyncIterator[StreamLog]:
                options = SharedLogOptions(lease=LEASE)
                log = PostgresStreamLog(settings, clock, "a", options, time=clock.now)
                await log.start()
                yield log
                await log.stop()

            yield open

        agree(in_postgresql, 15)


@pytest.mark.anyio
@pytest.mark.parametrize("lease", [None, LEASE])
async def test_file_of_an_earlier_process_has_orphans_at_once_if_it_is_ours_alone(
    tmp_path: Path, anyio_backend: str, lease: float | None
) -> None:
    clock = FakeClock()
    first = SqliteStreamLog(tmp_path / "streams.db", clock, "first start", StreamLogOptions(lease=lease))
    await first.start()
    await created(first)
    assert await first.orphans(10) == []
    await first.stop()
    second = SqliteStreamLog(tmp_path / "streams.db", clock, "second start", StreamLogOptions(lease=lease))
    await second.start()
    orphans = await second.orphans(10)
    assert len(orphans) == (1 if lease is None else 0)
    for head in orphans:
        assert await second.claim(head, "second start") == Hold(KEY, 2, 1)
        assert await second.orphans(10) == []
    await second.stop()
