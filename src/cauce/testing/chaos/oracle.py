"""A provider that knows what it said: each answer is text that proves its place and its author (`text`), with a fault of the schedule.

It speaks OpenAI's chat wire, streamed. What it is asked for by a name (`X-Conversation-Id`) it keeps (`kept`). It goes on with the beginning of its own answer (`continue_final_message`), and with an answer
that is quoted to it, exactly where it was cut. Behind the text it calls tools, if it is asked to (`calls`). What it is sent to go on
with it checks at once: a piece that it never said, or that is not where it belongs, is noted as a violation. `attempts` is the book of
what was asked and served, which the run is judged by.
"""

import asyncio
import contextlib
import itertools
import random
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from cauce.testing.chaos.attempt import Attempt, Kind, Noted
from cauce.testing.chaos.faults import Faults, ProviderFault
from cauce.testing.chaos.kept import Connections, KeptAnswer, Sink, cut_after, is_lost
from cauce.testing.chaos.proxy import reset
from cauce.testing.chaos.saying import LEAST_REPEATED, Place, called, lead, said, weigh
from cauce.testing.chaos.text import read, written
from cauce.testing.listening import Listening

ASKED = re.compile(
    r"chaos (?P<stream>\S+) (?P<length>\d+) (?P<pieces>\d+) (?P<milliseconds>\d+)(?: (?P<calls>\d+) calls)?"
)
"""What the user of a chaos stream says: its id, how long its answer is, in how many pieces, the time between two, and how many calls
of tools there are at its end."""

INPUT_TOKENS = 10
"""What every request is said to have taken."""

_LEAST_BEGUN = 200
"""Characters from which on an answer that begins anew can be told from one that goes on."""

_TRIES = 4
"""Answers to a stream after which nothing more is done to one that begins at the start: such a stream might never end."""

_STALLED = 30.0
_OWN = re.compile(r"/n\d+/")
"""How the paths begin that a node of the run asks for."""

_FIRST_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
)

_BREAKS: tuple[ProviderFault, ...] = ("reset", "end of file", "error event", "stall", "garbage")
_PLACES: tuple[Place, ...] = ("the text", "arguments", "calls", "ready calls")


def question(stream: str, length: int, pieces: int, milliseconds: int, calls: int = 0) -> str:
    """What to say to have an answer of `length` characters in about so many pieces, with `calls` of tools at its end."""
    asked = f"chaos {stream} {length} {pieces} {milliseconds}"
    return f"{asked} {calls} calls" if calls else asked


class Oracle(Listening):
    """Listens on `port`; the first part of a path names the node that asks: `/n0/v1/chat/completions`."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.attempts: list[Attempt] = []
        self.noted: list[Noted] = []
        self._faults = faults
        self._by_stream: dict[str, list[Attempt]] = {}
        self._kept: dict[str, tuple[Attempt, KeptAnswer]] = {}

    def of(self, stream: str) -> list[Attempt]:
        """The attempts at one stream's answer, the first one first."""
        return self._by_stream.get(stream, [])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            if not _OWN.match(path):
                # Another process may have had this port a moment ago, and be asked for still.
                await _send(
                    writer, 404, {"error": {"message": "this is a provider of chaos", "type": "not_found_error"}}
                )
            elif "/stream?" in path:
                await self._come_back(method, path, reader, writer)
            elif method == "GET":
                await _send(writer, 200, {"object": "list", "data": []})
            else:
                length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
                body = msgspec.json.decode(await reader.readexactly(int(length[1]) if length else 0))
                named = re.search(r"(?i)\r\nx-conversation-id: *(\S+)", head)
                await self._asked((path.split("/")[1], named[1] if named else ""), body, reader, writer)

    async def _asked(
        self, by: tuple[str, str], body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """`by` is the node, and the name that it gives the answer."""
        node, named = by
        messages: list[dict[str, Any]] = body["messages"]
        asked = next((found for message in messages if (found := ASKED.search(_content(message)))), None)
        if asked is None:
            await _send(
                writer, 400, {"error": {"message": "this provider only knows chaos", "type": "invalid_request_error"}}
            )
            return
        kind, prefix = _begun(body, messages)
        stream = asked["stream"]
        earlier = self._by_stream.setdefault(stream, [])
        attempt = Attempt(stream, len(self.attempts), node, kind, asyncio.get_running_loop().time(), prefix)
        # Not by its whole name, which is another one in each run.
        attempt.lot = (stream.rpartition("-")[2], len(earlier))
        self._check(attempt, earlier)
        fault, part = self._faults.provider(*attempt.lot)
        if fault == "none" and asked["calls"]:
            fault = self._of_calls(attempt)
        if kind == "open" and len(earlier) >= _TRIES:
            fault = "none"
        attempt.fault = _possible(fault, attempt)
        earlier.append(attempt)
        self.attempts.append(attempt)
        if named and not attempt.fault.startswith("refuse"):
            attempt.fault = "none"
            attempt.kept = Connections()
            kept = KeptAnswer()
            self._kept[named] = (attempt, kept)
            kept.begin(asyncio.create_task(self._answer(attempt, asked, part, kept)))
            await self._show(attempt, kept, 0, reader, writer)
            return
        answering = asyncio.create_task(self._answer(attempt, asked, part, writer))
        leaving = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            attempt.over = answering.done()
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
            attempt.closed = asyncio.get_running_loop().time()

    async def _come_back(
        self, method: str, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Somebody wants more of an answer that is kept, or no more."""
        node, asked = path.split("/")[1], parse_qs(urlsplit(path).query)
        [name] = asked["conv_id"]
        now = asyncio.get_running_loop().time()
        if method == "DELETE":
            if name in self._kept:
                attempt, kept = self._kept.pop(name)
                assert attempt.kept is not None
                attempt.kept.stopped = (now, node)
                await kept.end()
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            await writer.drain()
            return
        if name in self._kept:
            attempt, kept = self._kept[name]
            assert attempt.kept is not None
            attempt.kept.attached.append((now, node))
            attempt.kept.lost = is_lost(self._faults, attempt.lot)
            self._faults.count("provider lost" if attempt.kept.lost else "attached again")
            if not attempt.kept.lost:
                await self._show(attempt, kept, int(asked["from"][0]), reader, writer)
                return
        await _send(writer, 404, {"error": {"message": "Stream not found or expired", "type": "not_found_error"}})

    async def _show(
        self, attempt: Attempt, kept: KeptAnswer, start: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Write what is kept from byte `start` on, up to where the connection is cut, or who reads it leaves."""
        assert attempt.kept is not None
        attempt.kept.open += 1
        attempt.closed = None
        left = cut_after(self._faults, attempt.lot, len(attempt.kept.attached))
        showing = asyncio.create_task(_shown(attempt, kept, start, left, writer))
        leaving = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({showing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            attempt.over = showing.done()
        finally:
            showing.cancel()
            leaving.cancel()
            await asyncio.gather(showing, leaving, return_exceptions=True)
            attempt.kept.open -= 1
            if not attempt.kept.open:
                attempt.closed = asyncio.get_running_loop().time()

    def _of_calls(self, attempt: Attempt) -> ProviderFault:
        """What else happens to an answer with calls: they are short, and would mostly come through."""
        chance = self._faults.chance("calls", *attempt.lot)
        return chance.choice(_BREAKS) if chance.random() < self._faults.rates.provider else "none"

    def _check(self, attempt: Attempt, earlier: list[Attempt]) -> None:
        """Whether what it is to go on with is what was said before."""
        reading = read(attempt.prefix)
        if reading.wrong:
            self.noted.append(Noted(attempt.stream, f"attempt {attempt.number} was sent a beginning: {reading.wrong}"))
            return
        said = {one.nonce: one for one in earlier}
        for name, first, end in reading.runs:
            if name not in said or said[name].served < end:
                self.noted.append(
                    Noted(
                        attempt.stream,
                        f"attempt {attempt.number} was sent {first}..{end} of {name!r}, who did not say it",
                    )
                )

    async def _answer(self, attempt: Attempt, asked: re.Match[str], part: float, writer: Sink) -> None:
        fault = attempt.fault
        chance = self._faults.chance("pieces", *attempt.lot)
        if fault != "none":
            self._faults.count(f"provider {fault}")
        refusal = {"refuse 429": 429, "refuse 500": 500, "refuse prefill": 400}.get(fault)
        if refusal is not None:
            attempt.status = refusal
            await _send(writer, refusal, {"error": {"message": f"scripted {fault}", "type": "scripted"}})
            return
        text = written(int(asked["length"]), attempt.nonce)
        start = attempt.served = len(attempt.prefix)
        before = lead(attempt, text, chance)
        if attempt.kept is None:
            writer.write(_FIRST_HEAD)
        _frame(writer, {"delta": {"role": "assistant"}}, chance)
        if before:
            _frame(writer, {"delta": {"content": before}}, chance)
            attempt.weight += weigh({"delta": {"content": before}})
        calls = int(asked["calls"] or 0)
        place = self._place(attempt, calls)
        stop = len(text)
        if place == "the text":
            stop = min(stop, start + int(part * (len(text) - start)))
        elif fault == "begin anew":
            stop, calls = start, 0
        pause = int(asked["milliseconds"]) / 1000
        size = max(1, len(text) // max(1, int(asked["pieces"])))
        pieces = said(attempt, text[:stop], size, chance)
        if place != "the text":
            pieces = itertools.chain(pieces, called(attempt, calls, place, chance))
        for choice in pieces:
            _frame(writer, choice, chance)
            attempt.tokens += "finish_reason" not in choice
            attempt.weight += weigh(choice)
            await writer.drain()
            # Once all calls are known to be whole there is time for a node to die.
            await asyncio.sleep(pause * (8 if calls and "finish_reason" in choice else 2 * chance.random()))
        await self._end(attempt, writer)

    def _place(self, attempt: Attempt, calls: int) -> Place | None:
        """Where the answer breaks; None: it does not."""
        if attempt.fault not in _BREAKS:
            return None
        if not calls:
            return "the text"
        place = self._faults.chance("place", *attempt.lot).choice(_PLACES)
        self._faults.count(f"broken in {place}")
        return place

    async def _end(self, attempt: Attempt, writer: Sink) -> None:
        match attempt.fault:
            case "reset":
                assert isinstance(writer, asyncio.StreamWriter)
                reset(writer)
                return
            case "end of file":
                return
            case "error event":
                _chunk(writer, b'data: {"error":{"message":"scripted error event","type":"server_error"}}\n\n')
            case "stall":
                await writer.drain()
                await asyncio.sleep(_STALLED)
                return
            case "garbage":
                _chunk(writer, b'data: {"choices":[{"index":0,"delta":{"content":\n\n')
            case _:
                usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": attempt.tokens}
                _chunk(writer, b"data: %s\n\n" % msgspec.json.encode({"choices": [], "usage": usage}))
                _chunk(writer, b"data: [DONE]\n\n")
                # Of one that is kept somebody has to hear it.
                attempt.whole = attempt.kept is None
        if attempt.kept is None:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


def _begun(body: dict[str, Any], messages: list[dict[str, Any]]) -> tuple[Kind, str]:
    """How it is asked, and what of the answer there is already."""
    last = messages[-1]
    if last["role"] == "assistant" and (body.get("continue_final_message") or last.get("prefix")):
        return "prefill", _content(last)
    if len(messages) > 1 and messages[-2]["role"] == "assistant":
        return "prompt", _content(messages[-2])
    return "open", ""


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join([part.get("text", "") for part in content])


def _possible(fault: ProviderFault, attempt: Attempt) -> ProviderFault:
    """`fault`, or none where it has nothing to do."""
    match fault:
        case "refuse prefill" if attempt.kind != "prefill":
            return "none"
        case "repeat the end" if attempt.kind != "prompt" or len(attempt.prefix) < 2 * LEAST_REPEATED:
            return "none"
        case "begin anew" if attempt.kind == "open" or len(attempt.prefix) < _LEAST_BEGUN:
            return "none"
        case _:
            return fault


def _frame(writer: Sink, choice: dict[str, Any], chance: random.Random) -> None:
    body = {"id": "chaos", "object": "chat.completion.chunk", "model": "chaos", "choices": [{"index": 0, **choice}]}
    data = b"data: %s\n\n" % msgspec.json.encode(body)
    # Now and then in two, anywhere: inside a line, inside a character.
    cut = chance.randrange(1, len(data)) if chance.random() < 0.2 else len(data)
    for piece in (data[:cut], data[cut:]):
        if piece:
            _chunk(writer, piece)


def _chunk(writer: Sink, data: bytes) -> None:
    # What is kept is bytes of the body: they are put into chunks when they are read.
    writer.write(data if isinstance(writer, KeptAnswer) else b"%x\r\n%s\r\n" % (len(data), data))


async def _shown(
    attempt: Attempt, kept: KeptAnswer, start: int, left: int | None, writer: asyncio.StreamWriter
) -> None:
    writer.write(_FIRST_HEAD)
    while data := await kept.read(start):
        data = data[:left]
        _chunk(writer, data)
        await writer.drain()
        start += len(data)
        if left is not None and (left := left - len(data)) <= 0:
            reset(writer)
            return
    if attempt.kept is not None and attempt.kept.stopped is None:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        attempt.whole = True


async def _send(writer: Sink, status: int, body: object) -> None:
    data = msgspec.json.encode(body)
    head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
