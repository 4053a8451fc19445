"""A stream that its process left open, and what its log says of it."""

from collections.abc import Sequence

import msgspec

from cauce.domain.delta import Attempt, Delta, Restart, Status, Text, ToolResult
from cauce.domain.errors import CauceError
from cauce.domain.stream import AttemptRow, Head, Hold
from cauce.engine.recovery.past import spoke_last
from cauce.engine.streams.bills import used_by
from cauce.engine.streams.commits import Begun, Settle
from cauce.engine.streams.options import StreamOptions
from cauce.engine.streams.settings import Life
from cauce.ports.provider import Call
from cauce.ports.resilience import RecoverySettings

UNKNOWN_OUTCOME = "outcome unknown"
"""The error of a tool that ran when its process ended."""


class Orphan(msgspec.Struct, frozen=True):
    """A stream that is ours now, with what is in its log. `call` None: nothing may go on with it, for the reason `why`."""

    head: Head
    hold: Hold
    options: StreamOptions
    deltas: tuple[Delta, ...]
    closed: tuple[AttemptRow, ...]
    """Bills of attempts; `open` are of those that went down with their process."""
    open: tuple[AttemptRow, ...]
    call: Call | None
    why: CauceError

    settle: Settle

    @property
    def begun(self) -> Begun:
        """How far it has come."""
        shown = any([not isinstance(delta, Status | Attempt | Restart) for delta in self.deltas])
        text = any([isinstance(delta, Text) for delta in self.deltas])
        read = self.head.reader_mark is not None
        spent = used_by(self.closed)
        return Begun(self.head.state, shown, text, spent, self.open, self.settle, read, self.head.upstream)


def bounds_of(call: Call | CauceError, deltas: Sequence[Delta], life: Life) -> RecoverySettings:
    """How far a stream with these `deltas` is gone on with: as its route says, or whoever wrote it last."""
    if isinstance(call, CauceError) or not call.candidates:
        return life.recovery
    attempts = [delta for delta in deltas if isinstance(delta, Attempt)]
    last = max(attempts, key=lambda attempt: attempt.n, default=None)
    return spoke_last(call, last).resilience.recovery or life.recovery


def unanswered(deltas: Sequence[Delta]) -> list[ToolResult]:
    """What is told of tools that ran when their process ended."""
    started: dict[str, str] = {}
    for delta in deltas:
        if isinstance(delta, Status) and delta.kind == "tool_started":
            started[str(delta.facts.get("call_id", ""))] = str(delta.facts.get("name", ""))
        elif isinstance(delta, ToolResult):
            started.pop(delta.call_id, None)
    return [ToolResult(call_id, name, "", UNKNOWN_OUTCOME) for call_id, name in started.items()]
