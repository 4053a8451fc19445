"""Settings of what is kept in SQLite, as the configuration fills them."""

from typing import Annotated

import msgspec

Days = Annotated[int, msgspec.Meta(ge=1, le=36_500)]


class LedgerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Days that single attempts, and sums of them, are kept. `max_bytes` bounds the ledger's file: the oldest attempts go first.

    As it comes it holds a million attempts a day for all these days, with their sums.
    """

    keep_attempts: Days = 30
    keep_rollups: Days = 400
    max_bytes: Annotated[int, msgspec.Meta(ge=16 * 1024 * 1024)] = 8 * 1024 * 1024 * 1024


class ResponsesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Days that responses of `/v1/responses` are kept: 30, as OpenAI keeps them. `max_bytes` bounds their file: the oldest go first."""

    keep: Days = 30
    max_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 1024 * 1024 * 1024
