"""`/chat/stream/{id}`: streams with an id of the client's choosing. A connection is only a reader: leaving is not cancelling.

| call | meaning |
|---|---|
| `POST /chat/stream/{id}` | create, or attach if the id is known; an empty body only attaches |
| `GET` or `POST /chat/stream/{id}/resume` | read on from `Last-Event-ID` or `?after=`, or from where the last reader stopped |
| `GET /chat/stream/{id}` | the stream's state |
| `DELETE /chat/stream/{id}` | cancel it; with `?erase=true` nothing is left of it |
"""

import msgspec

from cauce.domain.errors import InvalidRequest, NotFound
from cauce.domain.stream import Head, StreamKey, Whose
from cauce.domain.usage import Usage
from cauce.server.erasing import erase_streams
from cauce.server.errors import not_allowed
from cauce.server.exchange import Exchange
from cauce.server.following import follow
from cauce.server.keyed import begins_anew, following, is_id, newest, start, tries
from cauce.server.leaving import Leaving
from cauce.server.logged import naming_of, options_for, stream_logged
from cauce.server.reading import asked_cursor, cursor_of, read_from
from cauce.server.services import Services
from cauce.server.wires import NATIVE, WIRES, manner, native, wire_named
from cauce.server.wishes import wished
from cauce.wire.native.answer import UsageBody, render_usage
from cauce.wire.native.request import parse_request
from cauce.wire.numbering import Cursor

PREFIX = "/chat/stream/"

_LONGEST = 200
_LONGEST_KNOWN = 620
"""Characters of an id that is chosen, and of one that may be there: a key has its wire or its chat before it, and both may be escaped."""

_STAYING = Leaving("continue")
"""What becomes of these streams when nobody reads them, unless their client or model says otherwise."""


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
            await _end(exchange, services, stream_id)
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
    body = await exchange.body(services.settings.max_body)
    asked_cursor(exchange)
    if body.strip():
        if not is_id(stream_id, _LONGEST):
            raise _no_id()
        if naming_of(stream_id) is not None:
            raise InvalidRequest(
                f"stream id {stream_id!r} is of a call with an Idempotency-Key: send that call again, or GET {exchange.path}/resume",
                field="id",
            )
        request = wished(exchange, parse_request(body))
        head = await start(
            exchange, services, stream_id, request, options_for(exchange, services, request, NATIVE, _STAYING)
        )
    else:
        head = await _known(services, _key(exchange, stream_id))
    await stream_logged(exchange, services, head, NATIVE, hold=0)


async def resume(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Read on, on the wire that is asked for."""
    key = _key(exchange, stream_id)
    await exchange.body(services.settings.max_body)
    name = exchange.query("wire") or NATIVE
    wire_named(name)
    if asked_cursor(exchange) is None:
        key = await _meant(exchange, services, stream_id)
    head = await _known(services, key)
    cursor = await cursor_of(exchange, services, head)
    if cursor is not None:
        await read_from(exchange, services, head, cursor, name, hold=0)
        return
    after = Cursor(head.surely_read)
    projection = native(head, after, resumed=True) if name == NATIVE else WIRES[name].project(head, after)
    await follow(exchange, services, head, projection, manner(name, after, hold=0))


async def state(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Tell how the stream stands."""
    await respond_state(exchange, services, await _known(services, await _meant(exchange, services, stream_id)))


async def _end(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Cancel the stream, or erase it."""
    match exchange.query("erase"):
        case "true":
            await erase(exchange, services, stream_id)
        case None | "false":
            await cancel(exchange, services, stream_id)
        case _:
            raise InvalidRequest("erase: must be true or false", field="erase")


async def cancel(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Cancel the stream. Nothing changes on an ended one."""
    key = await _meant(exchange, services, stream_id)
    naming = naming_of(stream_id)
    if naming is not None and stream_id == naming(1) and await begins_anew(services, key):
        # It may be on its way, and its cancel overtake it.
        key = await following(services, key.principal, naming)
    head = await services.streams.cancel(key)
    if head is None:
        raise _unknown(stream_id)
    await respond_state(exchange, services, head)


async def erase(exchange: Exchange, services: Services, stream_id: str) -> None:
    """Cancel the stream if it is open, and delete all there is of it; of a call that began anew, of all its tries."""
    key = await _meant(exchange, services, stream_id)
    naming = naming_of(stream_id)
    keys = [key]
    if naming is not None and stream_id == naming(1):
        keys = await tries(services, key.principal, naming)
    left: list[StreamKey] = []
    try:
        # One that is unknown is remembered as a cancel is.
        head = await services.streams.head(key) or await services.streams.cancel(key)
    finally:
        # Also of what has expired: its records may be there for a minute more.
        for one in keys:
            left += (await erase_streams(services, exchange.scope, Whose(one.principal, id=one.id))).open
    if head is None:
        raise _unknown(stream_id)
    state = head.state if left else "expired"
    cancelled = head.cancel_requested or not head.ended
    body = StreamState(head.key.id, state, head.tail, head.epoch, int(head.created), cancelled)
    await exchange.respond_json(200, msgspec.json.encode(body))


async def respond_state(exchange: Exchange, services: Services, head: Head) -> None:
    """Answer with how the stream stands."""
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


async def _meant(exchange: Exchange, services: Services, stream_id: str) -> StreamKey:
    """The stream of that id; of a call that began anew, the try that goes on: it is all that whoever knows its key can mean."""
    key = _key(exchange, stream_id)
    naming = naming_of(stream_id)
    return await newest(services, key.principal, naming) if naming is not None and stream_id == naming(1) else key


def _key(exchange: Exchange, stream_id: str) -> StreamKey:
    if not is_id(stream_id, _LONGEST_KNOWN):
        raise _no_id()
    return StreamKey(exchange.scope.principal, stream_id)


async def _known(services: Services, key: StreamKey) -> Head:
    head = await services.streams.head(key)
    if head is None:
        raise _unknown(key.id)
    return head


def _no_id() -> InvalidRequest:
    return InvalidRequest("a stream id has 1 to 200 characters, none of them blank, control or a slash", field="id")


def _unknown(stream_id: str) -> NotFound:
    return NotFound(f"there is no stream {stream_id!r}")
