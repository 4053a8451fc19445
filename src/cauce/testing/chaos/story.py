"""What is known of one stream after a run: what its readers saw, what its log says, what was asked of the provider, who cancelled it."""

import itertools
from typing import Any

import msgspec

from cauce.ports.provider import Midstream
from cauce.testing.chaos.attempt import Attempt
from cauce.testing.chaos.calls import maker
from cauce.testing.chaos.ledgers import Billed
from cauce.testing.chaos.reader import Frame, Oddity, Reader
from cauce.testing.chaos.shown import KEEPING
from cauce.testing.chaos.text import NAMES, read

_ENDS = ("complete", "cancelled")


class Cancel(msgspec.Struct, frozen=True):
    """A cancel that was acknowledged. `sent` and `at` are the loop's times; `state` and `tail` are what the answer said."""

    sent: float
    at: float
    node: str
    state: str
    tail: int


class Record(msgspec.Struct, frozen=True):
    """A native frame, read."""

    seq: int
    type: str
    data: Any
    epoch: int
    beside: dict[str, Any]

    @property
    def terminal(self) -> bool:
        """Whether it ends the stream."""
        return self.type in _ENDS or (self.type == "error" and bool(self.beside.get("final_error")))

    @property
    def asks(self) -> bool:
        """Whether it tells of an attempt."""
        return self.beside.get("status") == "attempt" or bool(self.beside.get("retrying"))

    @property
    def reads_on(self) -> bool:
        """Whether it tells that a provider's own answer is read on, which nobody asks for anew."""
        return self.beside.get("strategy") == "attach"

    @property
    def restarts(self) -> bool:
        """Whether it takes back what was shown."""
        return self.beside.get("status") == "restart"


class Story(msgspec.Struct):
    """`length` is that of the text of the whole answer, `calls` the number of calls behind it. `restarts`: where the answer breaks it
    begins anew, and its readers take that. `midstream` is its route's, `leaves` whether that cancels what nobody reads. `born` and `ended`
    are the loop's times; `ended` None: nobody saw its end."""

    stream: str
    length: int
    born: float
    calls: int = 0
    restarts: bool = False
    midstream: Midstream = "continue"
    leaves: bool = False
    readers: list[Reader] = []
    replays: list[Reader] = []
    """From the beginning, after its end."""
    state: str = ""
    tail: int = 0
    """What the node that was asked last says of it."""
    cancels: list[Cancel] = []
    cancelling: bool = False
    """A cancel was sent, whether or not it was acknowledged."""
    forgotten: float | None = None
    """Since when its server does not have it any more, and need not: it is judged by what its readers have."""
    may_restart: bool = False
    """It is gone on with, and begins anew where nobody does that: its readers take it."""
    name: str = ""
    """What it is called in what its user says, where that is not its id."""
    swept: bool = False
    """It was made old after its late replay, and must be gone."""
    odd: list[Oddity] = []
    attempts: list[Attempt] = []
    billed: Billed | None = None
    """What the ledgers of all nodes have of it; None: one of them did not say."""

    @property
    def takes_back(self) -> bool:
        """Whether what was shown of it may be taken back."""
        return self.restarts or self.may_restart

    @property
    def ended(self) -> float | None:
        """When the first of its readers saw the end. Where it may begin anew, some wires end before that."""
        readers = [reader for reader in self.readers if not (self.takes_back and reader.wire in KEEPING)]
        seen = [reader.ended_at for reader in readers if reader.ended_at is not None]
        return min(seen) if seen else None

    @property
    def log(self) -> list[Frame]:
        """The frames of its late replay on the native wire; of one that is forgotten, the most that a reader has."""
        readers = self.replays if self.forgotten is None else self.readers
        logs = [reader.frames for reader in readers if reader.wire == "native"]
        return max(logs, key=len) if logs else []

    def records(self) -> list[Record]:
        """What the late replay says, read."""
        found: list[Record] = []
        for frame in self.log:
            body = _said(frame)
            found.append(Record(body["seq"], body["type"], body["data"], body["epoch"], body))
        return found


def queued(story: Story, since: float) -> list[float]:
    """When readers were told, by who took the stream over after `since`, that it waits for room at its provider."""
    frames = [frame for reader in story.readers if reader.wire == "native" for frame in reader.frames]
    waits = [(frame.at, body["epoch"]) for frame in frames if (body := _said(frame)).get("status") == "waiting"]
    before = max([_said(frame)["epoch"] for frame in frames if frame.at < since], default=0) if waits else 0
    return [at for at, epoch in waits if at >= since and epoch > before]


def _said(frame: Frame) -> dict[str, Any]:
    return msgspec.json.decode(frame.data.partition(b"data:")[2])


def text_of(records: list[Record]) -> str:
    """The text that stands, after what was taken back."""
    return "".join([record.data for record in standing(records) if record.type == "content"])


def standing(records: list[Record]) -> list[Record]:
    """The records that stand, after what was taken back."""
    kept: list[Record] = []
    for record in records:
        if record.restarts:
            kept = [one for one in kept if one.seq < record.beside.get("from_seq", 0)]
        else:
            kept.append(record)
    return kept


def spans(records: list[Record]) -> list[list[Record]]:
    """What stood before each time something was taken back, and at the end."""
    ends = [place for place, record in enumerate(records) if record.restarts]
    return [standing(records[:end]) for end in (*ends, len(records))]


def speakers(records: list[Record]) -> list[str]:
    """The names of the attempts that speak in `records`, whose text stands, in their order: in the text, then in calls that are whole."""
    names = [name for name, _, _ in read(text_of(records)).runs]
    calls = [record.data for record in records if record.type == "tool_call" and record.beside["mark"] == "ready"]
    return names + [made[1] for call in calls if (made := maker(call["arguments"]))]


def voices(records: list[Record]) -> list[str]:
    """The names of the attempts that speak, one after the other, also in what was taken back."""
    names: list[str] = []
    for record in records:
        if record.type in ("content", "tool_call"):
            said: str = record.data if record.type == "content" else record.data["arguments"]
            names += NAMES.findall(said)
    return [name for name, _ in itertools.groupby(names)]
