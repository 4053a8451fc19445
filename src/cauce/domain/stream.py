"""Records of a stream's log, its states, and which state may follow which.

A stream is a log of records with dense sequence numbers from 1. It starts with `Status("accepted")` and ends with exactly
one `Finish`. Anything the table `TRANSITIONS` does not list is illegal and raises.
"""

from typing import Final, Literal

import msgspec

from cauce.domain.delta import Delta, Finish, Outcome, Status
from cauce.domain.request import Request
from cauce.domain.usage import Usage

State = Literal["queued", "running", "recovering", "completed", "incomplete", "failed", "cancelled", "expired"]

OPEN: frozenset[State] = frozenset({"queued", "running", "recovering"})
TERMINAL: frozenset[State] = frozenset({"completed", "incomplete", "failed", "cancelled"})


class Transition(msgspec.Struct, frozen=True):
    """One row of the table: from any of `before` to the state in `after` (None: it stays what it is).

    `guard` must hold in the transaction that makes it. `fence`: the epoch and the tail are those of the hold. `live`: the same,
    and no cancel was requested. `claim`: the epoch is the one seen, and its holder is gone. `unknown`: there is no such stream.
    """

    name: str
    before: frozenset[State]
    after: frozenset[State]
    trigger: str
    by: Literal["anyone", "holder", "sweeper"]
    guard: Literal["unknown", "live", "fence", "claim", "ended"]


def _row(name: str, before: str, after: str, trigger: str, by: str, guard: str) -> Transition:
    return msgspec.convert(
        {
            "name": name,
            "before": before.split(),
            "after": after.split(),
            "trigger": trigger,
            "by": by,
            "guard": guard,
        },
        Transition,
    )


_ANY_OPEN = "queued running recovering"
_ANY_ENDED = "completed incomplete failed cancelled"

TRANSITIONS = (
    _row("T1", "", "queued", "a request with a new id", "anyone", "unknown"),
    _row("T2", "queued", "running", "the first attempt is chosen", "holder", "live"),
    _row("T3", "queued", "queued", "a status", "holder", "live"),
    _row("T3", "running", "running", "content, a tool, the next step", "holder", "live"),
    _row("T4", "running recovering", "recovering", "the attempt broke, another may be made", "holder", "live"),
    _row("T5", "recovering", "running", "the first content of the new attempt", "holder", "live"),
    _row("T6", "queued", "queued", "takeover", "anyone", "claim"),
    _row("T6", "running recovering", "recovering", "takeover", "anyone", "claim"),
    _row("T7", "running recovering", "completed", "the provider's own end", "holder", "live"),
    _row("T8", _ANY_OPEN, "incomplete failed", "no way on is left", "holder", "live"),
    _row("T9", _ANY_OPEN, "cancelled", "a cancel was requested", "holder", "fence"),
    _row("T10", _ANY_ENDED, "expired", "its retention is over, or it is erased", "sweeper", "ended"),
)

_NO_STATES: frozenset[State] = frozenset()


def _before(state: State, *by: str) -> frozenset[State]:
    return _NO_STATES.union(*[row.before for row in TRANSITIONS if state in row.after and row.by in by])


APPENDED: dict[State, frozenset[State]] = {state: _before(state, "holder") for state in OPEN | TERMINAL}
"""From which states an append may lead to this one."""


def claimed(state: State) -> State:
    """What a stream in `state` becomes when somebody takes it over (T6). Raises ValueError when it has ended."""
    for row in TRANSITIONS:
        if row.guard == "claim" and state in row.before:
            (after,) = row.after
            return after
    raise ValueError(f"a stream that is {state} cannot be taken over")


def advance(state: State, *steps: State) -> State:
    """The last of `steps`, if the table allows an append to go through them from `state`; raises ValueError otherwise."""
    for step in steps:
        if state not in APPENDED.get(step, _NO_STATES):
            raise ValueError(f"a stream that is {state} cannot become {step}")
        state = step
    return state


GROUP_END = "~"
"""Ends the name of a stream's group in its id: `chat-1~ui_0` is of the group `chat-1`."""


class StreamKey(msgspec.Struct, frozen=True):
    """A stream's identity: clients choose ids, so they are unique per principal only."""

    principal: str
    id: str

    @property
    def group(self) -> str:
        """The group that its id says it is of, empty for none: logs find the newest open stream of one."""
        group, end, _ = self.id.partition(GROUP_END)
        return group if end else ""


ERASED: Final = "erased"
"""Why a stream is cancelled that is erased once it has ended: it expires then, and nothing is left of it but its id."""


class Whose(msgspec.Struct, frozen=True):
    """Which streams: all of `principal`, those of its `user` (see `Scope.known_as`), or the one that is called `id`."""

    principal: str
    user: str | None = None
    id: str | None = None


class Erased(msgspec.Struct, frozen=True):
    """What an erasure came to. `deleted` are gone; `open` are cancelled, and go when they have ended."""

    deleted: tuple[StreamKey, ...] = ()
    open: tuple[StreamKey, ...] = ()


class StreamLimits(msgspec.Struct, frozen=True):
    """What one stream may hold. A commit that would go beyond is refused, unless it ends the stream."""

    bytes: int = 8 * 1024 * 1024
    records: int = 200_000


class Record(msgspec.Struct, frozen=True):
    """One entry of the log."""

    seq: int
    epoch: int
    delta: Delta


class Upstream(msgspec.Struct, frozen=True):
    """The provider's own stream, where it can be attached to again: its id there, and how far it has been read."""

    provider: str
    response_id: str
    cursor: str = ""


class AttemptRow(msgspec.Struct, frozen=True):
    """The bill of one attempt, `n` from 1. `outcome` None: it goes on. `detached`: its successor took over its bill."""

    n: int
    provider: str
    model: str
    step: int = 1
    strategy: str = "open"
    usage: Usage | None = None
    outcome: Outcome | Literal["detached"] | None = None
    deployment: str = ""
    """Empty where the provider has but one, and in rows of earlier versions."""


class History(msgspec.Struct, frozen=True):
    """What is in the log of a stream. `deltas` or `attempts` None: they are of another version, or damaged. `attempts` are its bills, the
    first one first."""

    head: "Head"
    deltas: tuple[Delta, ...] | None
    attempts: tuple[AttemptRow, ...] | None


class NewStream(msgspec.Struct, frozen=True):
    """What is known of a stream before its first record. `created` is a UNIX time in seconds.

    `wire` is the one it was asked for on. `retention` is the seconds it can be read after its end (None: the log's own).
    `policy` is what was decided at its creation, as its owner writes it. `user` is who asked, by the name that `Whose` has.
    """

    key: StreamKey
    request: Request
    request_hash: bytes
    created: float
    wire: str = "native"
    retention: float | None = None
    policy: str = ""
    user: str | None = None
    private: bool = False
    """It stays on this machine: a log that other machines may share never gets it."""

    @property
    def first(self) -> Status:
        """Its record 1."""
        return Status("accepted", facts={"model": self.request.model, "created": int(self.created)})

    @property
    def settled(self) -> bool:
        """Whether its answer is to be copied nowhere, so that there is nothing to be done after its end."""
        return not self.request.conversation_id


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
    """Last sequence number flushed to the reader that attached most recently (None: none has attached). Best effort."""
    cancel_reason: str | None = None
    wire: str = "native"
    policy: str = ""
    upstream: Upstream | None = None

    @property
    def ended(self) -> bool:
        """Whether its `Finish` is in the log."""
        return self.state in TERMINAL

    @property
    def surely_read(self) -> int:
        """After which record a reader without a cursor goes on.

        Nobody can tell whether the end arrived, which is sent again; it may have been written and sent since this was read.
        """
        return min(self.reader_mark or 0, self.tail - 1 if self.ended else self.tail)


class Unreadable(msgspec.Struct, frozen=True):
    """What is known of a stream whose head cannot be read: another version has written it, or it is damaged."""

    key: StreamKey
    created: float
    state: State
    epoch: int
    cancel_requested: bool
    cancel_reason: str | None


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
    """What one append writes, all or nothing: deltas that get the next sequence numbers, the state after them, bills of attempts.

    `through` are states it passes on the way to `state`: an answer that is there at once runs before it completes. An attempt's
    row replaces the one with its `n`. `upstream` None: as it was.
    """

    deltas: tuple[Delta, ...]
    state: State | None = None
    through: tuple[State, ...] = ()
    attempts: tuple[AttemptRow, ...] = ()
    upstream: Upstream | None = None

    @property
    def finish(self) -> Finish | None:
        """The terminal record, if this commit holds it."""
        last = self.deltas[-1] if self.deltas else None
        return last if isinstance(last, Finish) else None

    @property
    def cancels(self) -> bool:
        """Whether it is the end of a cancelled stream and nothing else: bills aside, all that is appended once a cancel was requested."""
        return self.state == "cancelled" and len(self.deltas) == 1 and self.finish is not None

    @property
    def steps(self) -> tuple[State, ...]:
        """The states it goes through, the last one included."""
        return self.through if self.state is None else (*self.through, self.state)


class Renewed(msgspec.Struct, frozen=True):
    """How a hold stands: `kept`; `lost`: another has the stream, or it has ended; `cancel`: kept, and a cancel was requested."""

    key: StreamKey
    verdict: Literal["kept", "lost", "cancel"]
