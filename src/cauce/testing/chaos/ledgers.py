"""What the ledgers of all nodes say of the streams of a run, each of which is asked for by a user of its own."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.testing.chaos.http import told

_MOST = 10_000
"""Streams that a ledger can be asked for at once."""

_DAY = 86_400.0


class Used(msgspec.Struct, frozen=True):
    """How many attempts used how many tokens."""

    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(
            self.attempts + other.attempts,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: "Used") -> "Used":
        return Used(
            self.attempts - other.attempts,
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
        )


class Billed(msgspec.Struct, frozen=True):
    """All attempts at the answer of a stream. `estimated` are those whose provider did not say what they used."""

    total: Used = Used()
    estimated: Used = Used()

    @property
    def reported(self) -> Used:
        """Those whose provider said it, and those that used nothing."""
        return self.total - self.estimated

    def __add__(self, other: "Billed") -> "Billed":
        return Billed(self.total + other.total, self.estimated + other.estimated)


async def ledgers(ports: Sequence[int], now: float) -> dict[str, Billed]:
    """Of each user what the ledgers of all nodes have together. `now` is a UNIX time. Raises `Broken` when a node does not say."""
    found: dict[str, Billed] = {}
    # Clocks may have been a little ahead, and users are kept by the day.
    span = f"from={now - 2 * _DAY:.0f}&to={now + 2 * _DAY:.0f}"
    for port in ports:
        _, body = await told(port, "GET", f"/usage?group_by=user&limit={_MOST}&{span}")
        for group in body["groups"]:
            mine = Billed(_used(group), _used(group["estimated"]))
            found[group["user"]] = found.get(group["user"], Billed()) + mine
    return found


def _used(figures: dict[str, Any]) -> Used:
    return Used(figures["attempts"], figures["input_tokens"], figures["output_tokens"])
