"""`python -m bench.ledger`: what the ledger costs per attempt, and what a year of a million calls a day costs to keep and to ask.

The year is synthetic: its sums are written as they would be after so many attempts, its last day is written attempt by attempt
through the spool. Everything is in a folder that is deleted at the end (`--keep` leaves it).
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cauce.domain.histogram import bucket
from cauce.domain.request import Scope
from cauce.domain.usage import Usage
from cauce.ports.ledger import Entry
from cauce.ports.usage import Holder, Opinion, Query, Spread, Sums
from cauce.stores.cells import Cell, Kind
from cauce.stores.periods import DAY, month_of
from cauce.stores.sqlite.book import Book
from cauce.stores.sqlite.ledger import SqliteLedger
from cauce.stores.sqlite.ledger_tables import DAYS, HOURS, MONTHS
from cauce.stores.sqlite.reading import FILE
from cauce.stores.sqlite.settings import LedgerSettings
from cauce.system.clock import SystemClock

MODELS = [
    ("openai", "gpt-5-mini"),
    ("openai", "gpt-5"),
    ("gemini", "gemini-2.5-flash"),
    ("anthropic", "claude-haiku-4-5"),
]
ENDPOINTS = ("chat", "chat", "chat", "embeddings")
ENDINGS = (("completed", "priced", ""), ("failed", "", "overloaded"), ("cancelled", "estimated", ""))
CHANCE = random.Random(1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    parser.add_argument("--days", type=int, default=365, help="days of sums (default: 365)")
    parser.add_argument("--per-day", type=int, default=1_000_000, help="attempts that a day's sums stand for")
    parser.add_argument(
        "--attempts", type=int, default=1_000_000, help="attempts written one by one (default: a day's)"
    )
    parser.add_argument("--keys", type=int, default=10, help="API keys (default: 10)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="do it there, and leave it")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="cauce-ledger-"))
    try:
        _year(folder, arguments)
        _size(folder, f"sums of {arguments.days} days, each of {arguments.per_day:,} attempts")
        asyncio.run(_day(folder, arguments))
        asyncio.run(_ask(folder, arguments))
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    return 0


def kinds(keys: int) -> list[Kind]:
    """Every kind of attempt that a day has."""
    return [
        Kind(
            "default",
            provider,
            model,
            "",
            endpoint,
            f"key{key}",
            "primary",
            outcome,
            source,
            source == "estimated",
            error,
        )
        for (provider, model), endpoint in zip(MODELS, ENDPOINTS, strict=True)
        for key in range(keys)
        for outcome, source, error in ENDINGS
    ]


def _year(folder: Path, arguments: argparse.Namespace) -> None:
    """The sums of all days but the last."""
    folder.mkdir(parents=True, exist_ok=True)
    book = Book(folder / FILE)
    today = int(time.time()) // DAY
    found = kinds(arguments.keys)
    each = arguments.per_day // (24 * len(found))
    seconds = [CHANCE.lognormvariate(0.5, 0.8) for _ in range(400)]
    for day in range(today - arguments.days, today):
        with book._transaction() as database:  # pyright: ignore[reportPrivateUsage]
            dirty = set[tuple[int, int, int]]()
            for kind in found:
                number = book._kind(database, kind)  # pyright: ignore[reportPrivateUsage]
                for hour in range(24):
                    cell = _cell(kind, each, seconds)
                    keys = ((HOURS, day * 24 + hour, number), (DAYS, day, number), (MONTHS, month_of(day), number))
                    for key in keys:
                        book._cell(database, key).add(cell)  # pyright: ignore[reportPrivateUsage]
                    dirty.update(keys)
            book._save(database, dirty)  # pyright: ignore[reportPrivateUsage]
        book.forget()
    book.close()


def _cell(kind: Kind, attempts: int, seconds: list[float]) -> Cell:
    cell = Cell(
        Sums(attempts, attempts, attempts * 900, attempts * 300, attempts * 400, 0, attempts * 50, attempts * 0.001)
    )
    if kind.outcome == "completed":
        for value in CHANCE.sample(seconds, 60):
            for counts, of in ((cell.spread.latency, value), (cell.spread.first_delta, value / 4)):
                index = bucket(of)
                counts[index] = counts.get(index, 0) + attempts // 60 + 1
        cell.spread = Spread(
            cell.spread.latency, cell.spread.first_delta, dict(cell.spread.latency), {bucket(300): attempts}
        )
    return cell


def _entries(count: int, keys: int) -> Iterator[Entry]:
    began = int(time.time()) // DAY * DAY
    for number in range(count):
        provider, model = MODELS[number % len(MODELS)]
        yield Entry(
            at=began + number * 86_000 / count,
            request_id=f"req_{CHANCE.getrandbits(96):024x}",
            scope=Scope("default", f"key{number % keys}", f"user{number % 1000}" if number % 4 == 0 else None),
            provider=provider,
            model=model,
            level="primary",
            outcome="completed",
            error_code=None,
            usage=Usage(900, 300, 400, 0, 50, 0.001, "priced"),
            latency=1.0 + number % 97 / 50,
            first_delta=0.2 + number % 31 / 100,
            listed_cost=0.001,
            price_snapshot="2026-11-01",
            stream_id=f"str_{CHANCE.getrandbits(96):024x}",
        )


async def _day(folder: Path, arguments: argparse.Namespace) -> None:
    """A day of attempts, one by one."""
    ledger = SqliteLedger(folder, SystemClock(), LedgerSettings(max_bytes=2**40))
    some = list(_entries(min(20_000, arguments.attempts), arguments.keys))
    began = time.thread_time()
    for entry in some:
        ledger.record(entry)
    print(f"record: {(time.thread_time() - began) / len(some) * 1e6:.2f} µs of CPU each, of {len(some):,}")
    ledger.start()
    began, wall = time.process_time(), time.perf_counter()
    await ledger.flush()
    spent = time.process_time() - began
    print(
        f"commit: {spent / len(some) * 1e6:.2f} µs of CPU each, in groups, {len(some) / (time.perf_counter() - wall):,.0f}/s"
    )
    before = (folder / FILE).stat().st_size
    left = arguments.attempts - len(some)
    for number, entry in enumerate(_entries(left, arguments.keys)):
        ledger.record(entry)
        if number % 20_000 == 0:
            await ledger.flush()
    await ledger.stop()
    grown = (folder / FILE).stat().st_size - before
    print(f"rows:   {grown / max(1, left):.0f} bytes each")
    _size(folder, f"with {arguments.attempts:,} attempts of one day")


async def _ask(folder: Path, arguments: argparse.Namespace) -> None:
    began = time.perf_counter()
    ledger = SqliteLedger(folder, SystemClock(), LedgerSettings(max_bytes=2**40))
    print(f"open:   {(time.perf_counter() - began) * 1000:.1f} ms")
    ledger.start()
    now = time.time()
    year = now - arguments.days * DAY
    questions = {
        "this month, by model": Query("default", now - now % DAY - 20 * DAY, now, ("model",)),
        "a year, by model": Query("default", year, now, ("model",)),
        "a year, by day": Query("default", year, now, ("day",)),
        "a year, by model and endpoint": Query("default", year, now, ("model", "endpoint")),
        "a year of one key, by day": Query("default", year, now, ("day",), (("key", "key1"),)),
        "100 odd hours, by key": Query("default", now - 100 * 3600, now - 3600 * 30, ("key",)),
        "a month, by user": Query("default", now - 30 * DAY, now, ("user",)),
    }
    for name, query in questions.items():
        began = time.perf_counter()
        report = await ledger.report(query)
        took = (time.perf_counter() - began) * 1000
        print(f"{took:8.1f} ms  {name}: {report.total.sums.attempts:,} attempts, {len(report.groups)} groups")
    began = time.perf_counter()
    await ledger.spent(Holder("key", "default", "key1"), "dollars", now - 20 * DAY)
    print(f"{(time.perf_counter() - began) * 1000:8.1f} ms  what a key has spent this month")
    await ledger.flush()
    began = time.perf_counter()
    await ledger.give(Scope("default", "key1"), Opinion("str_unknown", "up"))
    print(f"{(time.perf_counter() - began) * 1000:8.1f} ms  feedback on an unknown answer")
    await ledger.stop()


def _size(folder: Path, what: str) -> None:
    print(f"file:   {(folder / FILE).stat().st_size / 1e6:,.0f} MB, {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
