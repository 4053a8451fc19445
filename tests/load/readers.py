"""Readers of logged streams before a real server: that stand still, that reload all the time, and that are many."""

import asyncio
import contextlib
import re
import socket
import statistics
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from bench import process_tree
from cauce.testing.upstream import Reply, Upstream
from tests.http import Connection, ask, connection
from tests.load.clocked import Clocked
from tests.load.gateway import Gateway, gateway, provider

_FRAME = re.compile(rb"id: (\d+)\ndata: (.+)\n\n")
_STAMPS = re.compile(rb'"type":"content","data":"([0-9. ]+)"')


class Narrow:
    """A reader whose connection holds little: its buffer is small, and small segments keep the server's own one small too."""

    def __init__(self, port: int, stream: str) -> None:
        self._port = port
        self._stream = stream
        self._raw = b""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self.socket.setblocking(False)

    async def open(self, body: bytes) -> None:
        """Ask for the stream, and read the head of the answer."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", self._port))
        head = f"POST /chat/stream/{self._stream} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        await loop.sock_sendall(self.socket, head.encode() + body)
        while b"\r\n\r\n" not in self._raw:
            piece = await loop.sock_recv(self.socket, 256)
            assert piece, "the connection was closed"
            self._raw += piece
        head, _, self._raw = self._raw.partition(b"\r\n\r\n")
        assert b" 200 " in head, head

    async def rest(self) -> bytes:
        """The body as far as there is one: to its end, or to where the connection broke."""
        loop = asyncio.get_running_loop()
        parts = [self._raw]
        with suppress(ConnectionError):
            while not parts[-1].endswith(b"0\r\n\r\n") and (piece := await loop.sock_recv(self.socket, 65_536)):
                parts.append(piece)
        self.socket.close()
        return _unchunked(b"".join(parts))

    async def resumed(self) -> bytes:
        """What it had when it was sent away, and what follows that."""
        had = await self.rest()
        frames = list(_FRAME.finditer(had))
        end, after = (frames[-1].end(), frames[-1][1].decode()) if frames else (0, "0")
        follows = await ask(self._port, "GET", f"/chat/stream/{self._stream}/resume?after={after}")
        assert follows.status == 200 and follows.complete
        return had[:end] + follows.body


class Standing(msgspec.Struct, frozen=True):
    """What became of streams and readers. Megabytes of memory: before, and the most there was until all that stand still were sent away.

    `whole` are the readers that had every record once, to the end.
    """

    idle: float
    loaded: float
    streams_complete: int
    woken_whole: int
    sent_away: int
    resumed_whole: int


async def standing(folder: Path, streams: int, each: int, waking: int, text: str) -> Standing:
    """`streams` streams with `each` readers that stand still: half of them come at the start, half when the stream has ended and all of
    it is there at once. Then, of each stream, `waking` go on, and the others are waited for until they have been sent away."""
    async with Upstream(Reply(text=text, pace=0.02)) as upstream, gateway(folder, provider(upstream)) as served:
        body = msgspec.json.encode({"model": "up/m", "messages": [{"role": "user", "content": "Say hello."}]})
        await ask(served.port, "POST", "/chat/stream/first", body)
        idle = process_tree.resident_megabytes(served.pid)
        peak = asyncio.create_task(_peak(served))
        steady = [asyncio.create_task(ask(served.port, "POST", f"/chat/stream/{n}", body)) for n in range(streams)]
        readers = [Narrow(served.port, str(number % streams)) for number in range(streams * each)]
        room = asyncio.Semaphore(50)

        async def open(reader: Narrow) -> None:
            async with room:
                await reader.open(body)

        early = len(readers) // 2
        await asyncio.gather(*[open(reader) for reader in readers[:early]])
        complete = [_is_whole((await task).body, text) for task in steady]
        await asyncio.gather(*[open(reader) for reader in readers[early:]])
        awake, asleep = readers[-waking * streams :], readers[: -waking * streams]
        woken = await asyncio.gather(*[reader.rest() for reader in awake])
        away = await _sent_away(served, len(asleep))
        peak.cancel()
        loaded = max(await peak)

        async def resume(reader: Narrow) -> bytes:
            async with room:
                return await reader.resumed()

        resumed = await asyncio.gather(*[resume(reader) for reader in asleep])
        return Standing(
            idle,
            loaded,
            sum(complete),
            sum([_is_whole(one, text) for one in woken]),
            away,
            sum([_is_whole(one, text) for one in resumed]),
        )


class Folded(msgspec.Struct, frozen=True):
    """Megabytes of memory before readers came back to a stream and with all of them there, and the records that it had by then."""

    before: float
    after: float
    records: int


async def coming_back(folder: Path, wire: str, readers: int, words: int) -> Folded:
    """`readers` come back to the middle of a stream of short words that goes on, on `wire`, and have all that there is of it."""
    text = " ".join([f"{number:06}" for number in range(words)])
    reply = Reply(text=text, pace=0.005, stall_after=words)
    async with (
        Upstream(reply) as upstream,
        gateway(folder, provider(upstream) + "\n[timeouts]\nidle = 600\n") as served,
    ):
        body = msgspec.json.encode({"model": "up/m", "messages": _MESSAGES})
        async with connection(served.port) as writer, contextlib.AsyncExitStack() as stack:
            await writer.send("POST", "/chat/stream/s", body)
            await _read_to(writer, f"{words - 1:06}".encode())
            told = msgspec.json.decode((await ask(served.port, "GET", "/chat/stream/s")).body)
            tail: int = told["tail"]
            before = process_tree.resident_megabytes(served.pid)
            room = asyncio.Semaphore(20)

            async def come_back(client: Connection) -> None:
                async with room:
                    await client.send("GET", f"/chat/stream/s/resume?wire={wire}&after={tail // 2}")
                    await _read_to(client, f"{words - 1:06}".encode())

            clients = [await stack.enter_async_context(connection(served.port)) for _ in range(readers)]
            await asyncio.gather(*[come_back(client) for client in clients])
            return Folded(before, process_tree.resident_megabytes(served.pid), tail)


async def _read_to(client: Connection, word: bytes) -> None:
    """Read an answer up to `word`."""
    status, _ = await client.head()
    assert status == 200
    read = b""
    while word not in read:
        chunk = await client.chunk()
        assert chunk, "the stream ended"
        read = read[-100:] + chunk


async def _peak(served: Gateway) -> list[float]:
    seen: list[float] = []
    with suppress(asyncio.CancelledError):
        while True:
            seen.append(process_tree.resident_megabytes(served.pid))
            await asyncio.sleep(0.5)
    return seen


async def _sent_away(served: Gateway, readers: int, patience: float = 120.0) -> int:
    """How many of its `readers` the server has let go of when none is left, or patience is over. They hear of it when they read."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while (left := _connected(served)) and loop.time() < until:
        await asyncio.sleep(0.5)
    return readers - left


def _connected(served: Gateway) -> int:
    """Connections to the server that it has not closed."""
    ours, open = f":{served.port:04X}", "01"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return len([line for line in lines if line[1].endswith(ours) and line[3] == open])


def _is_whole(body: bytes, text: str) -> bool:
    """Whether these are the frames of a stream with that text: all, each once, in their order."""
    frames = [(int(number), msgspec.json.decode(data)) for number, data in _FRAME.findall(body)]
    said = "".join([frame["data"] for _, frame in frames if frame["type"] == "content"])
    last: dict[str, str] = frames[-1][1] if frames else {}
    numbers = [number for number, _ in frames]
    return (
        numbers == list(range(1, len(frames) + 1)) and said == text == last.get("data") and last["type"] == "complete"
    )


def _unchunked(raw: bytes) -> bytes:
    """The body in `raw`, as far as its chunks are whole."""
    parts: list[bytes] = []
    at = 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        size = int(raw[at:end], 16)
        if not size or end + 2 + size > len(raw):
            break
        parts.append(raw[end + 2 : end + 2 + size])
        at = end + 4 + size
    return b"".join(parts)


class Address(msgspec.Struct, frozen=True):
    """Where a stream is begun on a wire, and where it is read from its start: `{id}` is the id of what was made.

    `after` goes before the cursor of who has had something, which `numbered` finds in an event.
    """

    begun: str
    body: dict[str, object]
    headers: dict[str, str]
    whole: str
    after: str
    numbered: re.Pattern[bytes]


_MESSAGES = [{"role": "user", "content": "Say hello."}]
_ID = re.compile(rb"^id: (.+)$", re.MULTILINE)
WIRES = {
    "native": Address(
        "/chat/stream/s", {"model": "up/m", "messages": _MESSAGES}, {}, "/chat/stream/s/resume?after=0", "&after=", _ID
    ),
    "openai-chat": Address(
        "/v1/chat/completions",
        {"model": "up/m", "messages": _MESSAGES, "stream": True},
        {"Idempotency-Key": "s"},
        "/chat/stream/openai-chat:s/resume?wire=openai-chat&after=0",
        "&after=",
        _ID,
    ),
    "responses": Address(
        "/v1/responses",
        {"model": "up/m", "input": "Say hello.", "stream": True, "background": True},
        {},
        "/v1/responses/{id}?stream=true",
        "&starting_after=",
        re.compile(rb'"sequence_number":(\d+)'),
    ),
}


class Reloaded(msgspec.Struct, frozen=True):
    """The events that two readers of one stream were sent, and how often one of them reloaded."""

    steady: list[bytes]
    reloading: list[bytes]
    reloads: int


async def reloading(folder: Path, wire: str, words: int) -> Reloaded:
    """One reader stays; the other leaves a second after it came, and comes back for what follows the last event it had whole."""
    address = WIRES[wire]
    text = " ".join([f"word{number}" for number in range(words)])
    # Nobody but the readers decides how long it goes on.
    toml = '[streams]\non_disconnect = "continue"\n'
    async with Upstream(Reply(text=text, pace=0.02)) as upstream, gateway(folder, provider(upstream) + toml) as served:
        started = asyncio.get_running_loop().create_future()

        async def stay() -> list[bytes]:
            async with connection(served.port) as client:
                await client.send("POST", address.begun, msgspec.json.encode(address.body), address.headers)
                _, headers = await client.head()
                body = await client.chunk()
                while b"data: " not in body:
                    body += await client.chunk()
                found = re.search(rb'"id":"(resp_[^"]+)"', body)
                started.set_result(found[1].decode() if found else headers.get("x-cauce-stream-id", ""))
                while chunk := await client.chunk():
                    body += chunk
                return _events(body)[0]

        async def reload(name: str) -> tuple[list[bytes], int]:
            events: list[bytes] = []
            path = whole = address.whole.format(id=name)
            turns = 0
            while True:
                turns += 1
                had, ended = await _for_a_second(served.port, path)
                events += had
                if had and (found := address.numbered.search(had[-1])):
                    path = whole + address.after + found[1].decode()
                if ended:
                    return events, turns

        steady = asyncio.create_task(stay())
        events, turns = await reload(await started)
        return Reloaded(await steady, events, turns)


async def _for_a_second(port: int, path: str) -> tuple[list[bytes], bool]:
    """The whole events that arrive within a second, and whether the body ended."""
    body = b""
    async with connection(port) as client:
        await client.send("GET", path)
        status, _ = await client.head()
        if status == 204:
            return [], True
        assert status == 200
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while chunk := await client.chunk():
                    body += chunk
                return _events(body)[0], True
        client.abort()
    return _events(body)[0], False


def _events(body: bytes) -> tuple[list[bytes], bytes]:
    """Whole events without what is no part of them: heartbeats, priming, and how long to wait before coming back."""
    *blocks, left = body.split(b"\n\n")
    events: list[bytes] = []
    for block in blocks:
        lines = [line for line in block.split(b"\n") if not line.startswith((b":", b"retry:"))]
        if any([line.startswith(b"data:") for line in lines]):
            events.append(b"\n".join(lines))
    return events, left


class Many(msgspec.Struct, frozen=True):
    """Streams that ran together; how far behind its provider each piece was read, in milliseconds; and cores that the server kept busy."""

    complete: int
    pieces: int
    p50: float
    p99: float
    longest: float
    cores: float


async def many(folder: Path, streams: int, per_second: float, seconds: float) -> Many:
    """`streams` durable streams, each with a reader, and with so many deltas a second."""
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    count = int(per_second * seconds)
    async with Clocked(per_second, count) as upstream:
        toml = f'[providers.up]\nkind = "openai"\nbase_url = "{upstream.url}/v1"\napi_key = "k"\n'
        async with gateway(folder, toml) as served:
            body = msgspec.json.encode({"model": "up/m", "messages": _MESSAGES})

            async def client(number: int) -> int:
                # Deltas of many clients do not come in step.
                await asyncio.sleep(number / streams)
                got, last = 0, b""
                async with connection(served.port) as reading:
                    await reading.send("POST", f"/chat/stream/{number}", body)
                    await reading.head()
                    while chunk := await reading.chunk():
                        now = time.perf_counter()
                        stamps = [float(one) for piece in _STAMPS.findall(chunk) for one in piece.split()]
                        delays.extend([now - stamp for stamp in stamps])
                        got, last = got + len(stamps), chunk
                return got == count and b'"type":"complete"' in last

            cpu, began = process_tree.cpu_nanoseconds(served.pid), loop.time()
            complete = await asyncio.gather(*[client(number) for number in range(streams)])
            took = loop.time() - began
            cpu = process_tree.cpu_nanoseconds(served.pid) - cpu
    cuts = statistics.quantiles(delays, n=100)
    return Many(sum(complete), len(delays), cuts[49] * 1e3, cuts[98] * 1e3, max(delays) * 1e3, cpu / 1e9 / took)
