"""`cauce usage`: what the ledger in the data folder holds, also while a server writes to it."""

from pathlib import Path

import pytest

from cauce.domain.request import Scope
from cauce.domain.usage import Usage
from cauce.ports.usage import Opinion
from cauce.stores.periods import DAY
from cauce.stores.sqlite.ledger import SqliteLedger
from cauce.system.clock import SystemClock
from cauce.testing.clock import FakeClock
from cauce.testing.ledger_contract import OWNER, entry, failed
from tests.e2e.cli.command import Home

pytestmark = pytest.mark.anyio

MONTHS = ("--from", "2020-01-01", "--to", "2100-01-01")


def folder(home: Home) -> Path:
    return home.folder / ".local" / "share" / "cauce" / "ledger"


async def filled(home: Home) -> None:
    """Two weeks of attempts, the last of them today."""
    clock = FakeClock(SystemClock().now() - 14 * DAY)
    ledger = SqliteLedger(folder(home), clock)
    ledger.start()
    for day in range(15):
        ledger.record(entry(clock, day))
        ledger.record(failed(clock, day + 100, model="mini", scope=Scope("b", "app")))
        if day < 14:
            clock.advance(DAY)
    ledger.record(entry(clock, 200, provider="here", usage=Usage(1000, 500)))
    await ledger.give(OWNER, Opinion("str_3", "up"))
    await ledger.stop()


async def test_without_a_ledger_it_says_who_keeps_one(home: Home) -> None:
    done = await home.cauce("usage")
    assert done.code == 1 and "`cauce serve` keeps one" in done.err and done.out == ""


async def test_table_has_a_line_per_model_a_total_a_chart_and_a_forecast(home: Home) -> None:
    await filled(home)
    done = await home.cauce("usage", *MONTHS)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["openai/gpt", "15", "15", "0.0%", "1,500", "300", "0.1500"] in [line[:7] for line in lines]
    assert ["openai/mini", "15", "0", "100.0%", "0", "0", "0.00"] in [line[:7] for line in lines]
    assert ["total", "31", "16", "48.4%", "2,500", "800", "0.1500"] in [line[:7] for line in lines]
    assert "without a known price, so not in the sum: 1,500 tokens" in done.out
    assert done.out.count("█") > 15 and "this month: " in done.out and "4 times in 5" in done.out


async def test_one_tenant_by_key_as_json(home: Home) -> None:
    await filled(home)
    told = (await home.cauce("usage", "--by", "key", "--tenant", "b", "--json", *MONTHS)).json()
    assert [(group["key"], group["attempts"]) for group in told["groups"]] == [("app", 15)]
    assert told["errors"]["by_code"] == {"overloaded": 15} and told["forecast"]["days_known"] == 0


async def test_it_speaks_spanish_to_those_who_do(home: Home) -> None:
    await filled(home)
    done = await home.cauce("usage", *MONTHS, LANG="es_ES.UTF-8")
    lines = [line.split()[:7] for line in done.out.splitlines()]
    assert ["openai/gpt", "15", "15", "0,0%", "1.500", "300", "0,1500"] in lines
    assert ["total", "31", "16", "48,4%", "2.500", "800", "0,1500"] in lines
    assert "modelo" in done.out and "peticiones  contestadas" in done.out and "este mes: " in done.out


async def test_server_that_writes_is_not_disturbed_and_its_spool_counts(home: Home) -> None:
    clock = SystemClock()
    ledger = SqliteLedger(folder(home), clock)
    ledger.start()
    assert await ledger.flush()
    ledger.record(entry(FakeClock(clock.now())))
    done = await home.cauce("usage", "--json")
    ledger.record(entry(FakeClock(clock.now()), 2))
    assert await ledger.flush()
    await ledger.stop()
    assert done.json()["total"]["requests"] == 1


@pytest.mark.parametrize(
    "wrong", [("--from", "yesterday"), ("--by", "colour"), ("--from", "2026-02-01", "--to", "2026-01-01")]
)
async def test_question_that_makes_no_sense_is_a_misuse(home: Home, wrong: tuple[str, ...]) -> None:
    await filled(home)
    done = await home.cauce("usage", *wrong)
    assert done.code == 2 and done.out == "" and done.err
