"""`cauce chaos`."""

import msgspec
import pytest

from cauce.testing.chaos import INVARIANTS
from tests.e2e.cli.command import Finished, Home
from tests.http import within

pytestmark = pytest.mark.anyio


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
    assert f"nothing was violated: {len(INVARIANTS)} invariants held" in done.out
    found = msgspec.json.decode((home.folder / "r.json").read_bytes())
    assert found["streams"] == 4 and found["violations"] == []
    assert found["faults"]["SIGKILL"]
    # What it needed is gone.
    assert list(data.iterdir()) == []


async def test_report_that_is_no_json_is_a_page(home: Home) -> None:
    page = home.folder / "r.html"
    done = await chaos(
        home, "--streams", "1", "--nodes", "1", "--seconds", "1", "--report", str(page), LANG="es_ES.UTF-8"
    )
    assert done.code == 0, done.out + done.err
    assert "no se ha violado nada" in done.out
    assert page.read_text("utf-8").startswith("<!doctype html>")


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
