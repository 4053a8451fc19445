"""The ledger of a real server, killed in the middle of its work."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cauce.bootstrap import application
from cauce.config import load
from cauce.stores.inproc.ledger import InprocLedger
from cauce.stores.sqlite.ledger import SqliteLedger
from tests.e2e.killing import killed_under_load
from tests.e2e.process import clean

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


async def test_of_two_apps_on_one_data_folder_the_second_keeps_its_ledger_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load(None, {"CAUCE_SERVER__DATA_DIR": str(tmp_path), "CAUCE_DISCOVERY__ENABLED": "false"}, tmp_path)
    first, second = application(config), application(config)
    ledgers = [type(app.state["services"].usage) for app in (first, second)]
    assert ledgers == [SqliteLedger, InprocLedger] and "kept in its memory" in caplog.text
    for app in (first, second):
        await app.state["services"].start()
        await app.state["services"].stop()
    third = application(config)
    assert type(third.state["services"].usage) is SqliteLedger
    await third.state["services"].start()
    await third.state["services"].stop()
