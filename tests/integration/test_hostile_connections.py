"""Bytes that no decent client sends, on real connections: every request is answered, and nobody gets in by a side door."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

import msgspec
import pytest

from cauce.server.gate import hash_key
from cauce.testing.upstream import Upstream
from tests.http import ask, within
from tests.integration.test_streams import config
from tests.serving import MESSAGES, Served, serving

pytestmark = pytest.mark.anyio

_KEYS = f'[[auth.keys]]\nname = "a"\nhash = "{hash_key("KEY-A")}"\n'
_CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
_AUTHORIZED = b"authorization: Bearer KEY-A\r\n"


@pytest.fixture
async def served(upstream: Upstream) -> AsyncIterator[Served]:
    async with serving(config(upstream) + _KEYS) as served:
        yield served


def asked(text: str = "x") -> bytes:
    return msgspec.json.encode({"model": "up/m", "messages": [*MESSAGES, {"role": "user", "content": text}]})


def posted(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"host: localhost", b"authorization: Bearer KEY-A"]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), *headers, b"", body])


async def told(served: Served, *pieces: bytes) -> bytes:
    """All that is answered to `pieces`, until the server closes."""

    async def work() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    return await within(work(), 20)


async def test_request_whose_head_begins_in_the_last_bytes_of_a_large_body_is_answered(served: Served) -> None:
    first, second = posted(asked("x" * 200_000)), posted(asked(), b"connection: close")
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    while not (connections := served.server.server_state.connections):
        await asyncio.sleep(0)
    (connection,) = connections
    # As one read: how much a system gives at once is its own affair.
    connection.data_received(first + second[:30])
    writer.write(second[30:])
    answers = await within(reader.read(), 20)
    writer.close()
    assert answers.count(b"HTTP/1.1 200 OK") == 2 and b" 431 " not in answers


async def test_key_in_a_trailer_opens_nothing(served: Served) -> None:
    body = asked()
    rest = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, _AUTHORIZED)
    answer = await told(served, _CHUNKED + b"connection: close\r\n\r\n" + rest)
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_trailers_are_read_over(served: Served) -> None:
    body = asked()
    rest = b"%x\r\n%b\r\n0\r\nx-checksum: 1\r\n\r\n" % (len(body), body)
    answer = await told(served, _CHUNKED + _AUTHORIZED + b"connection: close\r\n\r\n" + rest)
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_trailer_without_an_end_is_refused(served: Served) -> None:
    body = asked()
    opening = _CHUNKED + _AUTHORIZED + b"\r\n%x\r\n%b\r\n0\r\nx-endless: " % (len(body), body)
    answer = await told(served, opening, *[b"x" * 60_000] * 8)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_depth_that_can_be_read_can_be_sent_on_and_logged_too(served: Served) -> None:
    seen: set[bytes] = set()
    for depth in (400, *range(700, 1000, 4)):
        body = asked()[:-1] + b',"unknown":' + b"[" * depth + b"]" * depth + b"}"
        headers = b"idempotency-key: deep-%d" % depth, b"connection: close"
        seen.add((await told(served, posted(body, *headers)))[9:12])
    assert seen == {b"200", b"400"}


async def test_body_in_chunks_of_a_byte_is_no_large_head(served: Served) -> None:
    body = asked("x" * 60_000)
    pieces = [
        b"".join([b"1\r\n%c\r\n" % byte for byte in body[at : at + 20_000]]) for at in range(0, len(body), 20_000)
    ]
    answer = await told(served, _CHUNKED + _AUTHORIZED + b"connection: close\r\n\r\n", *pieces, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("other", ["GET /v1beta/models/", "POST /chat/stream/", "GET /conversations/", "GET /nowhere/"])
async def test_path_that_is_not_utf8_is_refused_and_not_taken_for_another(served: Served, other: str) -> None:
    method, _, prefix = other.partition(" ")
    body = {"model": "up/m", "messages": MESSAGES} if method == "POST" else None
    for name in ("bad%FF", "bad%FE", "%ED%A0%80", "a%C3"):
        answer = await ask(served.port, method, prefix + name, body, {"Authorization": "Bearer KEY-A"})
        assert answer.status == 400 and "UTF-8" in answer.body.decode()


async def test_path_in_bytes_that_are_no_ascii_is_refused(served: Served) -> None:
    line = b"GET /chat/stream/bad\xff HTTP/1.1\r\nhost: localhost\r\n"
    answer = await told(served, line + _AUTHORIZED + b"connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("stream_id", ["r%C3%ADo", "r%EF%BF%BDo", "%F0%9F%8C%8A"])
async def test_path_in_utf8_names_a_stream_whatever_its_letters(served: Served, stream_id: str) -> None:
    keyed = {"Authorization": "Bearer KEY-A"}
    answer = await ask(served.port, "POST", f"/chat/stream/{stream_id}", {"model": "up/m", "messages": MESSAGES}, keyed)
    assert answer.frames()[-1]["type"] == "complete"
    assert answer.frames()[0]["id"] == unquote(stream_id)
