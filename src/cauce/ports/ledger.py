"""The account of what was asked of whom: one entry per attempt, whatever became of it."""

from typing import Protocol

import msgspec

from cauce.domain.delta import Level, Outcome
from cauce.domain.errors import ErrorCode
from cauce.domain.request import Scope
from cauce.domain.usage import Usage


class Entry(msgspec.Struct, frozen=True):
    """One attempt. `at` is a UNIX time; `latency` and `first_delta` are seconds (`first_delta` None: nothing came)."""

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


class Ledger(Protocol):
    def record(self, entry: Entry) -> None:
        """Take `entry`. Must not block: it is called before the terminal frame leaves."""
        ...
