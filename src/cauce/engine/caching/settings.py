"""Settings of the cache, as the configuration fills them."""

from typing import Annotated, Literal

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ttl` is the seconds an answer is fresh, `stale` those it may still be given for when no model answers.

    `scope` is who shares answers: all keys of a tenant, or each key for itself. `memory`, `disk` and `shared` are bytes, all
    answers together: here, in this server's file, and in Redis for all servers (0: none there); `max_answer` is the bytes of one.
    """

    enabled: bool = True
    ttl: Seconds = 300.0
    stale: Seconds = 86_400.0
    scope: Literal["tenant", "key"] = "tenant"
    memory: Bytes = 64 * 1024 * 1024
    disk: Bytes = 512 * 1024 * 1024
    shared: Bytes = 512 * 1024 * 1024
    max_answer: Bytes = 1024 * 1024

    @property
    def keep(self) -> float:
        """Seconds an answer is worth keeping."""
        return max(self.ttl, self.stale)
