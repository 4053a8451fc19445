"""Settings of the connection to PostgreSQL, as the configuration fills them."""

from typing import Annotated

import msgspec


class PostgresSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url` is `postgresql://[user[:password]@]host[:port]/database`, or `env:VARIABLE`; empty: no PostgreSQL. It is never shown: it may
    hold a password. Everything is kept in the database's schema `schema`."""

    url: str = ""
    schema: Annotated[str, msgspec.Meta(min_length=1)] = "cauce"

    def __repr__(self) -> str:
        return f"PostgresSettings(schema={self.schema!r})"
