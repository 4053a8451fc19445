"""A model that says nothing for a long time: on every streaming surface something is sent all the while, from the moment the request was accepted."""

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from cauce.bootstrap import runtime
from cauce.engine.streams.streams import Streams
from cauce.engine.turn import Defaults, Turn
from cauce.ports.provider import Call, Deltas
from cauce.server.app import BEGINS, HOT, Application
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, answering
from tests.http import within
from tests.serving import MESSAGES, configured

pytestmark = pytest.mark.anyio

CHAT = {"model": "offline", "messages": MESSAGES, "stream": True}
SURFACES = {
    "/v1/chat/completions": (CHAT, b": hb", b"[DONE]"),
    "/v1/completions": ({"model": "offline", "prompt": "Hello", "stream": True}, b": hb", b"[DONE]"),
    "/v1/responses": ({"model": "offline", "input": "Hello", "stream": True}, b": hb", b"response.completed"),
    "/v1/messages": ({**CHAT, "max_tokens": 9}, b": hb", b"message_stop"),
    "/llm/message": (CHAT, b": hb", b'"complete"'),
    "/chat/stream/one": (CHAT, b": hb", b'"complete"'),
    "/api/chat": (
        {
            "model": "offline",
            "id": "one",
            "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}],
        },
        b": hb",
        b'"finish"',
    ),
    "/v1beta/models/offline:streamGenerateContent?alt=sse": (
        {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
        b"\r\n",
        b'"finishReason":"STOP"',
    ),
}
WHOLE = {"/v1/embeddings"}
"""Asks a model, and has nothing to stream."""
SILENCE = 90
"""Seconds before the first delta."""
EVERY = 10
"""Seconds between heartbeats."""


class Client:
    """One request, asked of the app without a socket. It stays until `leave`."""

    def __init__(
        self, app: Application, target: str, body: dict[str, Any], *headers: tuple[bytes, bytes], method: str = "POST"
    ) -> None:
        path, _, query = target.partition("?")
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost"), (b"anthropic-version", b"2023-06-01"), *headers],
        }
        self._messages: list[dict[str, Any]] = [{"type": "http.request", "body": msgspec.json.encode(body)}]
        self.sent: list[bytes] = []
        self.status = 0
        self.task = asyncio.create_task(app(self._scope, self._receive, self._send))

    async def _receive(self) -> MutableMapping[str, Any]:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop()

    async def _send(self, event: MutableMapping[str, Any]) -> None:
        self.status = event.get("status", self.status)
        if event.get("body"):
            self.sent.append(event["body"])


async def soon() -> None:
    """Let everything run that can run now."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_no_streaming_surface_is_left_out() -> None:
    assert {path for (_, path), handler in HOT.items() if handler in BEGINS} - WHOLE <= set(SURFACES)


@pytest.mark.parametrize("target", SURFACES)
async def test_ninety_seconds_of_silence_are_never_silent_for_long(target: str) -> None:
    await _listen(target)


@pytest.mark.parametrize("target", SURFACES)
async def test_bytes_arrive_every_ten_seconds_before_the_first_token(target: str) -> None:
    await _listen(target, (b"idempotency-key", b"k"))


async def _listen(target: str, *headers: tuple[bytes, bytes]) -> None:
    clock, gate = FakeClock(), asyncio.Event()
    provider = ScriptedProvider("slow", (gate, *answering("Hello there.")))

    async def open(call: Call) -> Deltas:
        return await provider.open(call)

    built = runtime(configured())
    turn = Turn(built.router, open, Defaults())
    log = InprocStreamLog(clock, retention=3600, max_bytes=1 << 20)
    services = msgspec.structs.replace(built.services, clock=clock, turn=turn, streams=Streams(log, turn, clock))
    body, beat, end = SURFACES[target]
    client = Client(Application(services), target, body, *headers)
    try:
        await soon()
        clock.advance(services.stream_settings.hold_headers)
        await soon()
        # Nothing has come from the model, and the client has a status and a first sign of life.
        assert client.status == 200
        before = len(client.sent)
        assert before >= 1
        for number in range(1, SILENCE // EVERY + 1):
            clock.advance(EVERY)
            await soon()
            assert len(client.sent) == before + number and client.sent[-1].startswith(beat)
        gate.set()
        await within(client.task)
        said = b"".join(client.sent)
        assert end in said and said.count(b"there.") >= 1
    finally:
        client.task.cancel()
        with suppress(asyncio.CancelledError):
            await client.task
        await built.services.stop()
