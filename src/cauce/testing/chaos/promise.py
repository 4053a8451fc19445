"""What the settings of nodes promise of an answer that breaks: how far it is gone on with, and when it may end in its error."""

from collections.abc import Iterator

import msgspec

from cauce.domain.stream import StreamLimits
from cauce.engine.recovery.past import GOING_ON
from cauce.testing.chaos.settings import NodeSettings
from cauce.testing.chaos.story import Record, Story, text_of


class Promise(msgspec.Struct, frozen=True):
    """`slack` (seconds) is how late the machine itself was. `keeps`: streams outlive their server."""

    settings: NodeSettings
    slack: float
    keeps: bool = True


def excuse(story: Story, records: list[Record], promise: Promise) -> str:
    """Why a stream may have ended in its error, which is mostly a setting; empty: it may not."""
    settings, recovery = promise.settings, promise.settings.recovery
    if not promise.keeps and story.forgotten is not None and (story.ended or story.forgotten) >= story.forgotten:
        return '[streams] store = "memory"'
    if story.midstream == "fail" and _shown(records):
        return '[models] midstream = "fail"'
    if len([record for record in records if _is_further(record)]) >= recovery.attempts:
        return f"[recovery] attempts = {recovery.attempts}"
    if story.midstream == "resume" and story.attempts and story.attempts[-1].status == 400:
        return '[models] midstream = "resume"'
    lasted = (story.ended or story.born) - story.born + promise.slack
    if lasted >= recovery.age:
        return f"[recovery] age = {recovery.age:g}"
    if lasted >= settings.timeouts.logged:
        return f"[timeouts] logged = {settings.timeouts.logged:g}"
    most = settings.streams.limits
    if most != StreamLimits() and records and records[-1].beside.get("error_code") == "payload_too_large":
        return f"[streams] max_stream = {most.bytes}, max_records = {most.records}"
    if _stood_still(story) + promise.slack >= recovery.no_progress:
        return f"[recovery] no_progress = {recovery.no_progress:g}"
    refused = [attempt for attempt in story.attempts[-2:] if not attempt.served]
    return "the provider refused" if refused and not text_of(records) else ""


def beyond(story: Story, records: list[Record], promise: Promise) -> Iterator[str]:
    """Where the answer was gone on with, and the settings say that it is not."""
    most, shown = promise.settings.recovery.attempts, _shown(records)
    further = [record.seq for record in shown if record.beside.get("strategy") in GOING_ON]
    if len(further) > most:
        yield f"it was gone on with {len(further)} times after its first words, and [recovery] attempts is {most}"
    asked = [record.seq for record in shown if record.asks]
    if story.midstream == "fail" and asked:
        yield f"somebody is asked at {asked[0]}, after its first words, and its midstream is fail"
    stitched = [record.seq for record in shown if record.beside.get("quality") == "stitched"]
    if story.midstream in ("resume", "restart") and stitched:
        yield f"its seam at {stitched[0]} is stitched, and its midstream is {story.midstream}"


def _shown(records: list[Record]) -> list[Record]:
    """The records from the first on that a reader is shown something of."""
    first = next(
        (place for place, record in enumerate(records) if record.type in ("content", "tool_call")), len(records)
    )
    return records[first:]


def _is_further(record: Record) -> bool:
    """Whether it may tell of going on: of every time one attempt is told at least, which is no retry of another."""
    return bool(record.beside.get("retrying")) and record.beside.get("strategy") != "retry"


def _stood_still(story: Story) -> float:
    """Seconds between the last content that a reader saw and the end."""
    seen = [
        frame.at
        for reader in story.readers
        if reader.wire == "native"
        for frame in reader.frames
        if b'"type":"content"' in frame.data or b'"type":"tool_call"' in frame.data
    ]
    return 0.0 if story.ended is None else story.ended - max(seen, default=story.born)
