"""The load: a fixed number of requests at a fixed concurrency, bounded in time, every answer checked.

A closed loop: a connection sends its next request when the last answer is whole. A wrong or short answer
is an error and its latency does not count. What is sent and what is right is in `traffic.py`.
"""

import argparse
import asyncio
import json
import socket
import time
from dataclasses import asdict, dataclass, field
from typing import cast

import httptools
import uvloop

from bench import traffic

GRACE_SECONDS = 15.0
"""How long answers may still come once no more requests are sent."""

ERRORS_ALLOWED = 50
"""A phase with more errors than this is given up: its figures would mean nothing."""


@dataclass(frozen=True)
class Target:
    """Where to send and how: a port on 127.0.0.1, and what this system wants in path, headers and model name."""

    port: int
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    model_prefix: str = ""
    translated: "Target | None" = None
    """Where an upstream of Anthropic's wire is asked for in OpenAI's; None: this system cannot."""
    caches: bool = False
    """Whether it keeps answers."""

    def of(self, model: str) -> "Target | None":
        """The target that `model` is asked of."""
        if model in (traffic.CACHED, traffic.MISSED) and not self.caches:
            return None
        return self.translated if model == traffic.TRANSLATED else self

    def request(self, model: str, stream: bool) -> bytes:
        """The whole request as bytes."""
        body = traffic.request_body(self.model_prefix + model, stream)
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"host: 127.0.0.1:{self.port}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Load:
    """At most `count` requests and at most `seconds` of sending, `concurrency` at a time."""

    model: str
    concurrency: int
    count: int
    seconds: float

    @property
    def stream(self) -> bool:
        return self.model not in traffic.PLAIN_MODELS


@dataclass(frozen=True)
class Outcome:
    """What came of a load. Latencies are nanoseconds from sending to the last byte, sorted."""

    completed: int
    chunks: int
    seconds: float
    latencies: list[int]
    errors: int
    first_error: str | None

    def percentile(self, share: float) -> float:
        """Latency in microseconds below which `share` of the answers came; there must have been one."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] / 1000

    @property
    def per_second(self) -> float:
        return self.completed / self.seconds


class Session:
    """One run of a load: deals requests out to connections and gathers what they saw."""

    def __init__(self, target: Target, load: Load, loop: asyncio.AbstractEventLoop) -> None:
        self.target = target
        self.load = load
        self.loop = loop
        self.bytes_to_send = target.request(load.model, load.stream)
        self.fault = traffic.fault_in_stream if load.stream else traffic.fault_in_plain
        self.latencies: list[int] = []
        self.chunks = 0
        self.errors = 0
        self.first_error: str | None = None
        self.started = time.perf_counter()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._counted = self.bytes_to_send.partition(traffic.COUNTER)
        self._left = load.count
        self._deadline = self.started + load.seconds
        self._lanes = load.concurrency

    def take(self) -> bool:
        """Whether one more request may be sent; counts it."""
        if self._left <= 0 or self.errors > ERRORS_ALLOWED or time.perf_counter() >= self._deadline:
            return False
        self._left -= 1
        return True

    def next_bytes(self) -> bytes:
        """The request, with a number of its own where it has a counter."""
        before, counter, after = self._counted
        if not counter:
            return self.bytes_to_send
        return b"%b%b%08d%b" % (before, counter[:-8], self._left, after)

    def leave(self) -> None:
        """A lane has nothing more to do; the last one ends the session."""
        self._lanes -= 1
        if self._lanes == 0 and not self.finished.done():
            self.finished.set_result(None)

    def record_error(self, text: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or text

    async def connect(self) -> None:
        """Opens one lane; a refused connection is an error and closes the lane."""
        try:
            await self.loop.create_connection(lambda: Lane(self), "127.0.0.1", self.target.port)
        except OSError as error:
            self.record_error(f"no connection: {error}")
            self.leave()


class Lane(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = False
        self._left = False
        self._body: list[bytes] = []
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not descend from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send()

    def _send(self) -> None:
        if not self._session.take():
            self._depart()
            return
        self._body = []
        self._waiting = True
        self._sent = time.perf_counter_ns()
        self._transport.write(self._session.next_bytes())

    def _depart(self) -> None:
        self._left = True
        self._transport.close()
        self._session.leave()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._waiting = False
            self._session.record_error(f"not HTTP: {error}")
            self._transport.close()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        took = time.perf_counter_ns() - self._sent
        session = self._session
        body = b"".join(self._body)
        status = self._parser.get_status_code()
        fault = session.fault(body) if status == 200 else f"status {status}: {body[:200].decode(errors='replace')}"
        self._waiting = False
        if session.load.stream:
            session.chunks += body.count(traffic.MARKER)
        if fault is None:
            session.latencies.append(took)
        else:
            session.record_error(fault)
        if self._parser.should_keep_alive():
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._session.record_error("the connection closed before the answer was whole")
        if self._left:
            return
        # The server closed between two requests, or broke one: the lane goes on over a new connection.
        self._session.loop.create_task(self._session.connect())


async def run(target: Target, load: Load) -> Outcome:
    """Runs the load against the target and returns what came of it; never longer than its time and the grace."""
    loop = asyncio.get_running_loop()
    session = Session(target, load, loop)
    await asyncio.gather(*(session.connect() for _ in range(load.concurrency)))
    try:
        await asyncio.wait_for(session.finished, load.seconds + GRACE_SECONDS)
    except TimeoutError:
        session.record_error("answers were still missing when the time was up")
    return Outcome(
        completed=len(session.latencies),
        chunks=session.chunks,
        seconds=time.perf_counter() - session.started,
        latencies=sorted(session.latencies),
        errors=session.errors,
        first_error=session.first_error,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Bounded load on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=18000)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE")
    parser.add_argument("--model-prefix", default="", help="for example mock/")
    parser.add_argument("--caches", action="store_true", help="it keeps answers: for bench-cached and bench-missed")
    parser.add_argument(
        "--model", choices=(*traffic.MODELS, traffic.TRANSLATED, traffic.CACHED, traffic.MISSED), default=traffic.PLAIN
    )
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    pairs: list[list[str]] = [header.split(":", 1) for header in arguments.header]
    headers = {name.strip(): value.strip() for name, value in pairs}
    target = Target(arguments.port, arguments.path, headers, arguments.model_prefix, caches=arguments.caches)
    load = Load(arguments.model, arguments.concurrency, arguments.count, arguments.seconds)
    outcome = uvloop.run(run(target, load))
    figures = asdict(outcome)
    del figures["latencies"]
    if outcome.completed:
        figures |= {"p50_us": outcome.percentile(0.5), "p99_us": outcome.percentile(0.99)}
        figures["per_second"] = outcome.per_second
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
