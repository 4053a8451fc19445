"""After an erasure nothing of it is anywhere: no byte in the files of a data folder, no key in Redis, no row in PostgreSQL."""

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from cauce.domain.delta import Text
from cauce.domain.errors import Gone
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.domain.stream import AttemptRow, Commit, Hold, NewStream, StreamKey, Upstream, Whose
from cauce.domain.usage import Usage
from cauce.ports.responses import KeptResponse
from cauce.ports.stream_log import StreamLog
from cauce.ports.usage import Opinion, Query
from cauce.stores.followed_log import SharedLogOptions
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.postgres.stream_log import PostgresStreamLog
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.stream_log import RedisStreamLog
from cauce.stores.sqlite.conversations import FILE as CONVERSATIONS
from cauce.stores.sqlite.conversations import SqliteConversations
from cauce.stores.sqlite.ledger import SqliteLedger
from cauce.stores.sqlite.responses import SqliteResponses
from cauce.stores.sqlite.settings import LedgerSettings
from cauce.stores.sqlite.stream_erasing import Erase
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.stores.sqlite.stream_tables import FILE
from cauce.system.clock import SystemClock
from cauce.testing.clock import FakeClock
from cauce.testing.conversations_contract import exchanged
from cauce.testing.ledger_contract import OWNER, entry
from cauce.testing.stream_samples import CANCELLED, END, LEASE
from tests.http import within
from tests.postgres_server import running_postgres

pytestmark = pytest.mark.anyio

CANARY = "canario-47fa"
HERS = Whose("tenant/key", "ana")
_NUMBERS = itertools.count()


def asked(id: str, user: str, words: str) -> NewStream:
    request = Request("auto", (Message("user", (TextPart(words),)),), user=user)
    return NewStream(StreamKey(HERS.principal, id), request, b"digest", 1_700_000_000.0, policy=words, user=user)


async def told(log: StreamLog, count: int) -> list[Hold]:
    """Streams of two users that are written side by side, every other one hers, with pieces and bills of all sizes; gives hers."""
    holds: dict[int, Hold] = {}
    for number in range(count):
        user, words = ("ana", CANARY) if number % 2 else ("bea", "something")
        hold = (await log.create(asked(f"s-{number}", user, words * (1 + number * 7 % 90)))).hold
        assert hold is not None
        holds[number] = hold
    for step in range(12):
        for number, hold in holds.items():
            words = (CANARY if number % 2 else "something") * (1 + (number * 31 + step * 17) % 120)
            bill = AttemptRow(1, words[:40], "m", usage=Usage(step, step))
            upstream = Upstream("up", words[: 5 * step])
            holds[number] = await log.append(
                hold, Commit((Text(words),), "running", attempts=(bill,), upstream=upstream)
            )
    return [hold for number, hold in holds.items() if number % 2]


def traces(folder: Path) -> int:
    """How often the canary stands in any file there."""
    return sum([path.read_bytes().count(CANARY.encode()) for path in folder.rglob("*") if path.is_file()])


def is_clean(folder: Path) -> bool:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as database:
        return database.execute("SELECT traces FROM erasures").fetchone() == (0,)


async def cleaned(folder: Path) -> None:
    """Return once the file says that nothing is left to clean."""

    async def look() -> None:
        while not await asyncio.to_thread(is_clean, folder):
            pass

    await within(look(), 30)


@contextlib.asynccontextmanager
async def on_disk(folder: Path, **options: Any) -> AsyncIterator[SqliteStreamLog]:
    log = SqliteStreamLog(folder / FILE, SystemClock(), f"node {next(_NUMBERS)}", StreamLogOptions(**options))
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


@pytest.mark.parametrize("ends", ["before", "after"])
async def test_no_byte_of_an_erased_stream_is_in_its_file_or_beside_it(tmp_path: Path, ends: str) -> None:
    async with on_disk(tmp_path) as log:
        hers = await told(log, 60)
        if ends == "before":
            for hold in hers:
                await log.append(hold, END)
        assert traces(tmp_path) > 1000
        erased = await log.erase(HERS)
        if ends == "after":
            assert len(erased.open) == 30
            for hold in hers:
                await log.append(hold, CANCELLED)
            while await log.sweep(100):
                pass
        await cleaned(tmp_path)
        # While the server runs, in the log of writes too.
        assert traces(tmp_path) == 0
        assert b"something" in (tmp_path / FILE).read_bytes()


async def test_erasure_that_a_reader_holds_up_is_cleaned_when_it_has_left(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as log:
        for hold in await told(log, 10):
            await log.append(hold, END)
        with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM segments").fetchone()
            assert len((await log.erase(HERS)).deleted) == 5
            assert not is_clean(tmp_path) and traces(tmp_path)
        await cleaned(tmp_path)
        assert traces(tmp_path) == 0


async def test_erasure_that_was_cut_short_by_the_end_of_the_process_is_gone_on_with(tmp_path: Path) -> None:
    """What the file has after the first transaction of an erasure is all that a process after it needs."""
    async with on_disk(tmp_path) as log:
        hers = await told(log, 10)
        for hold in hers[1:]:
            await log.append(hold, END)
        # As `erase` does, and no more.
        await log.writer.submit(Erase(HERS, lambda _: None))
    async with on_disk(tmp_path) as log:
        (orphan,) = [head for head in await log.orphans(100) if head.key == hers[0].key]
        taken = await log.claim(orphan, "next")
        assert taken is not None
        await log.append(taken, CANCELLED)
        while await log.sweep(100):
            pass
        for hold in hers:
            with pytest.raises(Gone):
                await log.head(hold.key)
        await cleaned(tmp_path)
        assert traces(tmp_path) == 0


async def test_nothing_of_an_erased_stream_is_in_redis(connection: RedisConnection, clock: FakeClock) -> None:
    log = RedisStreamLog(connection, clock, "a", SharedLogOptions(lease=LEASE), time=clock.now)

    async def everything() -> bytes:
        return b"".join([await connection.run(lambda redis, key=key: redis.dump(key)) for key in await names()])

    async def names() -> list[bytes]:
        return await connection.run(lambda redis: redis.keys("*"))

    hers = await told(log, 10)
    for hold in hers[1:]:
        await log.append(hold, END)
    assert CANARY.encode() in await everything()
    erased = await log.erase(HERS)
    assert (len(erased.deleted), erased.open) == (4, (hers[0].key,))
    await log.append(hers[0], CANCELLED)
    while await log.sweep(100):
        pass
    left = await everything()
    assert CANARY.encode() not in left and b"ana" not in left and b"something" in left
    assert len([name for name in await names() if name.endswith(b":log")]) == 5
    await log.stop()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


async def test_nothing_of_an_erased_stream_is_in_postgresql(postgres: str, clock: FakeClock) -> None:
    log = PostgresStreamLog(
        PostgresSettings(postgres, "erasing"), clock, "a", SharedLogOptions(lease=LEASE), time=clock.now
    )
    await log.start()

    async def everything() -> str:
        async with await psycopg.AsyncConnection.connect(postgres) as admin:
            found: list[str] = []
            for table in ("streams", "segments", "attempts"):
                # Bytes are told as they are, where they can be read.
                rows = await admin.execute(f"SELECT row_to_json(t)::text FROM erasing.{table} t".encode())
                found += [row for (row,) in await rows.fetchall()]
            return "".join(found)

    hers = await told(log, 10)
    for hold in hers[1:]:
        await log.append(hold, END)
    assert CANARY.encode().hex() in await everything() and "ana" in await everything()
    erased = await log.erase(HERS)
    assert (len(erased.deleted), erased.open) == (4, (hers[0].key,))
    await log.append(hers[0], CANCELLED)
    while await log.sweep(100):
        pass
    left = await everything()
    assert CANARY not in left and CANARY.encode().hex() not in left and '"ana"' not in left
    assert b"something".hex() in left
    await log.stop()


async def test_no_byte_of_an_erased_response_is_in_its_file(tmp_path: Path, clock: FakeClock) -> None:
    responses = SqliteResponses(tmp_path / "responses.sqlite", clock)
    for number in range(60):
        user, words = ("ana", CANARY) if number % 2 else ("bea", "something")
        body = (words * (number * 37 % 400)).encode()
        await responses.promise(StreamKey(OWNER.principal, f"r-{number}"), clock.now())
        await responses.settle(
            StreamKey(OWNER.principal, f"r-{number}"), KeptResponse(f"r-{number}", clock.now(), body, (), body, user)
        )
    assert traces(tmp_path) and await responses.erase(OWNER.principal, "ana") == 30
    assert traces(tmp_path) == 0
    await responses.aclose()


async def conversed(store: SqliteConversations, clock: FakeClock) -> None:
    """Conversations of two users that grow side by side, every other one hers, with texts and titles of all sizes."""
    for number in range(60):
        await store.make(OWNER.of(who(number)), f"c-{number}", said(number, number))
    for step in range(8):
        for number in range(60):
            words = said(number, number * 31 + step * 17)
            turns = exchanged(clock, f"{number}-{step}", words, words[::2] + words)
            await store.keep(OWNER.of(who(number)), f"c-{number}", turns, clock.now())


def who(number: int) -> str:
    return "ana" if number % 2 else "bea"


def said(number: int, length: int) -> str:
    return (CANARY if number % 2 else "something") * (1 + length % 90)


async def test_no_byte_of_conversations_of_an_erased_user_is_in_their_file(tmp_path: Path, clock: FakeClock) -> None:
    store = SqliteConversations(tmp_path / CONVERSATIONS, clock)
    await conversed(store, clock)
    assert traces(tmp_path) > 1000 and await store.erase(OWNER, "ana") == 30
    assert traces(tmp_path) == 0
    assert b"something" in (tmp_path / CONVERSATIONS).read_bytes()
    await store.stop()


async def test_no_byte_of_a_deleted_conversation_is_in_its_file(tmp_path: Path, clock: FakeClock) -> None:
    store = SqliteConversations(tmp_path / CONVERSATIONS, clock)
    await conversed(store, clock)
    for number in range(1, 60, 2):
        assert await store.delete(OWNER, f"c-{number}") is not None
    assert traces(tmp_path) == 0
    assert b"something" in (tmp_path / CONVERSATIONS).read_bytes()
    await store.stop()


async def test_erasure_of_conversations_that_was_held_up_and_cut_short_is_cleaned_by_the_next_process(
    tmp_path: Path, clock: FakeClock
) -> None:
    store = SqliteConversations(tmp_path / CONVERSATIONS, clock)
    await conversed(store, clock)
    store._file.execute("PRAGMA busy_timeout = 0")
    with contextlib.closing(sqlite3.connect(tmp_path / CONVERSATIONS, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM turns").fetchone()
        assert await store.erase(OWNER, "ana") == 30
        await store.stop()
        assert traces(tmp_path)
    store = SqliteConversations(tmp_path / CONVERSATIONS, clock)
    await store.sweep(100)
    assert traces(tmp_path) == 0
    await store.stop()


class Ticking(FakeClock):
    """A second goes by whenever somebody looks."""

    def monotonic(self) -> float:
        self.advance(1)
        return super().monotonic()


@pytest.mark.parametrize("then", ["time goes by", "all is erased"])
async def test_conversations_that_are_deleted_one_by_one_do_not_have_their_file_rewritten_each_time(
    tmp_path: Path, then: str
) -> None:
    clock = Ticking()
    store = SqliteConversations(tmp_path / CONVERSATIONS, clock)
    await conversed(store, clock)
    for number in range(1, 60, 2):
        await store.delete(OWNER, f"c-{number}")
    await store.sweep(100)
    # The first has had it rewritten, which has taken a second: a hundred go by until the next time.
    assert traces(tmp_path)
    if then == "time goes by":
        clock.advance(100)
        await store.sweep(100)
    else:
        await store.erase(OWNER)
    assert traces(tmp_path) == 0
    await store.stop()


async def test_comments_of_an_erased_user_are_deleted_and_what_was_paid_and_voted_stays(
    tmp_path: Path, clock: FakeClock
) -> None:
    ledger = SqliteLedger(tmp_path, clock)
    ledger.start()
    for number, user in enumerate(("ana", "bea", None)):
        ledger.record(entry(clock, number, scope=msgspec.structs.replace(OWNER, user=user)))
        assert await ledger.give(OWNER, Opinion(f"req_{number}", "up", comment=f"{CANARY}{number}"))
    ledger.record(entry(clock, 3, scope=msgspec.structs.replace(OWNER, key="other", user="ana")))
    assert await ledger.give(msgspec.structs.replace(OWNER, key="other"), Opinion("req_3", "up", comment="kept"))
    assert traces(tmp_path)
    assert await ledger.erase_comments(msgspec.structs.replace(OWNER, user="ana")) == 1
    assert await ledger.erase_comments(msgspec.structs.replace(OWNER, user="ana")) == 0
    assert await ledger.erase_comments(OWNER) == 2
    assert traces(tmp_path) == 0
    whole = await ledger.report(Query("a", 0, clock.now() + 1))
    assert (whole.total.sums.requests, whole.total.votes.up) == (4, 4)
    await ledger.stop()
    assert b"kept" in b"".join([path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()])


async def test_comments_are_deleted_too_when_the_attempts_they_are_about_have_gone(
    tmp_path: Path, clock: FakeClock
) -> None:
    ledger = SqliteLedger(tmp_path, clock, LedgerSettings(keep_attempts=1))
    ledger.start()
    asked = [msgspec.structs.replace(OWNER, user="ana"), OWNER, msgspec.structs.replace(OWNER, key="other", user="ana")]
    for number, scope in enumerate(asked):
        ledger.record(entry(clock, number, scope=scope))
        assert await ledger.give(
            msgspec.structs.replace(OWNER, key="third"), Opinion(f"req_{number}", "up", comment=CANARY)
        )
    clock.advance(3 * 86_400)
    async with asyncio.timeout(30):
        while not await gone(ledger):
            pass
    assert await ledger.erase_comments(asked[0]) == 1
    assert await ledger.erase_comments(OWNER) == 1
    assert await ledger.erase_comments(msgspec.structs.replace(OWNER, key="other")) == 1
    assert traces(tmp_path) == 0
    await ledger.stop()


async def test_comments_of_a_user_with_a_name_that_not_every_store_can_write_are_deleted(
    tmp_path: Path, clock: FakeClock
) -> None:
    ledger = SqliteLedger(tmp_path, clock)
    ledger.start()
    ledger.record(entry(clock, 0, scope=OWNER.of("a\0na")))
    assert await ledger.give(OWNER, Opinion("req_0", "up", comment=CANARY))
    assert await ledger.erase_comments(msgspec.structs.replace(OWNER, user=OWNER.known_as("a\0na"))) == 1
    await ledger.stop()


async def test_comments_given_before_their_users_were_noted_are_deleted_while_the_attempts_are_there(
    tmp_path: Path, clock: FakeClock
) -> None:
    ledger = SqliteLedger(tmp_path, clock)
    ledger.start()
    for number, user in enumerate(("ana", "bea")):
        ledger.record(entry(clock, number, scope=msgspec.structs.replace(OWNER, user=user)))
        assert await ledger.give(OWNER, Opinion(f"req_{number}", "up", comment=user))
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database, database:
        database.execute("UPDATE feedback SET user = NULL")
    assert await ledger.erase_comments(msgspec.structs.replace(OWNER, user="ana")) == 1
    await ledger.stop()


async def gone(ledger: SqliteLedger) -> bool:
    """Whether no attempts are kept any more."""
    return await ledger.flush() and not await ledger.give(OWNER, Opinion("req_0", "up"))
