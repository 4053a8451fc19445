"""A provider that knows what it said: each answer is text that proves its place and its author (`text`), with a fault of the schedule.

It speaks OpenAI's chat wire, streamed. It goes on with the beginning of its own answer (`continue_final_message`), and with an answer
that is quoted to it, exactly where it was cut. What it is sent to go on with it checks at once: a piece that it never said, or that
is not where it belongs, is noted as a violation. `attempts` is the book of what was asked and served, which the run is judged by.
"""

import asyncio
import contextlib
import random
import re
from typing import Any, Literal

import msgspec

from cauce.testing.chaos.faults import Faults, ProviderFault
from cauce.testing.chaos.proxy import reset
from cauce.testing.chaos.text import nonce, read, written
from cauce.testing.listening import Listening

ASKED = re.compile(r"chaos (?P<stream>\S+) (?P<length>\d+) (?P<pieces>\d+) (?P<milliseconds>\d+)")
"""What the user of a chaos stream says: its id, how long its answer is, in how many pieces, and the time between two."""

INPUT_TOKENS = 10
"""What every request is said to have taken."""

_LEAST_REPEATED = 12
_LEAST_BEGUN = 200
"""Characters from which on an answer that begins anew can be told from one that goes on."""

_STALLED = 30.0
_FIRST_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
)

Kind = Literal["open", "prefill", "prompt"]


def question(stream: str, length: int, pieces: int, milliseconds: int) -> str:
    """What to say to have an answer of `length` characters in about so many pieces."""
    return f"chaos {stream} {length} {pieces} {milliseconds}"


class Attempt(msgspec.Struct):
    """One request and what became of it. Offsets are characters of the answer, times the loop's."""

    stream: str
    number: int
    """Of all of this run: it names the attempt in the text."""
    node: str
    kind: Kind
    began: float
    prefix: str = ""
    fault: ProviderFault = "none"
    status: int = 200
    served: int = 0
    """Up to which character."""
    tokens: int = 0
    """Pieces that were sent, as its usage says them."""
    whole: bool = False
    """Its terminal was sent."""
    closed: float | None = None
    """When its connection was seen to end."""

    @property
    def nonce(self) -> str:
        """Its name in the text."""
        return nonce(self.number)


class Noted(msgspec.Struct, frozen=True):
    """Something it was sent that it never said."""

    stream: str
    message: str


class Oracle(Listening):
    """Listens on `port`; the first part of a path names the node that asks: `/n0/v1/chat/completions`."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.attempts: list[Attempt] = []
        self.noted: list[Noted] = []
        self._faults = faults
        self._by_stream: dict[str, list[Attempt]] = {}

    def of(self, stream: str) -> list[Attempt]:
        """The attempts at one stream's answer, the first one first."""
        return self._by_stream.get(stream, [])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            if method == "GET":
                await _send(writer, 200, {"object": "list", "data": []})
            else:
                length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
                body = msgspec.json.decode(await reader.readexactly(int(length[1]) if length else 0))
                await self._asked(path.split("/")[1], body, reader, writer)

    async def _asked(
        self, node: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
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
        self._check(attempt, earlier)
        fault, part = self._faults.provider(stream, len(earlier))
        attempt.fault = _possible(fault, attempt)
        earlier.append(attempt)
        self.attempts.append(attempt)
        answering = asyncio.create_task(self._answer(attempt, asked, part, writer))
        leaving = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
            attempt.closed = asyncio.get_running_loop().time()

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

    async def _answer(self, attempt: Attempt, asked: re.Match[str], part: float, writer: asyncio.StreamWriter) -> None:
        fault = attempt.fault
        chance = self._faults.chance("pieces", attempt.stream, attempt.number)
        if fault != "none":
            self._faults.count(f"provider {fault}")
        refusal = {"refuse 429": 429, "refuse 500": 500, "refuse prefill": 400}.get(fault)
        if refusal is not None:
            attempt.status = refusal
            await _send(writer, refusal, {"error": {"message": f"scripted {fault}", "type": "scripted"}})
            return
        text = written(int(asked["length"]), attempt.nonce)
        start = len(attempt.prefix)
        lead = _lead(attempt, text, chance)
        size = max(1, len(text) // max(1, int(asked["pieces"])))
        attempt.served = start
        stop = len(text)
        if fault in ("reset", "end of file", "error event", "stall", "garbage"):
            stop = min(stop, start + int(part * (len(text) - start)))
        writer.write(_FIRST_HEAD)
        _frame(writer, {"delta": {"role": "assistant"}}, chance)
        if lead:
            _frame(writer, {"delta": {"content": lead}}, chance)
        if fault == "begin anew":
            stop = start
        pause = int(asked["milliseconds"]) / 1000
        while attempt.served < stop:
            end = min(stop, attempt.served + chance.randint(1, 2 * size))
            _frame(writer, {"delta": {"content": text[attempt.served : end]}}, chance)
            attempt.served = end
            attempt.tokens += 1
            await writer.drain()
            await asyncio.sleep(pause * 2 * chance.random())
        await self._end(attempt, writer, chance)

    async def _end(self, attempt: Attempt, writer: asyncio.StreamWriter, chance: random.Random) -> None:
        match attempt.fault:
            case "reset":
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
                _frame(writer, {"delta": {}, "finish_reason": "stop"}, chance)
                usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": attempt.tokens}
                _chunk(writer, b"data: %s\n\n" % msgspec.json.encode({"choices": [], "usage": usage}))
                _chunk(writer, b"data: [DONE]\n\n")
                attempt.whole = True
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
        case "repeat the end" if attempt.kind != "prompt" or len(attempt.prefix) < 2 * _LEAST_REPEATED:
            return "none"
        case "begin anew" if attempt.kind == "open" or len(attempt.prefix) < _LEAST_BEGUN:
            return "none"
        case _:
            return fault


def _lead(attempt: Attempt, text: str, chance: random.Random) -> str:
    """What is said before the answer goes on: nothing, its end once more, or its beginning."""
    prefix = attempt.prefix
    if attempt.fault == "begin anew":
        return prefix[:150]
    if attempt.fault == "repeat the end" or (attempt.kind == "prompt" and _ambiguous(prefix, text[len(prefix) :])):
        return (
            prefix[-chance.randint(_LEAST_REPEATED, min(120, len(prefix))) :] if len(prefix) >= _LEAST_REPEATED else ""
        )
    return ""


def _ambiguous(prefix: str, rest: str) -> bool:
    """Whether the rest of a word looks like the word written once more."""
    fragment = re.search(r"\w+\Z", prefix)
    return fragment is not None and len(fragment[0]) >= 2 and rest.startswith(fragment[0])


def _frame(writer: asyncio.StreamWriter, choice: dict[str, Any], chance: random.Random) -> None:
    body = {"id": "chaos", "object": "chat.completion.chunk", "model": "chaos", "choices": [{"index": 0, **choice}]}
    data = b"data: %s\n\n" % msgspec.json.encode(body)
    # Now and then in two, anywhere: inside a line, inside a character.
    cut = chance.randrange(1, len(data)) if chance.random() < 0.2 else len(data)
    for piece in (data[:cut], data[cut:]):
        if piece:
            _chunk(writer, piece)


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def _send(writer: asyncio.StreamWriter, status: int, body: object) -> None:
    data = msgspec.json.encode(body)
    head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
