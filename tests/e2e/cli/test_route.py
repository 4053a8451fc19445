"""`cauce route explain`."""

import json

import pytest

from cauce.testing.upstream import Upstream
from tests.e2e.cli.command import Home
from tests.serving import upstream_table

pytestmark = pytest.mark.anyio

SMART = """
[models.smart]
route = "hybrid"
candidates = ["far/m", "near/m", "ollama/x", "offline"]
tasks = { poem = "cloud" }
[facts."near/*"]
context_window = 4096
[facts."far/*"]
input_price = 1
output_price = 2
"""


async def test_it_tells_the_rule_the_order_and_who_is_left_out(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(
            upstream_table("near", upstream.base_url) + upstream_table("far", upstream.base_url, local=False) + SMART
        )
        told = await home.cauce("route", "explain", "smart", "--tokens", "100")
        poem = await home.cauce("route", "explain", "smart", "--task", "poem", LANG="es_ES.UTF-8")
        long = await home.cauce("route", "explain", "smart", "--tokens", "6000", "--json")
        private = await home.cauce("route", "explain", "smart", "--private", "--json")
    assert told.out.splitlines() == [
        "smart, order hybrid:",
        "  about 100 tokens, complexity 0",
        "  no other rule holds: this machine first",
        "  1. near/m: put first by the rule, on this machine, window 4096 tokens",
        "  2. far/m: behind what the rule puts first, elsewhere, about 0.0011 USD",
        "  3. offline: the last resort, on this machine",
        "  -  ollama/x: its server is not there now",
    ]
    assert "  tarea poem: primero la nube" in poem.out and "  1. far/m: puesto primero por la regla" in poem.out
    assert [place["name"] for place in long.json()["candidates"]] == ["far/m", "offline"]
    assert [place["name"] for place in private.json()["candidates"]] == ["near/m", "offline"]
    assert upstream.requests == []


async def test_tiers_are_told(home: Home) -> None:
    tables = [upstream_table(name, "http://127.0.0.1:9/v1", tier=tier) for name, tier in (("low", 7), ("high", 3))]
    home.configure("".join(tables) + '[models.t]\nroute = "tiered"\ncandidates = ["low/m", "high/m"]\n')
    told = await home.cauce("route", "explain", "t", "--tokens", "100")
    spanish = await home.cauce("route", "explain", "t", "--tokens", "100", LANG="es_ES.UTF-8")
    assert told.out.splitlines()[0] == "t, order tiered:"
    assert told.out.splitlines()[2:] == [
        "  1. high/m: by tier (3), on this machine",
        "  2. low/m: by tier (7), on this machine",
    ]
    assert "  1. high/m: por nivel (3), en esta máquina" in spanish.out


async def test_request_may_come_from_a_file_or_a_pipe(home: Home) -> None:
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Hi?"}], "task": "t"})
    (home.folder / "request.json").write_text(body)
    for file in ("request.json", "-"):
        told = await home.cauce("route", "explain", "--file", file, "--json", stdin=body.encode())
        assert (told.code, told.json()["asked"], told.json()["task"]) == (0, "auto", "t")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nix"], 1, "model 'nix' does not exist here"),
        (["--file", "none.json"], 2, "none.json cannot be read: No such file or directory"),
        (["--tokens", "many"], 2, "must be a whole number, not 'many'"),
    ],
)
async def test_mistakes_are_told(home: Home, words: list[str], code: int, told: str) -> None:
    done = await home.cauce("route", "explain", *words)
    assert (done.code, told in done.err) == (code, True)


async def test_request_that_fits_nowhere_is_refused(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(upstream_table("near", upstream.base_url) + '[facts."near/*"]\ncontext_window = 4096\n')
        told = await home.cauce("route", "explain", "near/m", "--tokens", "9000")
    assert told.code == 1
    assert "nobody is asked: the request is refused" in told.out
    assert "  -  near/m: about 9,000 tokens are too many for its window of 4,096" in told.out
