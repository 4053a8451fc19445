"""How much a run had of what each invariant is about: one of which there was nothing has not been judged."""

from collections.abc import Sequence

from cauce.testing.chaos.bills import is_settled
from cauce.testing.chaos.bounds import Bounds
from cauce.testing.chaos.invariants import orphaned
from cauce.testing.chaos.plan import Settings
from cauce.testing.chaos.story import Record, Story, text_of, voices

_NODE = 100_000
"""Kilobytes of a node that holds nothing, roughly."""


def judged(stories: Sequence[Story], bounds: Bounds, settings: Settings) -> dict[str, int]:
    """By the name of each invariant how often it could have been broken."""
    found: dict[str, int] = {}
    for story in stories:
        for name, count in _of(story, story.records(), bounds).items():
            found[name] = found.get(name, 0) + count
    # Readers that take nothing must have so much to take that a node which held it would be seen to grow.
    holds = settings.stalled * settings.length // 1024
    found["I10"] = settings.stalled if holds > settings.memory - _NODE else 0
    return found


def _of(story: Story, records: list[Record], bounds: Bounds) -> dict[str, int]:
    readers = [reader for reader in (*story.readers, *story.replays) if reader.frames]
    kept = [attempt.kept for attempt in story.attempts if attempt.kept is not None]
    went_on = len(story.attempts) > 1
    return {
        "I1": len(readers),
        "I2": len(readers) > len({reader.wire for reader in readers}),
        "I3": bool(text_of(records)),
        "I4": len(set(voices(records))) > 1,
        "I5": 1,
        "I6": len(story.cancels),
        "I7": is_settled(story, records, bounds),
        "I8": sum([record.type == "tool_call" and record.beside["mark"] == "ready" for record in records]),
        "I9": sum([attempt.status == 200 for attempt in story.attempts]),
        "I11": len(list(orphaned(story, bounds))),
        "I12": went_on,
        "I13": story.swept or story.forgotten is not None,
        "I14": sum([record.restarts for record in records]),
        "I15": went_on,
        "I16": sum([bool(one.attached) for one in kept]),
    }
