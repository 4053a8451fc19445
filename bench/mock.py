"""A mock OpenAI-compatible upstream: fixed bytes, no think time, cheap enough not to be the bottleneck.

The model's name selects the answer: `bench-plain` a completion; with `"stream": true`, `bench-burst` the
whole stream in one write, `bench-paced` one delta each 20 ms (`--pace`) and `bench-tools` a tool call in one write; on the path
`/messages` `bench-translated` is a stream of Anthropic's wire in one write. Each event is an HTTP chunk of its own,
as real providers send them. Requests are searched, not parsed: whoever forwards no model name gets a 400.
"""

import argparse
import asyncio
import json
import re
import socket
from contextlib import suppress
from typing import cast

import httptools
import uvloop

from bench import traffic

_STREAM = re.compile(rb'"stream"\s*:\s*true')
_ASKS_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_MODEL = re.compile(rb'"model"\s*:\s*"[^"]*bench-(plain|burst|paced|tools|translated|cached|missed)"')


def _with_length(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_DELTAS = [_http_chunk(event) for event in traffic.DELTA_EVENTS]
_USAGE = _http_chunk(traffic.USAGE_EVENT)
_END = _http_chunk(traffic.DONE_EVENT) + b"0\r\n\r\n"
_FINISH = _http_chunk(traffic.FINISH_EVENT)
_BURST = _STREAM_HEAD + b"".join(_DELTAS) + _FINISH + _END
_BURST_USAGE = _STREAM_HEAD + b"".join(_DELTAS) + _FINISH + _USAGE + _END
_TOOLS_EVENTS = b"".join([_http_chunk(event) for event in (*traffic.TOOL_EVENTS, traffic.TOOL_FINISH)])
_TOOLS = _STREAM_HEAD + _TOOLS_EVENTS + _END
_TOOLS_USAGE = _STREAM_HEAD + _TOOLS_EVENTS + _USAGE + _END
_TRANSLATED = _STREAM_HEAD + b"".join([_http_chunk(event) for event in traffic.ANTHROPIC_EVENTS]) + b"0\r\n\r\n"
_PLAIN = _with_length("200 OK", traffic.ANSWER)
_MODELS = _with_length(
    "200 OK",
    json.dumps(
        {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "bench"} for name in traffic.MODELS]}
    ).encode(),
)
_UNKNOWN_MODEL = _with_length(
    "400 Bad Request", b'{"error":{"message":"unknown model","type":"invalid_request_error"}}'
)
_NOT_FOUND = _with_length("404 Not Found", b'{"error":{"message":"no such path","type":"invalid_request_error"}}')


class Connection(asyncio.Protocol):
    """One connection: requests one after another, each answered when its last byte is in."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: float) -> None:
        self._loop = loop
        self._seconds = pace
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._path = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not descend from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def on_url(self, url: bytes) -> None:
        self._path = url
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._path.endswith((b"/chat/completions", b"/messages")):
            self._answer()
        else:
            self._transport.write(_MODELS if self._path.endswith(b"/models") else _NOT_FOUND)

    def _answer(self) -> None:
        model = _MODEL.search(self._body)
        if model is None:
            self._transport.write(_UNKNOWN_MODEL)
        elif _STREAM.search(self._body) is None:
            self._transport.write(_PLAIN)
        else:
            usage = _ASKS_USAGE.search(self._body) is not None
            kind = model.group(1)
            if kind == b"translated":
                self._transport.write(_TRANSLATED)
            elif kind == b"tools":
                self._transport.write(_TOOLS_USAGE if usage else _TOOLS)
            elif kind == b"paced":
                self._transport.write(_STREAM_HEAD)
                self._pace(0, self._loop.time(), usage)
            else:
                self._transport.write(_BURST_USAGE if usage else _BURST)

    def _pace(self, number: int, started: float, usage: bool) -> None:
        last = number == traffic.DELTAS - 1
        if not last:
            self._transport.write(_DELTAS[number])
            # Against the start, not the last delta, so that lateness does not add up.
            due = started + (number + 1) * self._seconds
            self._timer = self._loop.call_at(due, self._pace, number + 1, started, usage)
        else:
            self._timer = None
            self._transport.write(_DELTAS[number] + _FINISH + (_USAGE if usage else b"") + _END)


async def serve(port: int, seconds: float, pace: float) -> None:
    """Answers on 127.0.0.1:`port` for at most `seconds`; paced streams have a delta every `pace` seconds."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(loop, pace), "127.0.0.1", port, backlog=4096)
    try:
        await asyncio.sleep(seconds)
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mock", description="Mock OpenAI-compatible upstream.")
    parser.add_argument("--port", type=int, default=18000, help="port on 127.0.0.1 (default: 18000)")
    parser.add_argument("--seconds", type=float, default=7200, help="stops by itself after this time (default: 7200)")
    parser.add_argument(
        "--pace", type=float, default=traffic.PACE_SECONDS, help="seconds between deltas of bench-paced"
    )
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        uvloop.run(serve(arguments.port, arguments.seconds, arguments.pace))


if __name__ == "__main__":
    main()
