"""Redis is gone for half a minute while requests run: nobody notices, and it is used again by itself."""

from pathlib import Path

import pytest

from tests.load.scenarios import redis_outage
from tests.redis_server import running_redis

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("frozen", [False, True], ids=["ended", "frozen"])
async def test_requests_go_on_without_redis_and_with_it_again(tmp_path: Path, frozen: bool) -> None:
    with running_redis() as redis:
        seen = await redis_outage(tmp_path, redis, 30, frozen=frozen)
    assert dict(seen.tally.statuses) == {200: len(seen.tally.order)}, seen.tally.first_error
    assert seen.during > 100 and seen.limits == "local share"
    # There is always somebody who waits for room: what is over the limit would be sent at once.
    assert seen.upstream.violations == 0 and seen.upstream.most_at_once == 20
    assert seen.used_again
