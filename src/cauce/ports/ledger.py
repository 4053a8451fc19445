"""The account of what was asked of whom: one entry per attempt, whatever became of it."""

from typing import Protocol

import msgspec

from cauce.domain.delta import Level, Outcome
from cauce.domain.errors import ErrorCode
from cauce.domain.request import Scope
from cauce.domain.usage import Usage


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One attempt, or one answer out of the cache (then `provider` and `model` are those that once gave it, at no cost).

    `at` is a UNIX time, when it ended; `latency` and `first_delta` are seconds (`first_delta` None: nothing came).
    `request_id` is of the request, which may have several attempts: `n` counts them from 1.

    The cost stands in `usage`. `listed_cost` is what it would be by the prices of `price_snapshot` (None: there are none): the
    same figure, unless the provider told its own.
    """

    at: float
    request_id: str
    scope: Scope
    provider: str
    model: str
    level: Level
    outcome: Outcome
    error_code: ErrorCode | None
    usage: Usage
    latency: float
    first_delta: float | None
    listed_cost: float | None = None
    price_snapshot: str = ""
    stream_id: str = ""
    conversation_id: str = ""
    endpoint: str = "chat"
    """What was asked for: chat, completions, embeddings."""
    deployment: str = ""
    n: int = 1
    waited: float = 0.0
    """Seconds the request had waited here before this attempt."""


class LedgerStanding(msgspec.Struct, frozen=True):
    """How a ledger stands. `waiting` entries are in memory only, since the disk takes none; `lost` ones had no room even there.
    `behind`: what is on disk cannot be put in order now, so that reports may be slow; nothing is lost by that."""

    waiting: int = 0
    lost: int = 0
    behind: bool = False

    @property
    def well(self) -> bool:
        """Whether nothing is wrong now. What was lost earlier is past mending."""
        return not (self.waiting or self.behind)


class Ledger(Protocol):
    def record(self, entry: Entry) -> None:
        """Take `entry`. Must not block: it is called before the terminal frame leaves."""
        ...
