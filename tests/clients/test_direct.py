"""Every client straight at the fake provider: the clients' scripts and the fake understand each other without Cauce."""

from pathlib import Path

import pytest

from cauce.testing.upstream import Upstream
from tests.clients import scenarios
from tests.clients.scenarios import Scenario, Seen
from tests.clients.table import OFFERED, Client, run
from tests.clients.workers import Given, Workers

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("client", "scenario"),
    [pytest.param(*one, id=f"{one[0].name}-{one[1].name}") for one in OFFERED if one[1].direct],
)
async def test_client_understands_the_fake_provider(
    workers: Workers, upstream: Upstream, client: Client, scenario: Scenario, tmp_path: Path
) -> None:
    given = Given(upstream.root, model="m", more={**client.more, "folder": str(tmp_path)})
    seen = await run(workers, client, scenario, given, upstream)
    scenario.check(Seen("direct", seen, scenarios.views(upstream)))
