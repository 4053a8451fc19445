"""Records of a stream's log, its states, and which state may follow which.

A stream is a log of records with dense sequence numbers from 1. It starts with `Status("accepted")` and ends with exactly
one `Finish`. Anything the table does not list is illegal and raises.
"""

from typing import Literal

import msgspec

from cauce.domain.delta import Delta, Finish
from cauce.domain.request import Request

State = Literal["queued", "running", "recovering", "completed", "incomplete", "failed", "cancelled", "expired"]

OPEN: frozenset[State] = frozenset({"queued", "running", "recovering"})
TERMINAL: frozenset[State] = frozenset({"completed", "incomplete", "failed", "cancelled"})

TRANSITIONS: dict[State, frozenset[State]] = {
    "queued": frozenset({"queued", "running", "incomplete", "failed", "cancelled"}),
    "running": frozenset({"running", "recovering", "completed", "incomplete", "failed", "cancelled"}),
    "recovering": frozenset({"recovering", "running", "incomplete", "failed", "cancelled"}),
    "completed": frozenset({"expired"}),
    "incomplete": frozenset({"expired"}),
    "failed": frozenset({"expired"}),
    "cancelled": frozenset({"expired"}),
    "expired": frozenset(),
}


def advance(state: State, to: State) -> State:
    """`to`, if the table allows it after `state`; raises ValueError otherwise."""
    if to not in TRANSITIONS[state]:
        raise ValueError(f"a stream that is {state} cannot become {to}")
    return to


class StreamKey(msgspec.Struct, frozen=True):
    """A stream's identity: clients choose ids, so they are unique per principal only."""

    principal: str
    id: str


class Record(msgspec.Struct, frozen=True):
    """One entry of the log."""

    seq: int
    epoch: int
    delta: Delta


class NewStream(msgspec.Struct, frozen=True):
    """What is known of a stream before its first record. `created` is a UNIX time in seconds."""

    key: StreamKey
    request: Request
    request_hash: bytes
    created: float


class Head(msgspec.Struct, frozen=True):
    """A stream without its records."""

    key: StreamKey
    request: Request
    request_hash: bytes
    created: float
    state: State
    epoch: int
    tail: int
    cancel_requested: bool = False
    terminal_at: float | None = None
    reader_mark: int | None = None
    """Last sequence number flushed to the reader that attached most recently (None: nobody has read). Best effort."""

    @property
    def ended(self) -> bool:
        """Whether its `Finish` is in the log."""
        return self.state in TERMINAL


class Created(msgspec.Struct, frozen=True):
    """Answer to `create`. `existed`: the id was known, nothing was created, attach instead (`hold` is None then)."""

    head: Head
    hold: "Hold | None"

    @property
    def existed(self) -> bool:
        """Whether the stream was there before."""
        return self.hold is None


class Hold(msgspec.Struct, frozen=True):
    """The right to append: good for one epoch, from one tail."""

    key: StreamKey
    epoch: int
    tail: int


class Commit(msgspec.Struct, frozen=True):
    """What one append writes: deltas that get the next sequence numbers, and the state after them."""

    deltas: tuple[Delta, ...]
    state: State | None = None

    @property
    def finish(self) -> Finish | None:
        """The terminal record, if this commit holds it."""
        last = self.deltas[-1] if self.deltas else None
        return last if isinstance(last, Finish) else None
