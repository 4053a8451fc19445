"""Streams and commits that tests of stream logs are made of."""

from collections.abc import Awaitable, Callable

from cauce.domain.delta import Finish, Text
from cauce.domain.extra import Extra
from cauce.domain.message import ImagePart, Message, TextPart, ToolCallPart
from cauce.domain.request import Request
from cauce.domain.stream import AttemptRow, Commit, Head, Hold, NewStream, Record, StreamKey, StreamLimits
from cauce.domain.tool import Tool
from cauce.domain.usage import Usage
from cauce.ports.stream_log import StreamLog

KEY = StreamKey("tenant/key", "chat-1")
LEASE = 10.0
RETENTION = 3600.0
CREATED = 1_700_000_000.25
LIMITS = StreamLimits(bytes=8_000, records=20)

Logs = Callable[..., Awaitable[StreamLog]]

REQUEST = Request(
    "auto",
    (
        Message("user", (TextPart("hi"), ImagePart("data:image/png;base64,AAAA"))),
        Message("assistant", (ToolCallPart("c1", "look", '{"a":1}'),)),
        Message("tool", (TextPart("seen"),), call_id="c1"),
    ),
    tools=(Tool("look", parameters={"type": "object"}),),
    metadata={"a": 1.5},
    extra=Extra("openai-chat", {"x": [1, {"y": None}]}),
)


def new_stream(key: StreamKey = KEY, retention: float | None = None, created: float = CREATED) -> NewStream:
    """A stream that has not been created."""
    return NewStream(key, REQUEST, b"\x00digest", created, retention=retention, policy='{"a":1}')


async def created(log: StreamLog, key: StreamKey = KEY) -> Hold:
    """The hold of a stream just created."""
    hold = (await log.create(new_stream(key))).hold
    assert hold is not None
    return hold


def text(*words: str) -> Commit:
    """A commit of text."""
    return Commit(tuple([Text(word) for word in words]), "running")


END = Commit(
    (Finish("stop", Usage(3, 4)),),
    "completed",
    attempts=(AttemptRow(1, "up", "m", usage=Usage(3, 4), outcome="completed"),),
)
CANCELLED = Commit((Finish("cancelled", outcome="cancelled"),), "cancelled")


async def whole(log: StreamLog, key: StreamKey = KEY) -> list[Record]:
    """All records, in as many reads as it takes."""
    found: list[Record] = []
    while batch := await log.read(key, len(found), 1000):
        found.extend(batch)
    return found


async def bills(log: StreamLog, key: StreamKey = KEY) -> list[AttemptRow]:
    """The bills of its attempts."""
    found = (await log.history(key)).attempts
    assert found is not None
    return list(found)


async def head_of(log: StreamLog, key: StreamKey = KEY) -> Head:
    """The head of a stream that is there."""
    head = await log.head(key)
    assert head is not None
    return head
