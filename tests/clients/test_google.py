"""The official `google-genai` SDK, further than every client goes: Python functions that it calls by itself."""

from pathlib import Path

import msgspec
import pytest

from cauce.testing.upstream import Upstream
from tests.clients import scenarios
from tests.clients.front import KEY, in_front_of
from tests.clients.page import Proved
from tests.clients.scenarios import SCENARIOS, Seen
from tests.clients.table import CLIENTS, KINDS, run
from tests.clients.workers import Given, Workers
from tests.serving import serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["google-v1", "google-v1beta"])
async def test_python_functions_are_called_by_the_sdk(
    workers: Workers, upstream: Upstream, kind: str, name: str, tmp_path: Path, proved: Proved
) -> None:
    client = next(one for one in CLIENTS if one.name == name)
    scenario = next(one for one in SCENARIOS if one.name == "tools")
    async with serving(in_front_of(upstream, kind)) as served:
        there = Given(served.url, KEY, more={**client.more, "folder": str(tmp_path)})
        seen = await run(workers, client, msgspec.structs.replace(scenario, case="tools_run"), there, upstream)
    scenario.check(Seen(kind, seen, scenarios.views(upstream)))
    proved(name, kind, "tools_run")
