"""How long a cancel takes that reaches another server than the one that writes, where the provider says nothing at all."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.e2e.process import Serve
from tests.e2e.tale import TALE, begin, state, table
from tests.http import ask, connection, within
from tests.postgres_server import running_postgres
from tests.redis_server import running_redis

pytestmark = pytest.mark.anyio

CANCELS = 12
LONGEST = 1.0
"""Seconds from the request until the provider sees its connection closed."""


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The configuration of a log that two servers have, as it is by default."""
    common = f'[streams]\nstore = "{request.param}"\n'
    if request.param == "sqlite":
        yield common + f'folder = "{tmp_path / "streams"}"\n'
    elif request.param == "postgres":
        with running_postgres() as url:
            yield common + f'[postgres]\nurl = "{url}"\n'
    else:
        with running_redis() as server:
            yield common + f'[redis]\nurl = "{server.url}"\n'


async def test_cancel_at_another_server_closes_a_silent_upstream_within_a_second(log: str, tmp_path: Path) -> None:
    took: list[float] = []
    async with Upstream(lambda _: Reply(TALE, stall_after=3)) as upstream:
        with contextlib.ExitStack() as stack:
            nodes: list[Serve] = []
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                (tmp_path / name / "cauce.toml").write_text(table(upstream.base_url) + log)
                nodes.append(stack.enter_context(Serve(tmp_path / name)))
            await asyncio.gather(*[asyncio.to_thread(node.start) for node in nodes])
            for number in range(CANCELS):
                upstream.closed.clear()
                async with connection(nodes[0].port) as client:
                    await begin(client, 3, f"silent-{number}")
                    # At another point between two looks each time.
                    await asyncio.sleep(0.13 * (number % 7))
                    began = time.monotonic()
                    asked = asyncio.ensure_future(ask(nodes[1].port, "DELETE", f"/chat/stream/silent-{number}"))
                    await within(upstream.closed.wait())
                    took.append(time.monotonic() - began)
                    assert (await asked).json()["state"] == "cancelled"
                again = await ask(nodes[1].port, "DELETE", f"/chat/stream/silent-{number}")
                assert again.status == 200 and (await state(nodes[0].port, f"silent-{number}"))["state"] == "cancelled"
    print(f"\ncancel at another server, {CANCELS} times: longest {max(took):.2f} s, mean {sum(took) / len(took):.2f} s")
    assert max(took) <= LONGEST
