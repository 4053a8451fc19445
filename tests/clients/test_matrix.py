"""Every client through every scenario it offers, through Cauce in front of each kind of provider."""

from pathlib import Path

import pytest

from tests.clients import scenarios
from tests.clients.front import KEY, Fronts
from tests.clients.page import Proved
from tests.clients.scenarios import Scenario, Seen
from tests.clients.table import KINDS, OFFERED, Client, run
from tests.clients.workers import Given, Workers

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("client", "scenario"), [pytest.param(*one, id=f"{one[0].name}-{one[1].name}") for one in OFFERED]
)
async def test_client_through_cauce(
    workers: Workers, fronts: Fronts, kind: str, client: Client, scenario: Scenario, tmp_path: Path, proved: Proved
) -> None:
    front = await fronts.of(client.name, kind)
    more = {**client.more, "folder": str(tmp_path)}
    refused = kind in scenario.without
    given = Given(front.served.url, scenario.api_key or KEY, scenario.model or "up/m", more, refused)
    seen = await run(workers, client, scenario, given, front.upstream)
    check = scenarios.not_offered if refused else scenario.check
    check(Seen(kind, seen, scenarios.views(front.upstream)))
    proved(client.name, kind, scenario.name)
