"""Where answers are kept to be given again, and what a client says of that."""

from typing import Protocol

import msgspec

from cauce.domain.delta import Delta


class CacheControl(msgspec.Struct, frozen=True):
    """What `Cache-Control` of a request says. Ages are in seconds (None: not said).

    `wanted`: the client asks for a cached answer where one would not be looked for by itself. `max_age` is how old an answer may
    be, in place of the configured time; `max_stale` how much older than that, `stale_if_error` how old where no model answers.
    """

    read: bool = True
    store: bool = True
    wanted: bool = False
    only_cached: bool = False
    max_age: float | None = None
    max_stale: float | None = None
    min_fresh: float = 0.0
    stale_if_error: float | None = None


NO_CACHE = CacheControl(read=False, store=False)
ANY_ANSWER = CacheControl()
"""What a client says that says nothing."""


class CachedAnswer(msgspec.Struct):
    """An answer that completed. `deltas` is what it was made of, encoded by the engine; `stored` is a UNIX time.

    `provider` and `model` gave it once. `pieces` is how many deltas it has. `decoded` are they, once somebody has read
    them: the engine's own, which no store writes down.
    """

    deltas: bytes
    stored: float
    provider: str
    model: str
    pieces: int = 1
    decoded: tuple[Delta, ...] | None = None

    @property
    def size(self) -> int:
        """Bytes it takes in memory, roughly, read or not."""
        return len(self.deltas) + 150 * self.pieces + 400


class Cache(Protocol):
    """`key` is a digest that holds everything an answer depends on, the tenant included. Losing entries is no fault."""

    async def get(self, key: bytes) -> CachedAnswer | None:
        """The answer kept under `key`, however old; None if there is none."""
        ...

    async def put(self, key: bytes, answer: CachedAnswer, keep: float) -> None:
        """Keep `answer` for `keep` seconds, in place of an older one. Others may have to go for it."""
        ...

    async def delete(self, key: bytes) -> None:
        """Forget the answer under `key`."""
        ...


class BoundedCache(Cache, Protocol):
    """A cache that says how much it holds."""

    @property
    def size(self) -> int:
        """Bytes of all answers, as far as this process knows."""
        ...
