"""What depends on the run of all that is judged: what was done to its nodes, and how late things may be."""

import msgspec

from cauce.testing.chaos.settings import NodeSettings
from cauce.testing.chaos.story import Story


class Outage(msgspec.Struct, frozen=True):
    """A node did not work from `begin` to `end`: it was paused, or dead. Times are the loop's."""

    node: str
    begin: float
    end: float
    paused: bool
    beneath: bool = False
    """It worked, and what it stands on did not, or it was about to end: it goes on with what it has, and takes nothing."""


class Bounds(msgspec.Struct, frozen=True):
    """What depends on the run. `slack` (seconds) is added to every bound in time: how late the machine itself was.

    `renewal`: seconds until a holder hears of a cancel elsewhere. `takeover`: until an orphan is written on, after its node is back
    where there is `alone` one, else after it went; who is away for less than a `lease` loses nothing to others. `memory` is in kilobytes.
    `keeps`: streams outlive their server.
    """

    slack: float
    renewal: float = 3.0
    takeover: float = 6.0
    alone: bool = True
    lease: float = 0.0
    memory: int = 600_000
    settings: NodeSettings = NodeSettings()
    keeps: bool = True
    outages: tuple[Outage, ...] = ()
    loses: bool = False
    """The store may lose what it acknowledged."""

    def died(self, story: Story) -> bool:
        """Whether a node went away while the stream was open."""
        ended = float("inf") if story.ended is None else story.ended
        return any([story.born <= away.begin <= ended for away in self.outages])
