"""Settings of Redis, as the configuration fills them."""

from typing import Annotated

import msgspec


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url` is `redis://…`, `rediss://…` or `unix://…`, or `env:VARIABLE`; empty: no Redis. It is never shown: it may hold a password.

    `nodes` is how many processes share it: the part of each limit that one of them uses alone while Redis is gone. `prefix` stands
    before all keys.
    """

    url: str = ""
    nodes: Annotated[int, msgspec.Meta(ge=1)] = 1
    prefix: str = "cauce:"

    def __repr__(self) -> str:
        return f"RedisSettings(nodes={self.nodes})"
