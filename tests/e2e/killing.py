"""A server that is killed in the middle of its work, as often as one likes, and what its ledger knows afterwards."""

import asyncio
import contextlib
import signal
import sqlite3
from collections import Counter
from pathlib import Path

import msgspec

from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Tokens
from tests.e2e.process import Serve
from tests.http import ask, connection
from tests.serving import MESSAGES, upstream_table

TOKENS = Tokens(input=100, output=20)


class Aftermath(msgspec.Struct):
    """`delivered` are the request ids of answers that clients have seen the end of, `rows` how often the ledger has each request."""

    delivered: list[str]
    rows: Counter[str]
    requests_told: int
    """What `GET /usage` says after the last start."""

    @property
    def missing(self) -> list[str]:
        """Delivered answers that the ledger does not have."""
        return [id for id in self.delivered if not self.rows[id]]

    @property
    def doubled(self) -> list[str]:
        """Requests that the ledger has more than once."""
        return [id for id, count in self.rows.items() if count > 1]


async def killed_under_load(folder: Path, *, kills: int = 1, answers: int = 150, clients: int = 8) -> Aftermath:
    """Start a server in `folder`, have `clients` ask until `answers` have been delivered, kill it with SIGKILL; `kills` times.

    Half of the answers are streamed. One more start takes in what is left.
    """
    delivered: list[str] = []
    async with Upstream(Reply(text="a few words in some pieces", usage=TOKENS)) as upstream:
        (folder / "cauce.toml").write_text(upstream_table("up", upstream.base_url, default_model="m"))
        for _ in range(kills):
            with Serve(folder) as serve:
                await asyncio.to_thread(serve.start)
                enough = asyncio.Event()
                aim = len(delivered) + answers
                work = [ask_on(serve.port, number, delivered, aim, enough) for number in range(clients)]
                tasks = [asyncio.create_task(one) for one in work]
                await asyncio.wait_for(enough.wait(), 60)
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
                await asyncio.gather(*tasks)
        with Serve(folder) as serve:
            await asyncio.to_thread(serve.start)
            told = (await ask(serve.port, "GET", "/usage")).json()
            await asyncio.to_thread(serve.stop, signal.SIGTERM)
    return Aftermath(delivered, rows_in(folder), told["total"]["requests"])


async def ask_on(port: int, number: int, delivered: list[str], aim: int, enough: asyncio.Event) -> None:
    """Ask until the server is gone; `enough` is set when `delivered` has `aim` answers. Odd numbers have theirs streamed."""
    body = msgspec.json.encode({"model": "up/m", "messages": MESSAGES, "stream": number % 2 == 1})
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with connection(port) as client:
            while True:
                await client.send("POST", "/llm/message", body)
                response = await client.response()
                whole = response.complete and (number % 2 == 0 or response.frames()[-1]["type"] == "complete")
                if response.status != 200 or not whole:
                    return
                delivered.append(response.headers["x-cauce-request-id"])
                if len(delivered) >= aim:
                    enough.set()


def rows_in(folder: Path) -> Counter[str]:
    """How often the ledger somewhere in `folder` has each request."""
    [file] = folder.rglob("ledger.sqlite")
    database = sqlite3.connect(file)
    try:
        days = database.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'attempts_*' AND type = 'table'")
        return Counter(
            [id for (day,) in days.fetchall() for (id,) in database.execute(f"SELECT request_id FROM {day}")]
        )
    finally:
        database.close()
