"""Where answers are kept to be given again."""

from typing import Protocol

import msgspec


class CachedAnswer(msgspec.Struct, frozen=True):
    """An answer that completed. `deltas` is what it was made of, encoded by the engine; `stored` is a UNIX time."""

    deltas: bytes
    stored: float
    provider: str
    model: str

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return len(self.deltas) + 200


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
