"""From deltas to commits: the states they lead a stream through, and the bills of attempts that they open and close."""

from collections.abc import Callable, Sequence

import msgspec

from cauce.domain.delta import Attempt, Delta, Finish, Outcome, Restart, Status, Text
from cauce.domain.stream import AttemptRow, Commit, State, Upstream
from cauce.domain.usage import Usage, summed
from cauce.engine.streams.bills import total
from cauce.ports.ledger import Entry

NOWHERE = Upstream("", "")
"""The position in a provider's stream, once it cannot be attached to any more."""

ATTACH = "attach"
"""The strategy of an attempt that reads the provider's own stream on."""

_NO_ANSWER = (Status, Attempt, Restart, Finish)
"""What is nothing of an answer."""


Settle = Callable[[Sequence[AttemptRow]], None]


def _unsettled(_: Sequence[AttemptRow]) -> None:
    """Nobody writes it down."""


class Begun(msgspec.Struct, frozen=True):
    """How far a stream has come that is written on. `shown`: there is something of the answer in it; `text`: there is text; `read`:
    somebody has come to read it.

    `spent` is what its attempts have used whose bills are closed (None: there were none). `open` are the bills of those that went down
    with their process, with what they have used. They are closed as failed, and `settle` called with them; but where the provider's
    own stream is attached to again, its successor takes the bill over. `upstream` is how far that stream was read.
    """

    state: State = "queued"
    shown: bool = False
    text: bool = False
    spent: Usage | None = None
    open: tuple[AttemptRow, ...] = ()
    settle: Settle = _unsettled
    read: bool = False
    upstream: Upstream | None = None


NEW = Begun()


class Commits:
    """Of one stream, by one holder. What a commit was made of counts once it is `written`."""

    def __init__(self, begun: Begun = NEW) -> None:
        self.state: State = begun.state
        self._spent = begun.spent
        self._open = begun.open
        self._settle = begun.settle
        self._failed: list[AttemptRow] = []
        self.adopted = begun is not NEW
        """Whether another process began it."""
        self._shown = begun.shown
        self._rows: dict[int, AttemptRow] = {}
        self._newest = 0
        self._unbilled: dict[int, AttemptRow] = {}
        """Rows that no append has taken yet."""
        self._entries: dict[int, Entry] = {}
        self._upstream = begun.upstream

    @property
    def attempt(self) -> AttemptRow | None:
        """The newest attempt."""
        return self._rows.get(self._newest)

    @property
    def owes(self) -> bool:
        """Whether an attempt has ended of which the log does not know it."""
        return any([row.outcome is not None for row in self._unbilled.values()])

    def left_open(self, n: int) -> bool:
        """Whether the log has attempt `n` as one that goes on."""
        row = self._rows.get(n)
        return row is not None and row.outcome is None and n not in self._unbilled

    def billed(self, entry: Entry) -> None:
        """The ledger gets `entry`, which is of an attempt for this stream."""
        self._entries[entry.n] = entry
        row = self._rows.get(entry.n)
        if row is not None:
            self._close(row, entry.outcome, entry.usage)

    def used(self, told: Usage | None, coming: Sequence[Delta] = ()) -> Usage:
        """What the whole stream has used once `coming` is written; `told` is what the answer itself says of the attempts made here."""
        if self.adopted or told is None:
            # Attempts of earlier processes are in no answer of ours: all are added up by their bills.
            asked = self._rows or any([isinstance(delta, Attempt) for delta in coming])
            # What was whole but for its end nobody was asked for: what it tells is what its attempts have used.
            here = total([entry.usage for entry in self._entries.values()]) or (told if asked else None)
            before = total([row.usage for row in self._to_pay(coming) if row.usage is not None])
            known = [usage for usage in (self._spent, before, here) if usage is not None]
            return total(known) or told or Usage(estimated=True)
        return told

    def commit(self, deltas: Sequence[Delta], upstream: Upstream | None = None) -> Commit:
        """`deltas` with everything that is to be written with them."""
        states = self._states(deltas)
        self._bill(deltas)
        moved = upstream if self._upstream is None else upstream or NOWHERE
        moved = None if moved == self._upstream else moved
        self._upstream = moved or self._upstream
        rows = tuple(self._unbilled.values())
        if not states:
            return Commit(tuple(deltas), attempts=rows, upstream=moved)
        return Commit(tuple(deltas), states[-1], tuple(states[:-1]), rows, moved)

    def leaving(self, deltas: Sequence[Delta], upstream: Upstream | None) -> Commit:
        """The same, for a stream that another process goes on with."""
        commit = self.commit(deltas, upstream)
        state = commit.state or self.state
        if commit.finish is None and state == "running":
            through = commit.steps
            return msgspec.structs.replace(commit, state="recovering", through=through)
        return commit

    def written(self, commit: Commit) -> None:
        """`commit` is in the log."""
        for row in commit.attempts:
            # One that was closed while this was being written is still to be told of.
            if self._unbilled.get(row.n) is row:
                del self._unbilled[row.n]
        if self._failed:
            self._settle(self._failed)
            self._failed = []
        if not self._open:
            # It has the whole past.
            self._settle = _unsettled
        self.state = commit.state or self.state
        self._shown = self._shown or any([not isinstance(delta, _NO_ANSWER) for delta in commit.deltas])

    def _states(self, deltas: Sequence[Delta]) -> list[State]:
        """The states that `deltas` lead through, each other than the one before it."""
        state, shown = self.state, self._shown
        states: list[State] = []

        def go(to: State) -> None:
            nonlocal state
            if to != state:
                states.append(to)
                state = to

        for delta in deltas:
            kind = type(delta)
            if kind is Text or not isinstance(delta, _NO_ANSWER):
                shown = True
                if state != "running":
                    go("running")
            elif isinstance(delta, Attempt):
                # One that goes on with what was shown.
                go("recovering" if shown or state == "recovering" else "running")
            elif isinstance(delta, Finish):
                if delta.outcome == "completed" and state == "queued":
                    # An answer that is there at once: the stream still runs before it completes.
                    go("running")
                go(delta.outcome)
        return states

    def _bill(self, deltas: Sequence[Delta]) -> None:
        """Open and close the rows of attempts that begin and end in `deltas`."""
        for delta in deltas:
            row = self.attempt
            if self._open:
                self._bill_past(delta)
            if isinstance(delta, Attempt):
                if row is not None and row.outcome is None:
                    self._close(row, "failed", None)
                row = AttemptRow(
                    delta.n, delta.provider, delta.model, delta.step, delta.strategy, deployment=delta.deployment
                )
                self._newest, self._rows[delta.n], self._unbilled[delta.n] = delta.n, row, row
                entry = self._entries.get(delta.n)
                if entry is not None:
                    self._close(row, entry.outcome, entry.usage)
            elif isinstance(delta, Finish) and row is not None and row.outcome is None:
                self._close(row, delta.outcome, None if self.adopted else delta.usage)

    def _bill_past(self, delta: Delta) -> None:
        """Close the bills of attempts that went down with their process, once `delta` tells who takes them over."""
        left = self._left(delta, attached=self._attached)
        if left is not None:
            self._close_past(left)

    @property
    def _attached(self) -> bool:
        """Whether the newest attempt goes on with the provider's own stream."""
        return self.attempt is not None and self.attempt.strategy == ATTACH

    def _left(self, delta: Delta, *, attached: bool) -> Sequence[AttemptRow] | None:
        """Of the attempts that went down those that nobody takes over; None: `delta`, after one that `attached` or not, does not tell."""
        if isinstance(delta, Attempt):
            return None if delta.strategy == ATTACH else self._owners
        if isinstance(delta, Finish):
            return self._owners[:-1] if attached and delta.outcome == "completed" else self._owners
        return self._owners[:-1] if attached and not isinstance(delta, _NO_ANSWER) else None

    @property
    def _owners(self) -> Sequence[AttemptRow]:
        """Of the attempts that went down those that nobody has attached to since: who did has the bill."""
        return [
            row
            for place, row in enumerate(self._open, start=1)
            if place == len(self._open) or self._open[place].strategy != ATTACH
        ]

    def _to_pay(self, coming: Sequence[Delta]) -> Sequence[AttemptRow]:
        """Of the attempts that went down those whose bills stay theirs, as far as `coming` tells."""
        attached = self._attached
        for delta in coming:
            left = self._left(delta, attached=attached)
            if left is not None:
                return left
            attached = attached or isinstance(delta, Attempt)
        return self._owners

    def _close_past(self, failed: Sequence[AttemptRow]) -> None:
        """All of them; those not in `failed` are taken over."""
        for row in self._open:
            if row in failed:
                self._failed.append(row)
                self._spent = row.usage if self._spent is None or row.usage is None else summed(self._spent, row.usage)
                self._unbilled[row.n] = row
            else:
                self._unbilled[row.n] = msgspec.structs.replace(row, usage=None, outcome="detached")
        self._open = ()

    def _close(self, row: AttemptRow, outcome: Outcome, usage: Usage | None) -> None:
        closed = msgspec.structs.replace(row, usage=usage, outcome=outcome)
        self._rows[row.n] = self._unbilled[row.n] = closed
