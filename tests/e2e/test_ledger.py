"""The ledger of a real server, killed in the middle of its work."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cauce.bootstrap import application
from cauce.config import load
from cauce.stores.sqlite.ledger import SqliteLedger
from cauce.testing.upstream import Reply, Upstream
from tests.e2e.killing import TOKENS, ask_on, killed_under_load, rows_in
from tests.e2e.process import Worker, clean
from tests.http import ask, within
from tests.serving import MESSAGES, upstream_table

pytestmark = pytest.mark.anyio


async def test_no_delivered_answer_is_missing_after_a_kill_and_none_counts_twice(tmp_path: Path) -> None:
    aftermath = await killed_under_load(tmp_path, kills=2)
    assert len(aftermath.delivered) >= 300
    assert aftermath.missing == [] and aftermath.doubled == []
    assert aftermath.requests_told == sum(aftermath.rows.values())


def test_ledger_of_a_newer_version_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / ".local" / "share" / "cauce" / "ledger"
    folder.mkdir(parents=True)
    database = sqlite3.connect(folder / "ledger.sqlite")
    database.execute("PRAGMA user_version = 1000")
    database.close()
    done = subprocess.run(
        [sys.executable, "-m", "cauce", "serve", "--port", "0"],
        cwd=tmp_path,
        env=clean(tmp_path),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2 and "newer version of Cauce" in done.stderr and "Traceback" not in done.stderr


async def test_workers_with_one_data_folder_have_one_ledger_whoever_of_them_is_killed(tmp_path: Path) -> None:
    async with Upstream(Reply(text="a few words in some pieces", usage=TOKENS)) as upstream:
        (tmp_path / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        with contextlib.ExitStack() as stack:
            first, second, third, fourth = [stack.enter_context(Worker(tmp_path)) for _ in range(4)]
            # The first of them has the data folder.
            await asyncio.to_thread(first.start)
            await asyncio.gather(asyncio.to_thread(second.start), asyncio.to_thread(third.start))
            workers = (first, second, third)
            for worker in workers:
                answer = await ask(worker.port, "POST", "/llm/message", {"model": "up/m", "messages": MESSAGES})
                about = {"request_id": answer.headers["x-cauce-request-id"], "thumb": "up"}
                for other in workers:
                    assert (await ask(other.port, "POST", "/feedback", about)).status == 200
            assert [(await used(worker))["total"]["requests"] for worker in workers] == [3, 3, 3]

            delivered: dict[Worker, list[str]] = {worker: [] for worker in workers}
            enough = [asyncio.Event() for _ in range(4)]
            asking = [
                asyncio.create_task(ask_on(worker.port, number, delivered[worker], 80, event))
                for worker, event in zip(workers, enough, strict=False)
                for number in range(3)
            ]
            await within(asyncio.gather(*[event.wait() for event in enough[:3]]), 60)
            for worker in (first, second):
                await asyncio.to_thread(worker.stop, signal.SIGKILL)
            going_on = len(delivered[third]) + 40
            asking.append(asyncio.create_task(ask_on(third.port, 0, delivered[third], going_on, enough[3])))
            await within(enough[3].wait(), 60)
            for task in asking[6:]:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

            # What the two left is taken in by the one that is there.
            all_delivered = {id for ids in delivered.values() for id in ids}
            await within(asyncio.to_thread(until_has, tmp_path, all_delivered), 30)
            await asyncio.to_thread(fourth.start)
            told = [await used(worker) for worker in (third, fourth)]
            for worker in (third, fourth):
                await asyncio.to_thread(worker.stop, signal.SIGTERM)
    rows = rows_in(tmp_path)
    assert told[0] == told[1] and told[0]["total"]["requests"] == sum(rows.values()) and told[0]["feedback"]["up"] == 3
    assert [id for id in all_delivered if rows[id] != 1] == [] and max(rows.values()) == 1


async def used(worker: Worker) -> Any:
    """What that worker says was used in all, up to now."""
    told = (await ask(worker.port, "GET", "/usage")).json()
    return {name: figure for name, figure in told.items() if name != "to"}


def until_has(folder: Path, ids: set[str]) -> None:
    """Return once the tables have them all."""
    while not ids <= rows_in(folder).keys():
        pass


async def test_two_apps_on_one_data_folder_have_one_ledger(tmp_path: Path) -> None:
    config = load(None, {"CAUCE_SERVER__DATA_DIR": str(tmp_path), "CAUCE_DISCOVERY__ENABLED": "false"}, tmp_path)
    apps = [application(config), application(config)]
    for app in apps:
        assert type(app.state["services"].usage) is SqliteLedger
        await app.state["services"].start()
    for app in apps:
        await app.state["services"].stop()
