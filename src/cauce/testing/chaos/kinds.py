"""What each stream of a run is: how much it says, and how it is begun. All of it is drawn from the seed."""

import msgspec

from cauce.testing.chaos.faults import Faults
from cauce.testing.chaos.plan import Settings
from cauce.testing.chaos.ways import Way

_MOST_CALLS = 3
_WITHOUT_TEXT = 0.25
"""Part of the answers with calls that say nothing before them."""


class Kind(msgspec.Struct, frozen=True):
    """`length` is that of its text, `calls` are those of tools behind it. `restarts`: it begins anew where it breaks. `early`: its cancel
    comes before it. `kept`: its provider keeps what it says."""

    length: int
    calls: int
    restarts: bool
    way: Way = "stream"
    early: bool = False
    kept: bool = False


def kind_of(faults: Faults, settings: Settings, number: int) -> Kind:
    """That of stream `number`."""
    chance = faults.chance("kind", number)
    calls = chance.randint(1, _MOST_CALLS) if chance.random() < settings.calls else 0
    length = 0 if calls and chance.random() < _WITHOUT_TEXT else settings.length
    restarts = chance.random() < settings.restarts
    if restarts:
        # Only our own wire is told in a header that its reader takes that.
        return Kind(length, calls, restarts)
    drawn, ways = faults.chance("way", number), faults.chance("wire of the way", number)
    place = drawn.random()
    way: Way = "stream"
    if place < settings.keyed:
        way = ways.choice(("keyed chat", "keyed messages"))
    elif place < settings.keyed + settings.background:
        way = "background"
    # A response that is not there has no address yet by which it could be cancelled.
    early = way != "background" and drawn.random() < settings.early_cancels
    kept = drawn.random() < settings.kept
    return Kind(length, calls, restarts, way, early, kept)
