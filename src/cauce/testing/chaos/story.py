"""What is known of one stream after a run: what its readers saw, what its log says, what was asked of the provider, who cancelled it."""

from typing import Any

import msgspec

from cauce.testing.chaos.oracle import Attempt
from cauce.testing.chaos.reader import Frame, Oddity, Reader, Wire

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


class Story(msgspec.Struct):
    """`length` is that of the whole answer. `born` and `ended` are the loop's times; `ended` None: nobody saw its end."""

    stream: str
    length: int
    born: float
    readers: list[Reader] = []
    replays: list[Reader] = []
    """From the beginning, after its end."""
    state: str = ""
    tail: int = 0
    """What the node that was asked last says of it."""
    cancels: list[Cancel] = []
    odd: list[Oddity] = []
    attempts: list[Attempt] = []

    @property
    def ended(self) -> float | None:
        """When the first of its readers saw the end."""
        seen = [reader.ended_at for reader in self.readers if reader.ended_at is not None]
        return min(seen) if seen else None

    @property
    def log(self) -> list[Frame]:
        """The frames of its late replay on the native wire."""
        for reader in self.replays:
            if reader.wire == "native":
                return reader.frames
        return []

    def records(self) -> list[Record]:
        """What the late replay says, read."""
        found: list[Record] = []
        for frame in self.log:
            body = msgspec.json.decode(frame.data.partition(b"data:")[2])
            found.append(Record(body["seq"], body["type"], body["data"], body["epoch"], body))
        return found


def text_of(records: list[Record]) -> str:
    """The text that stands, after what was taken back."""
    pieces: list[tuple[int, str]] = []
    for record in records:
        if record.type == "content":
            pieces.append((record.seq, record.data))
        elif record.beside.get("status") == "restart":
            pieces = [piece for piece in pieces if piece[0] < record.beside["from_seq"]]
    return "".join([text for _, text in pieces])


def shown(wire: Wire, frames: list[Frame]) -> str:
    """The text that `frames` of a wire other than ours show, each wire read by its own names."""
    pieces: list[str] = []
    for frame in frames:
        payload = frame.data.partition(b"data:")[2].strip()
        if payload.startswith(b"{"):
            pieces.append(_piece(wire, msgspec.json.decode(payload)))
    return "".join(pieces)


def _piece(wire: Wire, body: dict[str, Any]) -> str:
    match wire:
        case "openai-chat":
            return "".join([choice.get("delta", {}).get("content") or "" for choice in body.get("choices", [])])
        case "openai-responses":
            return body["delta"] if body.get("type") == "response.output_text.delta" else ""
        case "anthropic":
            return body.get("delta", {}).get("text", "") if body.get("type") == "content_block_delta" else ""
        case "ui":
            return body["delta"] if body.get("type") == "text-delta" else ""
        case "native":
            return ""
