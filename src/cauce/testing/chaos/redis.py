"""What a run leaves in Redis: keys of one prefix, which are deleted. Needs the extra `redis`."""

from typing import Any

from redis.asyncio import Redis

_AT_ONCE = 500


async def clear(url: str, room: str) -> None:
    """Delete every key of the run. Raises `redis.RedisError`."""
    client: Any = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]
    try:
        keys: list[bytes] = []
        async for key in client.scan_iter(match=f"{room}:*", count=_AT_ONCE):
            keys.append(key)
            if len(keys) >= _AT_ONCE:
                await client.unlink(*keys)
                keys.clear()
        if keys:
            await client.unlink(*keys)
    finally:
        await client.aclose()
