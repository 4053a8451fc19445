"""What streams take in Redis together, and which go when that is more than they may.

A stream is counted once it has ended: an append of content tells nobody. Those that are open are added up when it is looked at.
"""

from collections.abc import Callable
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis

from cauce.domain.stream import OPEN
from cauce.ports.clock import Clock
from cauce.stores.followed_log import look_again
from cauce.stores.redis.stream_shelf import StreamShelf

_RECORD, _STREAM = 30, 6400
"""Bytes that a record takes beside its own, and a stream beside its request and its records: Redis makes room for the first of them ahead."""

_AT_ONCE = 500
"""Open streams that are asked for in one round trip."""


def takes(size: int, tail: int, asked: int) -> int:
    """Bytes that a stream takes, roughly. `size` are those of its `tail` records, `asked` those of its request."""
    return size + _RECORD * tail + asked + _STREAM


class StreamRoom:
    """Each of its methods raises `LogUnavailable`. `time` as in `RedisStreamLog`."""

    def __init__(
        self, shelf: StreamShelf, clock: Clock, most_bytes: int, time: Callable[[], float] | None = None
    ) -> None:
        self._shelf = shelf
        self._clock = clock
        self._most = most_bytes
        self._time = time
        self._text = files("cauce.stores.redis").joinpath("stream_room.lua").read_text("utf-8")
        self._script: Any = None
        self._look_again = clock.monotonic()

    async def ended(self, row: str, seconds: float, size: int) -> None:
        """The stream has ended: it expires in so many `seconds`, and takes `size` bytes until then. Told twice, the first holds."""
        await self._run("ended", row, repr(seconds), size)

    async def gone(self, row: str, *, remembered: bool) -> None:
        """The stream has expired. `remembered`: its id is left."""
        await self._run("gone", row, int(remembered))

    async def make(self, limit: int) -> tuple[int, list[str]]:
        """How many streams that ended first are to expire now, and of which even the id is to be forgotten, since all take more than
        they may. Where looking takes long, that is not looked at each time."""
        began = self._clock.monotonic()
        if began < self._look_again:
            return 0, []
        due, forgotten = await self._run("room", self._most, await self._open(), limit)
        if not due and not forgotten:
            self._look_again = look_again(self._clock, began)
        return due, [row.decode() for row in forgotten]

    async def _open(self) -> int:
        """Bytes of the streams that are open."""
        rows = await self._shelf.ask(lambda redis: cast(Any, redis).zrange(self._shelf.open, 0, -1))
        total = 0
        for first in range(0, len(rows), _AT_ONCE):
            names = [f"{row.decode()}:meta" for row in rows[first : first + _AT_ONCE]]
            for state, *figures in await self._shelf.fields(names, ("state", "bytes", "tail", "asked")):
                if state is not None and state.decode() in OPEN:
                    total += takes(*[int(figure or 0) for figure in figures])
        return total

    async def _run(self, operation: str, *arguments: str | int) -> Any:
        now = "" if self._time is None else repr(self._time())
        keys = [self._shelf.ended, self._shelf.gone, self._shelf.sizes]

        async def command(redis: Redis) -> Any:
            if self._script is None:
                self._script = redis.register_script(self._text)
            return await self._script(keys, [operation, now, *arguments])

        return await self._shelf.ask(command)
