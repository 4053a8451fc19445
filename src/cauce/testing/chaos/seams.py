"""What must hold where an answer breaks that has more than text, or whose text is taken back: of its calls of tools, and of new beginnings."""

from collections.abc import Iterator

from cauce.testing.chaos.attempt import Attempt
from cauce.testing.chaos.calls import maker
from cauce.testing.chaos.story import Record, Story, spans, speakers, text_of, voices
from cauce.testing.chaos.text import read


class _Calls:
    """The calls of a log, record by record."""

    def __init__(self, attempts: list[Attempt]) -> None:
        self.open: dict[str, str] = {}
        """By id, what of the arguments has come."""
        self.ready: dict[int, str] = {}
        """By its number in the answer, who made it."""
        self._over: dict[str, str] = {}
        self._started: set[str] = set()
        self._attempts = {attempt.nonce: attempt for attempt in attempts}

    def feed(self, record: Record) -> Iterator[str]:
        """What is wrong with it."""
        if record.type == "tool_call":
            yield from self._call(record)
        elif record.reads_on:
            # Its provider's own answer is read on: calls go on where they stopped.
            return
        elif record.asks and self.ready:
            yield f"somebody is asked again at {record.seq}, after a call that is whole"
        elif (record.asks or record.restarts) and self.open:
            yield f"the answer goes on at {record.seq}, and {', '.join(self.open)} was not given up"
        elif record.beside.get("status") == "tool_started":
            call = str(record.beside.get("call_id"))
            if call in self._started:
                yield f"the tool call {call} was begun twice"
            self._started.add(call)

    def _call(self, record: Record) -> Iterator[str]:
        call, mark, arguments = record.data["call_id"], record.beside["mark"], record.data["arguments"]
        if call in self._over:
            yield f"the call {call} was {self._over[call]}, and goes on at {record.seq}"
        elif mark == "piece":
            self.open[call] = self.open.get(call, "") + arguments
        else:
            self._over[call] = mark
            pieces = self.open.pop(call, None)
            if pieces is None:
                yield f"the call {call} is {mark} and had not begun"
            elif mark == "ready" and arguments != pieces:
                yield f"the call {call} is not what its pieces are"
            if mark == "ready":
                yield from self._made(call, arguments)

    def _made(self, call: str, arguments: str) -> Iterator[str]:
        number, name = maker(arguments) or (-1, "")
        attempt = self._attempts.get(name)
        if attempt is None or attempt.called <= number:
            yield f"the call {call} is ready with arguments that no attempt wrote: {arguments[:80]!r}"
            return
        if number in self.ready:
            yield f"call number {number} was made twice"
        if self.ready and name not in self.ready.values():
            yield f"the call {call} is by another attempt than those before it"
        self.ready[number] = name


def called_wrongly(story: Story, records: list[Record]) -> Iterator[str]:
    """What is wrong with the calls of tools, as the log has them."""
    calls = _Calls(story.attempts)
    for record in records:
        yield from calls.feed(record)
    last = records[-1] if records else None
    if last is None or last.type != "complete":
        return
    if calls.open:
        yield f"it is complete, and {', '.join(calls.open)} is neither whole nor given up"
    cut = any([record.beside.get("quality") == "cut_after_call" for record in records])
    reason = last.beside.get("finish_reason")
    if reason != ("tool_calls" if calls.ready else "stop"):
        yield f"it ends with {reason}, and has {len(calls.ready)} calls"
    if cut and not calls.ready:
        yield "it is said to end with a call, and has none"
    if not cut and len(calls.ready) != story.calls:
        yield f"it is complete with {len(calls.ready)} of {story.calls} calls"
    if not cut and not any([attempt.told for attempt in story.attempts]):
        yield "it is complete, and no attempt came to its end"


def taken_back_wrongly(story: Story, records: list[Record]) -> Iterator[str]:
    """What is wrong with new beginnings, as the log has them."""
    ready = False
    for record in records:
        ready = ready or (record.type == "tool_call" and record.beside["mark"] == "ready")
        if not record.restarts:
            continue
        first = record.beside.get("from_seq")
        if not isinstance(first, int) or not 1 <= first < record.seq:
            yield f"record {record.seq} takes back what stands from {first!r} on"
        if not story.takes_back:
            yield f"record {record.seq} takes back what its readers cannot take back"
        if ready:
            yield f"record {record.seq} takes back a call that was whole"
    if not story.restarts:
        return
    for attempt in story.attempts:
        if attempt.prefix:
            yield f"attempt {attempt.number} was sent a beginning of an answer that is to begin anew"
    for span in spans(records):
        if len(names := dict.fromkeys(speakers(span))) > 1:
            yield f"up to record {span[-1].seq} there stands what {', '.join(names)} said, and not one of them"
        if read(text_of(span)).wrong:
            yield f"up to record {span[-1].seq} there stands what nobody said"
    last = records[-1] if records else None
    if last is not None and last.type == "complete" and last.data != text_of(records):
        yield "the full text of the end is not what stands after what was taken back"


def read_on_wrongly(story: Story, records: list[Record], *, died: bool) -> Iterator[str]:
    """What is wrong with answers that their provider keeps. `died`: a node went away while the stream was open, which may be why nobody stopped one."""
    spoke = set(voices(records))
    for attempt in story.attempts:
        kept, later = attempt.kept, attempt is not story.attempts[-1]
        if kept is None or kept.lost:
            continue
        # One that goes on with another's answer does not begin where that does: after a takeover it is not found again.
        if later and attempt.kind == "open" and attempt.nonce in spoke and not kept.attached:
            yield f"attempt {attempt.number} was kept, nobody came back for it, and somebody was asked again"
        if kept.stopped is None and story.ended is not None and not (attempt.whole or later or died):
            yield f"attempt {attempt.number} was kept, and nobody stopped it, though nobody wants it"
