"""What a server's streams live by."""

from typing import Annotated

import msgspec

from cauce.ports.resilience import RecoverySettings

UNATTENDED_MAX_COST = 2.0
"""USD that a stream may cost that goes on unread, where nobody says otherwise."""


class Life(msgspec.Struct, frozen=True):
    """`lasting`: the log outlives this process, so that streams are handed over at its end and not ended. `lease`: the seconds that one
    of several processes may be silent (None: no other writes the log).

    `private_here`: private streams are in the memory of this process, whatever the log is. They are ended with it, and no process goes
    on with one. `recovery` says how far a stream is gone on with whose provider and route say nothing of it. `unattended_max_cost` is in USD (0: any).
    """

    lasting: bool = False
    lease: float | None = None
    recovery: RecoverySettings = RecoverySettings()
    unattended_max_cost: float = UNATTENDED_MAX_COST
    private_here: bool = False

    def keeps_here(self, *, private: bool) -> bool:
        """Whether such a stream is in the memory of this process, which nobody else writes and nobody inherits."""
        return private and self.private_here

    @property
    def tick(self) -> float:
        """Seconds between looks at what is held and at what nobody holds."""
        return 3.0 if self.lease is None else min(0.8, self.lease / 4)

    @property
    def recent(self) -> float:
        """Seconds for which the log need not be told of a stream that it has had something of. A cancel by another process is heard so much
        later than after a tick, where the stream then falls silent."""
        return self.tick / 8


ALONE = Life()
"""Of a log in memory."""


class ConversationsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Days that a conversation is kept in which nobody has spoken since (0: until it is deleted)."""

    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 0

    @property
    def keep_for(self) -> float | None:
        """The same in seconds; None: until it is deleted."""
        return self.retention_days * 86_400.0 or None
