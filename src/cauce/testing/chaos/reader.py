"""One reader of one stream on one wire: it keeps its cursor, reconnects from it, and writes down every frame and every oddity."""

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from cauce.testing.chaos.faults import Faults
from cauce.testing.chaos.http import Answer, Broken, ask, ask_narrowly

Wire = Literal["native", "openai-chat", "openai-responses", "anthropic", "ui"]

_TERMINAL: dict[Wire, re.Pattern[bytes]] = {
    "native": re.compile(rb'"type":"complete"|"type":"cancelled"|"final_error":true'),
    "openai-chat": re.compile(rb'\A\[DONE\]\Z|\A\{"error":'),
    "openai-responses": re.compile(rb'"type":"response\.(completed|incomplete|failed)"|"type":"error"'),
    "anthropic": re.compile(rb'"type":"message_stop"|"type":"error"'),
    "ui": re.compile(rb"\A\[DONE\]\Z"),
}
WIRES: tuple[Wire, ...] = tuple(_TERMINAL)
"""All that a reader can follow a stream on."""

_EPOCH = re.compile(rb'"epoch":(\d+)')
_SEQUENCE = re.compile(rb'"sequence_number":(\d+)')
_PAUSE = 0.1
_SILENCE = 15.0
"""Seconds without a byte after which a connection is taken for dead, where heartbeats come more often than that."""

_DELAYS = 100
"""What kept a reader waiting last, so much of which it remembers."""

_ROOM = 8192
"""Bytes that a reader who takes nothing has room for, so that the rest of an answer is the server's to keep, or not."""

How = Literal["ended", "broken", "dropped"]


class Frame(msgspec.Struct, frozen=True):
    """One frame, without comments and without what tells when to reconnect. `at` is the loop's time."""

    id: str
    data: bytes
    at: float


class Delay(msgspec.Struct, frozen=True):
    """Something that kept a reader waiting, and may do so: a status, or nothing for too long. `at` is the loop's time."""

    at: float
    what: str


class Begun(msgspec.Struct, frozen=True):
    """The request that begins a stream. It is sent until the first frame has come; after that the reader reads on by the id of the stream,
    by the same request `again`, or where `read_on` says, which is told the last frame."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str] = {}
    again: bool = False
    read_on: Callable[[Frame], str] | None = None


class Oddity(msgspec.Struct, frozen=True):
    """Something a reader saw that must not be. `invariant` is the one it breaks."""

    invariant: str
    message: str


class Reader:
    """`port` tells where to connect this time. `replaces`: it says that it takes another answer in place of what it has."""

    def __init__(
        self, stream: str, name: str, port: Callable[[], int], wire: Wire = "native", *, replaces: bool = False
    ) -> None:
        self.stream = stream
        self.name = name
        self.wire: Wire = wire
        self.frames: list[Frame] = []
        self.odd: list[Oddity] = []
        self.ended_at: float | None = None
        self.sent_away = False
        """It was told that what it has read is not there any more."""
        self.expects_end = False
        """It may be told that the stream is gone."""
        self.reads_anew = False
        """It may be told that what it has does not fit any more: then it drops that, and reads from the beginning."""
        self.forgotten = False
        """Its server has ended, and remembers nothing: it may be told that the stream is not known, and does not ask for it again."""
        self.silence = _SILENCE
        """Seconds without a byte after which a connection is taken for dead."""
        self.away: Callable[[], float] = lambda: _PAUSE
        """Seconds that it stays away for where a connection breaks, or cannot be made."""
        self.losses = 0
        """How often it was told so."""
        self.refused = 0
        """The status by which it was told that nothing came of the stream, whose end somebody else had seen."""
        self.over: Callable[[], bool] = lambda: False
        """Whether somebody has seen the end of the stream."""
        self.looks_again = False
        """It has all of the stream, and asks whether that still fits."""
        self.connections = 0
        self.delays: deque[Delay] = deque(maxlen=_DELAYS)
        self._port = port
        self._replaces = replaces
        self._numbered = 0

    @property
    def cursor(self) -> str:
        """The id of the last frame."""
        return self.frames[-1].id if self.frames else "0"

    async def follow(self, lives: Callable[[], float | None], begun: Begun | None = None) -> None:
        """Read to the end, reconnecting; each connection is left after `lives()` seconds (None: never). With `begun` it asks for the stream."""
        while self.ended_at is None and not self.sent_away:
            try:
                answer = await self._connect(None if self.forgotten else begun)
            except Broken:
                await asyncio.sleep(self.away())
                continue
            if answer is None:
                await asyncio.sleep(_PAUSE)
                continue
            self.connections += 1
            how: How = "broken"
            try:
                how = await self._read(answer, lives())
            finally:
                await answer.close(rudely=how == "dropped" and self.connections % 2 == 0)
            if how == "broken":
                await asyncio.sleep(self.away())

    async def look_again(self) -> None:
        """Ask whether what it has read still fits, and read what follows; if it does not, read anew."""
        if self.frames and not self.sent_away:
            self.looks_again, self.ended_at = True, None
            await self.follow(lambda: None)

    async def _connect(self, begun: Begun | None) -> Answer | None:
        """The answer to be read; None where there is none now."""
        target, headers, body = (
            f"/chat/stream/{self.stream}/resume?after={self.cursor}{self._epoch()}",
            self._headers(),
            None,
        )
        target += "" if self.wire == "native" else f"&wire={self.wire}"
        if begun is not None and (begun.again or not self.frames):
            target, body = begun.path, begun.body
            headers = headers | begun.headers | ({"last_event_id": self.cursor} if self.frames else {})
        elif begun is not None and begun.read_on is not None:
            target = begun.read_on(self.frames[-1])
        try:
            async with asyncio.timeout(_SILENCE):
                answer = await ask(self._port(), "GET" if body is None else "POST", target, body, **headers)
        except TimeoutError as error:
            self._delayed(f"no answer for {_SILENCE:g} s")
            raise Broken from error
        if answer.status == 200:
            return answer
        await answer.close()
        self._delayed(f"status {answer.status}")
        if begun is not None and begun.headers and not self.frames and answer.status not in (409, 410):
            # What comes to nothing is told by its status on these wires, and that asking again is of no use: a server that cannot
            # read its log just now, or ends, answers by a status as well.
            lasting = answer.headers.get("x-should-retry") == "false"
            self.refused, self.sent_away = answer.status, lasting and self.over()
            return None
        match answer.status:
            case 204 if self.looks_again:
                self.ended_at = self.frames[-1].at
            case 204:
                self._note("I5", f"204 at {self.cursor}, though the end has not come")
                self.sent_away = True
            case 404 | 409 if self.frames and self.reads_anew:
                self.losses += 1
                self.frames.clear()
                self._numbered = 0
            case 410 if self.expects_end:
                self.sent_away = True
            case 404 if self.forgotten:
                self.sent_away = True
            case 409 | 410:
                self._note("I1", f"{answer.status} at {self.cursor}: what was read is not there any more")
                self.sent_away = True
            case 404 if self.frames:
                self._note("I1", "the stream that was read is not known any more")
                self.sent_away = True
            case 404 | 502 | 503:
                pass
            case _:
                self._note("I1", f"status {answer.status}")
                await asyncio.sleep(1)
        return None

    def _headers(self) -> dict[str, str]:
        return {"x_cauce_restart": "accept"} if self._replaces else {}

    def _epoch(self) -> str:
        found = _EPOCH.search(self.frames[-1].data) if self.frames and self.wire == "native" else None
        return f"&epoch={found[1].decode()}" if found is not None else ""

    async def _read(self, answer: Answer, lives: float | None) -> How:
        loop = asyncio.get_running_loop()
        until = None if lives is None else loop.time() + lives
        unread, silence = b"", loop.time() + self.silence
        pieces = answer.pieces()
        try:
            while True:
                silence = loop.time() + self.silence
                async with asyncio.timeout_at(silence if until is None else min(silence, until)):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                *blocks, unread = (unread + piece).split(b"\n\n")
                for block in blocks:
                    self._block(block, loop.time())
        except (Broken, TimeoutError):
            await pieces.aclose()
            if loop.time() >= silence:
                self._delayed(f"silent for {self.silence:g} s")
            return "dropped" if until is not None and loop.time() >= until else "broken"
        if self.ended_at is None:
            self._note("I5", f"the body ended properly after {self.cursor}, without the end of the stream")
            return "broken"
        return "ended"

    def _block(self, block: bytes, now: float) -> None:
        lines = [line for line in block.split(b"\n") if line and not line.startswith((b":", b"retry:"))]
        number = next((line[3:].strip().decode() for line in lines if line.startswith(b"id:")), "")
        data = b"\n".join([line for line in lines if not line.startswith(b"id:")])
        if not data:
            # The block that opens a stream dispatches nothing.
            return
        if self.ended_at is not None:
            self._note("I5", f"a frame after the end: {data[:80]!r}")
        if self.wire == "native":
            self._numbered += 1
            if number != str(self._numbered):
                self._note("I1", f"frame {number} came where {self._numbered} is next")
                self._numbered = int(number) if number.isdigit() else self._numbered
        if self.wire == "openai-responses" and (found := _SEQUENCE.search(data)):
            self._numbered += 1
            if int(found[1]) != self._numbered - 1:
                self._note("I1", f"event {int(found[1])} came where {self._numbered - 1} is next")
                self._numbered = int(found[1]) + 1
        self.frames.append(Frame(number, data, now))
        payload = data.partition(b"data:")[2].strip()
        if _TERMINAL[self.wire].search(payload):
            self.ended_at = now

    def _delayed(self, what: str) -> None:
        self.delays.append(Delay(asyncio.get_running_loop().time(), what))

    def _note(self, invariant: str, message: str) -> None:
        if len(self.odd) < 20:
            self.odd.append(Oddity(invariant, f"{self.name}: {message}"))


async def stall(stream: str, port: Callable[[], int], comes: Callable[[], bool]) -> Answer | None:
    """Begin to read from the beginning, once the stream is there, and take nothing of the body; the caller closes it.

    None when it does not come in time, or `comes` says that it will not.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SILENCE):
            while comes():
                with contextlib.suppress(Broken):
                    answer = await ask_narrowly(port(), f"/chat/stream/{stream}/resume?after=0", _ROOM)
                    if answer.status == 200:
                        return answer
                    await answer.close()
                await asyncio.sleep(_PAUSE)
    return None


def lifetimes(faults: Faults, number: int, rate: float) -> Callable[[], float | None]:
    """How long each connection of a reader that drops lasts."""
    chance = faults.chance("drops", number)

    def next_one() -> float | None:
        if not rate:
            return None
        faults.count("client drop")
        return chance.expovariate(rate)

    return next_one
