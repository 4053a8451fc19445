"""What must hold of every stream, whatever was done to it. Each function gives the violations of one invariant."""

from collections.abc import Callable, Iterator

import msgspec

from cauce.testing.chaos.attempt import Attempt
from cauce.testing.chaos.bills import billed_wrongly
from cauce.testing.chaos.bounds import Bounds, Outage
from cauce.testing.chaos.promise import Promise, beyond, excuse
from cauce.testing.chaos.seams import called_wrongly, read_on_wrongly, taken_back_wrongly
from cauce.testing.chaos.shown import KEEPING, Shown, shown
from cauce.testing.chaos.story import Record, Story, queued, text_of, voices
from cauce.testing.chaos.text import read, written

INVARIANTS: dict[str, str] = {
    "I1": "frames are numbered 1, 2, 3… without holes, for each reader, across reconnects",
    "I2": "all readers of a stream and its late replay see the same bytes, on each wire",
    "I3": "each token stands at its own place, on every wire, and what a provider is sent to go on with is what was committed",
    "I4": "attempts never interleave, and none comes back",
    "I5": "a stream ends exactly once, with nothing after it, and no stream goes without",
    "I6": "after a cancel is acknowledged nothing is written or asked any more, and the stream ends as cancelled; none does unasked",
    "I7": "what a stream is billed is what the provider served, once, in its end and in the ledgers; a repeated request asks nobody",
    "I8": "each tool call begins at most once, is whole and of one attempt where it is said to be, and nobody is asked again after it",
    "I9": "the provider sees its connection closed soon after an attempt is over",
    "I10": "readers that take nothing do not make a node grow",
    "I11": "a stream whose node is gone is written on in time",
    "I12": "an answer breaks off only where no way on was left that the settings allow",
    "I13": "a stream whose time is over is gone for everybody, and is read as it was until then",
    "I14": "what is taken back is told from where, and what stands then is one attempt's, on each wire that can take it back",
    "I15": "an answer is gone on with no further than the settings allow",
    "I16": "an answer that its provider keeps is read on there and not asked for again, by whoever has the stream, and stopped when nobody wants it",
}


_STATES = {"complete": "completed", "cancelled": "cancelled"}
_OPEN = ("", "queued", "running", "recovering")


class Violation(msgspec.Struct, frozen=True):
    """`stream` is empty where it is of a node."""

    invariant: str
    stream: str
    message: str


def judge(story: Story, bounds: Bounds) -> list[Violation]:
    """Everything that is wrong with one stream."""
    records = story.records()
    found = [Violation(odd.invariant, story.stream, odd.message) for odd in story.odd]
    for reader in (*story.readers, *story.replays):
        found += [Violation(odd.invariant, story.stream, odd.message) for odd in reader.odd]
    for name, check in _CHECKS:
        found += [Violation(name, story.stream, message) for message in check(story, records, bounds)]
    return found


def _dense(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    for expected, record in enumerate(records, 1):
        if record.seq != expected:
            yield f"the late replay has {record.seq} where {expected} is next"
            return


def _same(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    references = {replay.wire: replay for replay in reversed(story.replays)}
    if story.forgotten is not None:
        references = {reader.wire: reader for reader in sorted(story.readers, key=lambda one: len(one.frames))}
    for reader in (*story.readers, *story.replays):
        reference = references.get(reader.wire)
        if reference is None or reference is reader:
            continue
        for mine, theirs in zip(reader.frames, reference.frames, strict=False):
            if (mine.id, mine.data) != (theirs.id, theirs.data):
                yield f"{reader.name} has {mine.data[:120]!r} as {mine.id}, {reference.name} {theirs.data[:120]!r} as {theirs.id}"
                break
        else:
            if len(reader.frames) > len(reference.frames) or (
                reader.ended_at is not None and len(reader.frames) < len(reference.frames)
            ):
                yield f"{reader.name} has {len(reader.frames)} frames, {reference.name} {len(reference.frames)}"


def _placed(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    text = text_of(records)
    reading = read(text)
    if reading.wrong:
        yield f"the text is not what was said: {reading.wrong}"
        return
    said = {attempt.nonce: attempt for attempt in story.attempts}
    for name, first, end in reading.runs:
        attempt = said.get(name)
        if attempt is None or attempt.served < end or len(attempt.prefix) > first:
            yield f"{first}..{end} is of {name!r}, who did not say it"
        elif not text.startswith(attempt.prefix):
            yield f"attempt {attempt.number} was sent a beginning of {len(attempt.prefix)} characters that is not the committed one"
    for name, found, mine in _seen(story, records):
        if found.text != text_of(mine):
            yield f"the {name} shows another text"
        yield from [f"the {name} contradicts itself: {wrong}" for wrong in found.wrong]
    last = records[-1] if records else None
    if last is not None and last.terminal:
        whole = last.beside.get("partial") if last.type == "error" else last.data
        if whole != text:
            yield "the full text of the end is not the text of the pieces"
        if last.type == "complete" and len(text) != len(written(story.length, "一")):
            yield f"it is said to be complete with {len(text)} of {len(written(story.length, '一'))} characters"


def _seen(story: Story, records: list[Record]) -> Iterator[tuple[str, Shown, list[Record]]]:
    """Of each replay on another wire: its name, what it shows, and the records that it has to show."""
    begun_anew = next((place for place, record in enumerate(records) if record.restarts), len(records))
    for replay in story.replays:
        if replay.wire != "native" and replay.ended_at is not None:
            mine = records[:begun_anew] if replay.wire in KEEPING else records
            yield replay.name, shown(replay.wire, replay.frames), mine


def _apart(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    order = {attempt.nonce: index for index, attempt in enumerate(story.attempts)}
    newest = -1
    for name in voices(records):
        index = order.get(name, -1)
        if index <= newest:
            yield f"the attempt {name!r} speaks though its time was over"
        newest = max(index, newest)
    epoch = 0
    for record in records:
        if record.epoch < epoch:
            yield f"record {record.seq} is of epoch {record.epoch}, after one of {epoch}"
        epoch = max(epoch, record.epoch)


def _ended(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    ends = [record.seq for record in records if record.terminal]
    if story.forgotten is not None:
        # By what its readers have: how it ended is what a server that lived would have said.
        if len(ends) > 1 or (ends and ends[0] != records[-1].seq):
            yield f"its ends are {ends}, and it goes on to {records[-1].seq}"
        if bounds.keeps and story.ended is None:
            yield "it is gone, and nobody saw its end"
        return
    if not records:
        yield "nothing is left of it"
    elif len(ends) != 1:
        yield f"it has {len(ends)} ends, at {ends}"
    elif ends[0] != records[-1].seq:
        yield f"its end is {ends[0]}, and it goes on to {records[-1].seq}"
    elif story.tail != ends[0]:
        yield f"its end is {ends[0]}, and its log goes on to {story.tail}"
    elif story.state != _STATES.get(records[-1].type, story.state) or story.state in _OPEN:
        yield f"it ends with {records[-1].type}, and is said to be {story.state}"
    elif records[-1].type == "complete":
        refused = [reader for reader in story.readers if reader.refused and reader.sent_away]
        yield from [f"{reader.name} was answered {reader.refused}, and it is complete" for reader in refused]
    if story.ended is None:
        yield "nobody saw its end"


def _cancelled(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    if records and records[-1].type == "cancelled" and not (story.cancelling or story.leaves):
        yield f"it ended as cancelled ({records[-1].beside.get('reason')}), and nobody cancelled it"
    for cancel in story.cancels:
        over = cancel.state in ("completed", "incomplete", "failed", "cancelled")
        open_still = story.forgotten is not None and not (records and records[-1].terminal)
        if not over and not open_still and records and records[-1].type != "cancelled":
            yield f"a cancel was acknowledged while it was {cancel.state}, and it ended as {records[-1].type}"
        late = [
            record.seq for record in records if record.seq > cancel.tail and record.type in ("content", "tool_call")
        ]
        if late:
            yield f"a cancel was acknowledged at {cancel.tail}, and content follows at {late[0]}"
        for attempt in story.attempts:
            if attempt.began > cancel.at + bounds.slack:
                yield f"attempt {attempt.number} was made {attempt.began - cancel.at:.1f} s after a cancel was acknowledged"


def _billed(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    yield from billed_wrongly(story, records, bounds)


def _called(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    yield from called_wrongly(story, records)
    for name, found, mine in _seen(story, records):
        calls = [record.data for record in mine if record.type == "tool_call" and record.beside["mark"] == "ready"]
        if [(call["call_id"], call["name"], call["arguments"]) for call in calls] != [
            (call.call_id, call.name, call.arguments) for call in found.calls
        ]:
            yield f"the {name} shows other calls"
        if calls and mine[-1].type == "complete" and found.reason != "tool_calls":
            yield f"the {name} does not say that it ends with calls"


def _taken_back(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    yield from taken_back_wrongly(story, records)
    for name, found, mine in _seen(story, records):
        if len(mine) < len(records) and not found.incomplete:
            yield f"the {name} cannot take back what it has shown, and does not say that it is not all"


def _closed(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    """An attempt is over when a later one begins to speak, when the stream has ended, or when a cancel reached its holder."""
    spoke = set(voices(records))
    for number, attempt in enumerate(story.attempts):
        over: list[float] = [] if story.ended is None else [story.ended]
        over += [later.began for later in story.attempts[number + 1 :] if later.nonce in spoke][:1]
        over += _in_vain(story.attempts, attempt, spoke, bounds)
        over += [cancel.at + (0 if cancel.node == attempt.node else bounds.renewal) for cancel in story.cancels]
        if not over or attempt.status != 200:
            continue
        due = min(over) + 1.0 + bounds.slack
        for away in bounds.outages:
            # A process that does not run closes nothing: it does so when it goes on.
            if away.node == attempt.node and away.begin - 1.0 <= due and attempt.began <= away.end:
                due = max(due, away.end + bounds.renewal + 1.0 + bounds.slack)
        closed = attempt.closed if attempt.closed is not None else float("inf")
        if closed > due:
            yield f"attempt {attempt.number} at {attempt.node} was over, and its connection was open {closed - min(over):.1f} s later"


def _in_vain(attempts: list[Attempt], attempt: Attempt, spoke: set[str], bounds: Bounds) -> list[float]:
    """When it is over that nobody heard: a node that had lost the stream to another, and did not know it yet, asked once more."""
    if attempt.nonce in spoke:
        return []
    heard = [
        other
        for other in attempts
        if other.nonce in spoke and other.node != attempt.node and other.began < attempt.began
        if other.closed is None or other.closed > attempt.began + bounds.renewal
    ]
    return [attempt.began + bounds.renewal] if heard else []


def _taken_over(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    """For each time the holder went away: when somebody went on, as the provider or a reader saw it first."""
    for away, sign in orphaned(story, bounds):
        due, end = _due(away, bounds), f"after the end of {away.node} at {away.begin:.3f} nobody went on"
        if sign is None:
            yield end
        elif sign > due:
            yield f"{end} for {sign - away.begin:.1f} s, {sign - due:.1f} s too long"


def orphaned(story: Story, bounds: Bounds) -> Iterator[tuple[Outage, float | None]]:
    """Each time the stream lost its holder, and when somebody was seen to go on (None: nobody was)."""
    if story.forgotten is not None:
        return
    for away in bounds.outages:
        begun = [attempt for attempt in story.attempts if attempt.began < away.begin]
        if not begun or begun[-1].holder(away.begin) != away.node or (story.ended or away.begin) < away.begin:
            continue
        closed = begun[-1].closed
        if (
            begun[-1].whole
            or (closed is not None and closed < away.begin)
            or away.beneath
            or (away.paused and (bounds.alone or away.end - away.begin < bounds.lease))
        ):
            continue
        signs = [attempt.began for attempt in story.attempts if attempt.began >= away.begin]
        signs += [at for one in story.attempts if one.kept for at, _ in one.kept.attached if at >= away.begin]
        signs += [story.ended] if story.ended is not None else []
        yield away, min([*signs, *queued(story, away.begin)], default=None)


def _due(away: Outage, bounds: Bounds) -> float:
    """When a stream of a node that is away must go on. Others that are away meanwhile cannot take it, or had taken it."""
    due = (away.end if bounds.alone else away.begin) + bounds.takeover
    for other in sorted(bounds.outages, key=lambda one: one.begin):
        # Until then it was not late.
        if other is not away and away.begin <= other.end and other.begin <= due + bounds.slack:
            due = max(due, other.end + bounds.takeover)
    return due + bounds.slack


def _read_on(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    yield from read_on_wrongly(story, records, died=bounds.died(story))


def _gone_on(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    if broke_off(records) and not excused(story, records, bounds):
        yield f"it broke off after {len(story.attempts)} attempts: {records[-1].data}"


def _no_further(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    yield from beyond(story, records, _promise(story, bounds))


def broke_off(records: list[Record]) -> bool:
    """Whether it ended in an error."""
    return bool(records) and records[-1].type == "error" and records[-1].terminal


def excused(story: Story, records: list[Record], bounds: Bounds) -> str:
    """Why it may end in an error; empty: it may not."""
    return excuse(story, records, _promise(story, bounds))


def _promise(story: Story, bounds: Bounds) -> Promise:
    return Promise(bounds.settings, bounds.slack, bounds.keeps)


_Check = Callable[[Story, list[Record], Bounds], Iterator[str]]
_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("I1", _dense),
    ("I2", _same),
    ("I3", _placed),
    ("I4", _apart),
    ("I5", _ended),
    ("I6", _cancelled),
    ("I7", _billed),
    ("I8", _called),
    ("I9", _closed),
    ("I11", _taken_over),
    ("I12", _gone_on),
    ("I14", _taken_back),
    ("I15", _no_further),
    ("I16", _read_on),
)


def attempts_of(attempts: list[Attempt]) -> str:
    """The attempts of a stream, in a line each."""
    return "\n".join(
        [
            f"attempt {one.number} {one.nonce} at {one.node}, {one.kind} from {len(one.prefix)}: {one.fault}, served to {one.served}"
            for one in attempts
        ]
    )
