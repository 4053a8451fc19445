"""`cauce chaos`."""

import os
from pathlib import Path

import msgspec
import pytest

from cauce.testing.chaos import INVARIANTS
from tests.e2e.cli.command import Finished, Home
from tests.http import within

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
BROKEN = ("incomplete", "failed")
CONFIGURED = """
[streams]
folder = "{folder}"
lease = 1
synchronous = "{synchronous}"
[recovery]
attempts = 1
"""


async def chaos(home: Home, *arguments: str, **environment: str) -> Finished:
    async with home.running("chaos", *arguments, **environment) as command:
        out, err = await within(command.process.communicate(), 90)
        assert command.process.returncode is not None
        return Finished(command.process.returncode, out.decode(), err.decode())


async def test_small_run_holds_and_writes_its_report(home: Home) -> None:
    data = home.folder / "data"
    environment = {"CAUCE_SERVER__DATA_DIR": str(data)}
    report = ("--report", str(home.folder / "r.json"))
    done = await chaos(home, "--streams", "4", "--nodes", "1", "--seconds", "3", *report, **environment)
    assert done.code == 0, done.out + done.err
    found = msgspec.json.decode((home.folder / "r.json").read_bytes())
    idle = [name for name in INVARIANTS if not found["judged"].get(name)]
    # Nothing is made old here, and four answers are not so long that a server could grow by them.
    assert {"I10", "I13"} <= set(idle) and not {"I1", "I2", "I3", "I5", "I9"} & set(idle)
    assert f"not judged, since nothing of it happened: {', '.join(idle)}" in done.out
    assert f"nothing was violated: {len(INVARIANTS) - len(idle)} invariants held" in done.out
    assert found["streams"] == 4 and found["violations"] == []
    assert found["faults"]["SIGKILL"]
    # What it needed is gone.
    assert list(data.iterdir()) == []


async def test_what_was_found_is_told_though_the_report_cannot_be_written(home: Home) -> None:
    done = await chaos(
        home, "--streams", "1", "--nodes", "1", "--seconds", "1", "--report", str(home.folder / "no" / "r.html")
    )
    assert done.code == 2 and "nothing was violated" in done.out
    assert "the report cannot be written" in done.err and "r.html" in done.err


async def test_report_that_is_no_json_is_a_page(home: Home) -> None:
    page = home.folder / "r.html"
    done = await chaos(
        home, "--streams", "1", "--nodes", "1", "--seconds", "1", "--report", str(page), LANG="es_ES.UTF-8"
    )
    assert done.code == 0, done.out + done.err
    assert "no se ha violado nada" in done.out
    assert page.read_text("utf-8").startswith("<!doctype html>")


def watched(home: Home) -> tuple[dict[str, str], Path]:
    """Variables that have servers tell what they write to the log of SQLite, and what they sync of it; and the file they tell it in."""
    told, sites = home.folder / "told", home.folder / "sites"
    sites.mkdir()
    (sites / "sitecustomize.py").write_text(
        f"from pathlib import Path\nfrom tests.chaos import power\npower.watch(Path({str(told)!r}))\n"
    )
    return {"PYTHONPATH": f"{sites}{os.pathsep}{ROOT}"}, told


async def syncs(home: Home, synchronous: str) -> tuple[float, bytes, Finished]:
    """Syncs per write of the nodes of a run; its report and what it said."""
    environment, told = watched(home)
    home.configure(CONFIGURED.format(folder=home.folder / "streams", synchronous=synchronous))
    report = home.folder / "r.json"
    done = await chaos(home, "--streams", "12", "--seconds", "6", "--seed", "3", "--report", str(report), **environment)
    assert done.code == 0, done.out + done.err
    noted = told.read_bytes()
    return noted.count(b"s") / noted.count(b"w"), report.read_bytes(), done


async def test_nodes_have_the_settings_of_the_user(home: Home) -> None:
    often, written, done = await syncs(home, "normal")
    found = msgspec.json.decode(written)
    assert '[streams] lease = 1.0, [streams] synchronous = "normal", [recovery] attempts = 1' in done.out
    assert found["parameters"]["[streams] synchronous"] == "normal" and found["notes"]
    # It waits for the disk once a second only, not for each commit.
    assert often < 0.02
    # Two servers share the folder. Had they another lease, they would have taken over from each other too late.
    assert found["parameters"]["nodes"] == 2 and found["faults"]["SIGKILL"] and found["takeovers"]["streams"]
    # Whoever broke twice was not gone on with again, and nobody was sooner: that would have been a violation.
    assert found["excused"]["[recovery] attempts = 1"] == found["outcomes"]["incomplete"]
    assert "answers that broke off, as the settings have it" in done.out
    # All was inside of the user's own folder, and is gone.
    assert list((home.folder / "streams").iterdir()) == []


async def test_answers_end_where_they_break_when_recovery_is_off_and_nothing_is_violated(home: Home) -> None:
    home.configure("[recovery]\nattempts = 0\n")
    report = home.folder / "r.json"
    done = await chaos(home, "--streams", "10", "--seconds", "4", "--report", str(report))
    assert done.code == 0, done.out + done.err
    found = msgspec.json.decode(report.read_bytes())
    assert found["parameters"]["nodes"] == 1 and found["faults"]["SIGKILL"]
    assert found["outcomes"]["incomplete"] >= 5 and not found["violations"]
    assert found["excused"] == {"[recovery] attempts = 0": sum(found["outcomes"].get(name, 0) for name in BROKEN)}
    # Nobody went on with anything.
    assert not found["seams"].get("exact") and not found["seams"].get("stitched")
    assert "[recovery] attempts = 0: an answer that breaks may end there" in done.out


async def test_streams_in_memory_may_go_with_their_server_and_are_judged_until_then(home: Home) -> None:
    report = home.folder / "r.json"
    environment = {"CAUCE_STREAMS__STORE": "memory", "LANG": "es_ES.UTF-8"}
    done = await chaos(
        home, "--streams", "12", "--nodes", "2", "--seconds", "8", "--report", str(report), **environment
    )
    assert done.code == 0, done.out + done.err
    found = msgspec.json.decode(report.read_bytes())
    gone = found["outcomes"].get("forgotten", 0) + found["excused"].get('[streams] store = "memory"', 0)
    assert gone and found["faults"]["SIGKILL"] and not found["violations"]
    assert "un servidor, y no 2" in done.out


@pytest.mark.parametrize(
    "url", ["redis://db.example.org:6379/0", "redis://10.0.0.5/0", "postgresql:///db?host=db.example.org"]
)
async def test_store_on_another_machine_is_refused(home: Home, url: str) -> None:
    store = "redis" if url.startswith("redis") else "postgres"
    done = await home.cauce("chaos", "--store", store, **{f"CAUCE_{store.upper()}__URL": url})
    assert done.code == 2
    assert "is of another machine" in done.err


async def test_store_that_is_not_configured_is_a_mistake(home: Home) -> None:
    done = await home.cauce("chaos", "--store", "redis")
    assert done.code == 2
    assert "needs [redis] url" in done.err


async def test_store_that_does_not_answer_is_a_mistake(home: Home) -> None:
    done = await chaos(home, "--store", "redis", CAUCE_REDIS__URL="redis://127.0.0.1:1/0")
    assert done.code == 2, done.out + done.err
    assert "--store redis" in done.err
