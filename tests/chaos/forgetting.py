"""A Redis that dies, and comes back with all it was told or without the newest of it."""

import asyncio
import os
from pathlib import Path

from tests.redis_server import RedisServer

_TAIL = 0.15
"""What part of what it was told a power cut takes: with `appendfsync everysec` it is the newest second."""


class Forgetting:
    """See `cauce.testing.chaos.beneath.Backing`. `folder` is where the server keeps what it is told."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self._server = server
        self._folder = folder

    async def down(self, *, whole: bool) -> None:
        # Killed, it may not even have written to its file what it acknowledged: it waits for a sync of the disk that is under way.
        await asyncio.to_thread(self._server.end if whole else self._server.stop)

    async def up(self, *, whole: bool) -> int:
        lost = 0
        if not whole:
            # Of version 7 on it is a folder, of which the newest file is written.
            told = max(self._folder.rglob("*.aof"), key=lambda file: file.stat().st_mtime)
            size = told.stat().st_size
            lost = int(_TAIL * size)
            # In the middle of a command: the server takes what is whole.
            os.truncate(told, size - lost)
        await asyncio.to_thread(self._server.start)
        return lost
