"""Recorded answers, served again: where they are, which there are, and a server that gives the one a request's model names."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("CAUCE_RECORDINGS", "../shared/recordings"))

_IN_PATH = re.compile(r"/models/([^:/?]+):")


def listed(*apis: str) -> list[dict[str, Any]]:
    """The recordings of `apis` (all without); empty where there is no folder of them."""
    manifest = DATA / "manifest.json"
    if not manifest.is_file():
        return []
    recordings: list[dict[str, Any]] = json.loads(manifest.read_text("utf-8"))["recordings"]
    return [one for one in recordings if not apis or one["api"] in apis]


def parameters(*apis: str) -> list[Any]:
    """`listed(...)` as parameters of a test; one that is skipped, and says why, where there is no folder of them."""
    found = [pytest.param(one, id=one["id"]) for one in listed(*apis)]
    reason = f"no recordings in {DATA}: make test-recordings DATA=DIR"
    return found or [pytest.param(None, marks=pytest.mark.skip(reason=reason))]


def answer(recording: dict[str, Any]) -> tuple[bytes, bytes]:
    """Head and body of the recorded answer."""
    body = (DATA / recording["file"]).read_bytes()
    head = f"HTTP/1.1 {recording['status']} Recorded\r\ncontent-length: {len(body)}\r\n"
    head += "".join([f"{name}: {value}\r\n" for name, value in (recording.get("headers") or {}).items()])
    head += f"content-type: {recording['content_type'] or 'application/json'}\r\n\r\n"
    return head.encode(), body


@contextlib.asynccontextmanager
async def replaying(split: int = 1_000_000) -> AsyncIterator[int]:
    """A server whose models are the recordings' ids; yields its port. Bodies are sent in pieces of `split` bytes."""
    known = {one["id"]: one for one in listed()}
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                in_path = _IN_PATH.search(head.split("\r\n")[0])
                name = in_path[1] if in_path else json.loads(body or b"{}").get("model", "")
                if name not in known:
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")
                    continue
                recorded_head, recorded = answer(known[name])
                writer.write(recorded_head)
                for place in range(0, len(recorded), split):
                    writer.write(recorded[place : place + split])
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
