"""`cauce models`."""

import pytest

from cauce.testing.upstream import Upstream
from tests.e2e.cli.command import Home
from tests.e2e.cli.refusing import refusing
from tests.serving import upstream_table

pytestmark = pytest.mark.anyio

ROUTES = '[models.fast]\ncandidates = ["up/fake-model", "offline"]\n[aliases]\nmini = "fast"\n'


async def test_every_name_is_listed_with_what_it_asks(home: Home) -> None:
    async with Upstream() as upstream:
        upstream.models = ["rare-model", "fake-model"]
        home.configure(upstream_table("up", upstream.base_url, default_model="fake-model") + ROUTES)
        listed = await home.cauce("models", "--json")
    models = {model["name"]: model for model in listed.json()["models"]}
    assert listed.code == 0
    assert list(models)[:5] == ["auto", "fast", "up/fake-model", "up/rare-model", "offline"]
    assert models["auto"] == {
        "name": "auto",
        "kind": "route",
        "default": True,
        "asks": ["up/fake-model", "offline"],
    }
    assert models["mini"] == {"name": "mini", "kind": "alias", "asks": ["up/fake-model", "offline"]}
    assert models["offline"]["kind"] == "offline"


async def test_the_table_has_one_line_for_each_name_however_long(home: Home) -> None:
    async with Upstream() as upstream:
        upstream.models = ["x" * 200, "a:smile:b", "[red]c"]
        home.configure(upstream_table("up", upstream.base_url, default_model="fake-model") + ROUTES)
        listed = await home.cauce("models")
    names = [line.split()[0] for line in listed.out.splitlines()[1:]]
    assert names[:6] == ["auto", "fast", "up/fake-model", "up/" + "x" * 200, "up/a:smile:b", "up/[red]c"]
    assert "\x1b" not in listed.out
    assert listed.err == ""


async def test_a_provider_that_does_not_tell_is_a_line_and_no_failure(home: Home) -> None:
    async with refusing(401, "Bad key.") as address:
        home.configure(upstream_table("up", f"{address}/v1", default_model="fake-model"))
        listed = await home.cauce("models")
        as_json = await home.cauce("models", "--json")
    assert listed.code == 0
    assert "up/fake-model" in listed.out
    refused = "up refused the key that Cauce has for it: check api_key of [providers.up]; it said: Bad key."
    assert listed.err == f"cauce: up does not list its models: {refused}\n"
    assert as_json.json()["errors"] == [{"provider": "up", "error": refused}]


async def test_servers_on_this_machine_are_listed(home: Home) -> None:
    async with Upstream() as upstream:
        upstream.models = ["qwen3:8b"]
        home.configure(f"[discovery]\nports = {{ openai-compatible = [{upstream.port}] }}\n")
        listed = await home.cauce("models", "--json", CAUCE_DISCOVERY__ENABLED="true")
    local = [model for model in listed.json()["models"] if model["kind"] == "local"]
    assert [model["name"].partition("/")[2] for model in local] == ["qwen3:8b"]
