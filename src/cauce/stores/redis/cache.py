"""Cached answers that several processes share, in Redis, within one bound of bytes for all of them.

| key | what |
|---|---|
| `…{cache}:{digest}` | an answer, which goes by itself when its time is over |
| `…{cache}:order`, `…{cache}:over`, `…{cache}:sizes` | which there are, from the oldest on, until when, and how large: see `cache.lua` |

Where the server also has a bound of its own (`maxmemory`) and lets go of answers for it, they count until their time is over.
"""

from importlib.resources import files
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from cauce.ports.cache import CachedAnswer
from cauce.stores.redis.connection import RedisConnection, RedisGone


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is written."""

    deltas: bytes
    stored: float
    provider: str
    model: str
    pieces: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


class RedisCache:
    """See `ports.cache.BoundedCache`. `most_bytes` bounds what all processes keep together; the oldest answers go first, and one that
    is larger alone is not kept. While the server is gone it is empty, and nothing waits for it."""

    def __init__(self, connection: RedisConnection, most_bytes: int) -> None:
        self._connection = connection
        self._most = most_bytes
        # One hash tag: in a cluster all of them are in one slot, as the script needs them.
        self._prefix = connection.key("{cache}:")
        self._index = [self._prefix + name for name in ("order", "over", "sizes")]
        self._text = files("cauce.stores.redis").joinpath("cache.lua").read_text("utf-8")
        self._script: Any = None
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes of all answers with all that is kept for them, as of what this process wrote last."""
        return self._size

    async def get(self, key: bytes) -> CachedAnswer | None:
        name = self._prefix + key.hex()
        try:
            found = cast(bytes | None, await self._connection.run(lambda redis: redis.get(name)))
        except RedisGone:
            return None
        if found is None:
            return None
        try:
            kept = _decode(found)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Another version has written it.
            return None
        return CachedAnswer(kept.deltas, kept.stored, kept.provider, kept.model, kept.pieces)

    async def put(self, key: bytes, answer: CachedAnswer, keep: float) -> None:
        milliseconds = int(keep * 1000)
        if milliseconds <= 0:
            await self.delete(key)
            return
        kept = _encode(_Kept(answer.deltas, answer.stored, answer.provider, answer.model, answer.pieces))
        await self._run("put", key, kept, milliseconds, self._most)

    async def delete(self, key: bytes) -> None:
        await self._run("delete", key)

    async def _run(self, operation: str, key: bytes, *rest: bytes | int) -> None:
        name = key.hex()
        keys = [self._prefix + name, *self._index]

        async def command(redis: Redis) -> Any:
            if self._script is None:
                self._script = redis.register_script(self._text)
            return await self._script(keys, [operation, self._prefix, name, *rest])

        try:
            self._size = await self._connection.run(command)
        except RedisGone:
            return
