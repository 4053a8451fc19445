"""`/chat/stream/{id}`: streams with an id of the client's choosing. A connection is only a reader: leaving is not cancelling.

| call | meaning |
|---|---|
| `POST /chat/stream/{id}` | create, or attach if the id is known; an empty body only attaches |
| `GET` or `POST /chat/stream/{id}/resume` | read on from `Last-Event-ID` or `?after=`, or from where the last reader stopped |
| `GET /chat/stream/{id}` | the stream's state |
| `DELETE /chat/stream/{id}` | cancel it |
"""

import re
from contextlib import aclosing
from urllib.parse import quote

import msgspec

from cauce.domain.errors import Conflict, InvalidRequest, NotFound
from cauce.domain.stream import Head, StreamKey
from cauce.domain.usage import Usage
from cauce.server.cache_control import cache_control
from cauce.server.errors import not_allowed
from cauce.server.event_stream import EventStream, Form
from cauce.server.exchange import Exchange
from cauce.server.services import Services
from cauce.server.wishes import wished
from cauce.wire.native.answer import UsageBody, render_usage
from cauce.wire.native.frames import priming, projector
from cauce.wire.native.request import parse_request

PREFIX = "/chat/stream/"

_SAFE = "!$&'()*+,;=:@"
_ID = re.compile(r"[^\x00-\x20/\x7f]{1,200}")
_CURSOR = re.compile(r"(?P<seq>\d{1,15})(?:\.\d+)?")


class StreamState(msgspec.Struct, omit_defaults=True):
    """Answer of `GET` and `DELETE /chat/stream/{id}`. `created` is a UNIX time in seconds."""

    id: str
    state: str
    tail: int
    epoch: int
    created: int
    cancel_requested: bool = False
    finish_reason: str | None = None
    usage: UsageBody | None = None


async def route(exchange: Exchange, services: Services) -> None:
    """Everything below `PREFIX`."""
    stream_id, slash, verb = exchange.path.removeprefix(PREFIX).partition("/")
    match exchange.method, verb if slash else None:
        case "POST", None:
            await create(exchange, services, stream_id)
        case "GET", None:
            await state(exchange, services, stream_id)
        case "DELETE", None:
            await cancel(exchange, services, stream_id)
        case "GET" | "POST", "resume":
            await resume(exchange, services, stream_id)
        case _, None:
            raise not_allowed(exchange, "GET, POST, DELETE")
        case _, "resume":
            raise not_allowed(exchange, "GET, POST")
        case _:
            raise NotFound(f"there is no {exchange.path} here")


async def create(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Start the stream or attach to it, and read it."""
    key = _key(exchange, stream_id)
    body = await exchange.body(services.settings.max_body)
    if body.strip():
        request = wished(exchange, parse_request(body))
        head = await services.streams.start(key, request, exchange.scope, exchange.request_id, cache_control(exchange))
    else:
        head = await _known(services, key)
    await _read_from(exchange, services, head, await _cursor(exchange, services, head) or 0)


async def resume(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Read on."""
    key = _key(exchange, stream_id)
    await exchange.body(services.settings.max_body)
    head = await _known(services, key)
    cursor = await _cursor(exchange, services, head)
    if cursor is not None:
        await _read_from(exchange, services, head, cursor)
        return
    mark = head.reader_mark or 0
    # Without a cursor nobody can tell whether the terminal frame arrived: it is sent again.
    await _read(exchange, services, head, after=min(mark, head.tail - 1) if head.ended else mark, resumed=True)


async def state(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Tell how the stream stands."""
    await _respond_state(exchange, services, await _known(services, _key(exchange, stream_id)))


async def cancel(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Cancel the stream. Nothing changes on an ended one."""
    head = await services.streams.cancel(_key(exchange, stream_id))
    if head is None:
        raise _unknown(stream_id)
    await _respond_state(exchange, services, head)


async def _read_from(exchange: Exchange, services: Services, head: Head, cursor: int) -> None:
    if head.ended and cursor == head.tail:
        # An EventSource stops reconnecting at 204.
        await exchange.respond(204, b"", b"text/event-stream")
        return
    await _read(exchange, services, head, after=cursor, resumed=False)


async def _read(exchange: Exchange, services: Services, head: Head, *, after: int, resumed: bool) -> None:
    key = head.key
    wanted = head.request.response_format
    frames_of = projector(key.id, wanted, after=after, resumed=resumed)
    settings = services.stream_settings
    # Header values are Latin-1 at best; ids may be in any script.
    name = quote(key.id, safe=_SAFE).encode()
    location = PREFIX.encode() + name + b"/resume"

    async def work() -> None:
        reader = services.streams.attach(key)
        headers = ((b"x-cauce-stream-id", name), (b"location", location))
        form = Form(opening=priming(after))
        stream = EventStream(exchange, lambda: headers, hold=0, heartbeat=settings.heartbeat, form=form)
        # The whole log is folded, so that the terminal frame carries the full text whatever the cursor.
        async with stream, aclosing(services.streams.follow(key, 0)) as batches:
            await stream.write(b"")
            async for batch in batches:
                frames_of.at_epoch(batch[0].epoch)
                if frames := frames_of.feed([record.delta for record in batch]):
                    await stream.write(frames)
                    services.streams.mark(key, reader, frames_of.seq)
            await stream.finish()

    await exchange.while_connected(work())


async def _respond_state(exchange: Exchange, services: Services, head: Head) -> None:
    finish = await services.streams.finish(head)
    usage: Usage | None = finish.usage if finish is not None else None
    body = StreamState(
        head.key.id,
        head.state,
        head.tail,
        head.epoch,
        int(head.created),
        head.cancel_requested,
        finish.reason if finish is not None else None,
        render_usage(usage) if usage is not None else None,
    )
    await exchange.respond_json(200, msgspec.json.encode(body))


async def _cursor(exchange: Exchange, services: Services, head: Head) -> int | None:
    """The reader's cursor, None without one. Raises `InvalidRequest`, and `Conflict` for one the log cannot know."""
    text = exchange.query("after")
    if text is None:
        text = exchange.header(b"last-event-id") or None
    if text is None:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidRequest("the cursor (`after` or Last-Event-ID) must be a whole number from 0 on", field="after")
    cursor = int(match["seq"])
    if cursor > head.tail:
        raise _rewritten(head, "cursor")
    epoch = exchange.query("epoch")
    # The epoch is that of the record the cursor names: what came before a takeover keeps its own.
    if epoch is not None and cursor and epoch != str(await services.streams.epoch(head.key, cursor)):
        raise _rewritten(head, "epoch")
    return cursor


def _rewritten(head: Head, what: str) -> Conflict:
    return Conflict(
        f"the {what} does not fit this stream: drop your copy and read from 0", tail=head.tail, epoch=head.epoch
    )


def _key(exchange: Exchange, stream_id: str) -> StreamKey:
    if _ID.fullmatch(stream_id) is None:
        raise InvalidRequest("a stream id has 1 to 200 characters, none of them blank, control or a slash", field="id")
    return StreamKey(exchange.scope.principal, stream_id)


async def _known(services: Services, key: StreamKey) -> Head:
    head = await services.streams.head(key)
    if head is None:
        raise _unknown(key.id)
    return head


def _unknown(stream_id: str) -> NotFound:
    return NotFound(f"there is no stream {stream_id!r}")
