"""Cached answers that several processes share, in Redis: it lets go of them when their time is over, or when it needs the room.

Without `maxmemory` and a policy such as `allkeys-lru` it keeps all of them for their time.
"""

from typing import cast

import msgspec

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
    """See `ports.cache.Cache`. While the server is gone it is empty, and nothing waits for it."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._prefix = connection.key("cache:")

    async def get(self, key: bytes) -> CachedAnswer | None:
        name = self._name(key)
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
        name, milliseconds = self._name(key), int(keep * 1000)
        kept = _encode(_Kept(answer.deltas, answer.stored, answer.provider, answer.model, answer.pieces))
        try:
            if milliseconds > 0:
                await self._connection.run(lambda redis: redis.set(name, kept, px=milliseconds))
            else:
                await self._connection.run(lambda redis: redis.delete(name))
        except RedisGone:
            return

    async def delete(self, key: bytes) -> None:
        name = self._name(key)
        try:
            await self._connection.run(lambda redis: redis.delete(name))
        except RedisGone:
            return

    def _name(self, key: bytes) -> str:
        return self._prefix + key.hex()
