"""Streams that have ended are made old while they are read: their readers see what was there, or a part of it and a cut, and then that
it is gone."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from cauce.testing.chaos.faults import Faults
from cauce.testing.chaos.http import Broken, told
from cauce.testing.chaos.node import Ground, Node
from cauce.testing.chaos.reader import Oddity, Reader
from cauce.testing.chaos.story import Story

_READERS = 3
_GOES = 30.0
"""Seconds within which a stream that was made old must have gone: those who sweep are paused and killed meanwhile."""

_STEP = 0.5
_PIECE = 0.02
"""Seconds between two steps of its going, and that a connection of those who read it lasts at most."""


class Aging:
    """Makes streams old."""

    def __init__(self, faults: Faults, ground: Ground, *, alone: bool) -> None:
        self._faults = faults
        self._ground = ground
        self._alone = alone

    async def outlive(self, story: Story, port: Callable[[], int]) -> None:
        """Have the stream, which has ended and been replayed, go while several read it over and over."""
        self._faults.count("sweep")
        readers = [asyncio.create_task(self._until_gone(story, number, port)) for number in range(_READERS)]
        loop = asyncio.get_running_loop()
        until = loop.time() + _GOES
        try:
            while loop.time() < until and not all([task.done() for task in readers]):
                await age(self._ground, story.stream, alone=self._alone)
                story.swept = True
                await asyncio.wait(readers, timeout=_STEP)
            if not all([task.done() for task in readers]):
                story.odd.append(Oddity("I13", f"it was made old {_GOES:g} s ago, and can still be read"))
        finally:
            for task in readers:
                task.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _until_gone(self, story: Story, number: int, port: Callable[[], int]) -> None:
        chance = self._faults.chance("late", story.stream, number)
        gone = False
        while not gone:
            reader = Reader(story.stream, f"reader {number} of what goes", port)
            reader.expects_end = True
            story.readers.append(reader)
            await reader.follow(lambda: _PIECE * chance.random())
            gone = reader.sent_away
            await asyncio.sleep(_PIECE)


async def gone(story: Story, nodes: Sequence[Node]) -> None:
    """Have every node say of the stream that it is gone."""
    loop = asyncio.get_running_loop()
    for node in nodes:
        status, until = 0, loop.time() + _GOES
        while status != 410 and loop.time() < until:
            with contextlib.suppress(Broken):
                status, _ = await told(node.port, "GET", f"/chat/stream/{story.stream}/resume?after=0")
            await asyncio.sleep(_PIECE)
        if status not in (0, 410):
            story.odd.append(Oddity("I13", f"{node.name} answers {status}, though it is gone"))


async def unknown(story: Story, nodes: Sequence[Node]) -> None:
    """Have every node say of the stream, which went down with its server, that there is none."""
    for node in nodes:
        status, until = 0, asyncio.get_running_loop().time() + _GOES
        while not status and asyncio.get_running_loop().time() < until:
            with contextlib.suppress(Broken):
                status, _ = await told(node.port, "GET", f"/chat/stream/{story.stream}")
        if status not in (404, 410):
            story.odd.append(Oddity("I13", f"{node.name} answers {status}, though its server forgot it"))


async def age(ground: Ground, stream: str, *, alone: bool) -> None:
    """Have the next sweep take the next step with `stream`, if that has ended: it expires, or its records are deleted."""
    match ground.store:
        case "sqlite":
            await asyncio.to_thread(_in_file, ground.file(alone=alone), stream)
        case "postgres":
            await _in_postgres(ground, stream)
        case "redis":
            await _in_redis(ground, stream)
        case "memory":
            pass


# What has expired and has no bytes any more is a tombstone: without it the id would be unknown, and not gone.
_AGE = "UPDATE {} SET due = 1 WHERE id = {} AND due IS NOT NULL AND bytes > 0"


def _in_file(file: Path, stream: str) -> None:
    database = sqlite3.connect(file, timeout=10, isolation_level=None)
    try:
        database.execute(_AGE.format("streams", "?"), (stream,))
    except sqlite3.OperationalError:
        # The disk may be full just now; it is aged again.
        pass
    finally:
        database.close()


async def _in_postgres(ground: Ground, stream: str) -> None:
    from psycopg import AsyncConnection, sql

    async with await AsyncConnection.connect(ground.url, autocommit=True) as connection:
        table = sql.Identifier(ground.room, "streams")
        await connection.execute(sql.SQL(_AGE).format(table, sql.Literal(stream)))


async def _in_redis(ground: Ground, stream: str) -> None:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    client: Any = Redis.from_url(ground.url)  # pyright: ignore[reportUnknownMemberType]
    ended = f"{ground.room}:{{streams}}:ended"
    try:
        for row in cast("list[bytes]", await client.zrange(ended, 0, -1)):
            if await client.hget(row + b":meta", "id") == stream.encode():
                await client.zadd(ended, {row: 0})
    except RedisError:
        # It may be away just now.
        pass
    finally:
        await client.aclose()
