"""Server-sent events, incremental: bytes in, events out, whatever the bytes' split.

Rules (WHATWG HTML, "Server-sent events"): lines end in LF, CRLF or CR; an event ends at an empty line; several `data` lines
are joined by LF; lines that begin with a colon are comments; one leading byte order mark is dropped. Beyond the standard:
an event without data is not reported, an event may not exceed `limit` bytes, and `finish()` hands out a last event whose
empty line never came, as some servers end so. Data stays bytes, so a character cut by the network is whole again here.
"""

import msgspec

MAX_EVENT = 8 * 1024 * 1024
"""Bytes one event may have."""

_BOM = b"\xef\xbb\xbf"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event. `event` is its name, empty where none was given."""

    data: bytes
    event: str = ""
    id: str | None = None


class EventTooLarge(ValueError):
    """An event exceeds the limit."""


class SSEDecoder:
    """Feed it what arrives; each call returns the events that became complete.

    `strays`: JSON that stands between events without a field's name is reported as one. Some servers send errors so.
    """

    __slots__ = ("_buffer", "_carriage_return", "_limit", "_started", "_strays")

    def __init__(self, limit: int = MAX_EVENT, *, strays: bool = False) -> None:
        self._buffer = b""
        self._limit = limit
        self._strays = strays
        self._carriage_return = False
        self._started = False

    def feed(self, data: bytes) -> list[Event]:
        """Events completed by `data`. Raises `EventTooLarge`."""
        if not data:
            return []
        if self._carriage_return or b"\r" in data:
            data = self._unify(data)
        buffer = self._buffer + data if self._buffer else data
        if not self._started:
            if len(buffer) < 3 and _BOM.startswith(buffer):
                self._buffer = buffer
                return []
            self._started = True
            buffer = buffer.removeprefix(_BOM)
        lines = buffer.split(b"\n")
        if not any(lines[1::2]):
            # The common case by far: one data line and nothing else. To look for one byte is much cheaper than to look for two.
            blocks, self._buffer = _alternate(lines)
            events = [Event(block[6:]) for block in blocks if block.startswith(b"data: ")]
            if len(events) == len(blocks) and len(self._buffer) <= self._limit:
                return events
        else:
            *blocks, self._buffer = buffer.split(b"\n\n")
        if len(self._buffer) > self._limit:
            raise EventTooLarge(f"an event is larger than {self._limit} bytes")
        found = [_parse(block) or (_stray(block) if self._strays else None) for block in blocks]
        return [event for event in found if event is not None]

    def finish(self) -> list[Event]:
        """The event that the end of the bytes left without its empty line, if there is one."""
        rest, self._buffer = self._buffer, b""
        block = rest.removeprefix(_BOM) if not self._started else rest
        event = _parse(block) or (_stray(block) if self._strays else None)
        return [event] if event is not None else []

    def _unify(self, data: bytes) -> bytes:
        """`data` with LF line ends. A CR ends its line at once; an LF that follows it belongs to the same end."""
        if self._carriage_return:
            data = data.removeprefix(b"\n")
        self._carriage_return = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _alternate(lines: list[bytes]) -> tuple[list[bytes], bytes]:
    """Of lines of which every second one is empty: the blocks before the empty ones, and what is left after the last."""
    return (lines[:-1:2], lines[-1]) if len(lines) % 2 else (lines[:-2:2], lines[-2] + b"\n")


def _stray(block: bytes) -> Event | None:
    """JSON that stands where an event should."""
    return Event(block.strip()) if block.lstrip()[:1] in (b"{", b"[") else None


def one_line(frames: bytes) -> bytes:
    """`frames` of JSON with the characters escaped that some clients take for line ends (NEL, U+2028, U+2029).

    They are none to SSE, but Python's `str.splitlines`, and so `iter_lines(decode_unicode=True)` of `requests`, splits there.
    """
    # Cheapest first: each of these looks cost a multiple of the one before.
    if frames.isascii():
        return frames
    if b"\xe2" in frames and b"\xe2\x80" in frames:
        frames = frames.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return frames.replace(b"\xc2\x85", b"\\u0085") if b"\xc2" in frames else frames


def _parse(block: bytes) -> Event | None:
    first, _, second = block.partition(b"\n")
    if first.startswith(b"event: ") and second.startswith(b"data: ") and b"\n" not in second:
        # What Anthropic's streams and OpenAI's responses consist of.
        return Event(second[6:], first[7:].decode("utf-8", "replace"))
    data: list[bytes] = []
    name = ""
    identifier: str | None = None
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            identifier = value.decode("utf-8", "replace")
    if not data:
        return None
    return Event(b"\n".join(data), name, identifier)
