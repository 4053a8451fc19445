"""Responses that are there already, or on their way: shown, listed, cancelled and forgotten by their id."""

import contextlib
from typing import Any

import msgspec

from cauce.domain.delta import Failed
from cauce.domain.errors import Gone, InvalidRequest, NotFound
from cauce.domain.request import Scope
from cauce.domain.stream import Head, StreamKey, Whose
from cauce.ports.responses import KeptResponse
from cauce.server.erasing import erase_streams
from cauce.server.event_stream import HEADERS
from cauce.server.exchange import Exchange, Header
from cauce.server.following import LoggedFailure, Manner, follow, overhead
from cauce.server.logged_responses import WIRE, asked_of, check_number, find, fold, open_response, project
from cauce.server.provenance import origin
from cauce.server.reading import asked_cursor, cursor_of, last_event_id
from cauce.server.services import Services
from cauce.wire.openai_responses.listing import listed, page
from cauce.wire.openai_responses.replay import replay

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode

_WHOLE = -1


class Deleted(msgspec.Struct):
    """A response that is kept no longer."""

    id: str
    object: str = "response"
    deleted: bool = True


async def retrieve(exchange: Exchange, services: Services, response_id: str) -> None:
    """Show the response as it stands, or its events from where the client has stopped reading them."""
    found = await _found(services, exchange.scope, response_id)
    if exchange.query("stream") not in ("true", "True", "1"):
        body = found.body if isinstance(found, KeptResponse) else await standing_now(services, found)
        await exchange.respond_json(200, body)
        return
    number = _number(exchange)
    # An EventSource that comes back repeats its address: what it has had since stands in the header.
    cursor = asked_cursor(exchange) if number == _WHOLE else last_event_id(exchange)
    if isinstance(found, KeptResponse):
        events = replay(found.body, found.tape, cursor, number)
        (_, content_type), *others = HEADERS
        await exchange.respond(200, events, content_type, *others)
        return
    if cursor is not None:
        cursor = await cursor_of(exchange, services, found) or cursor
    elif number != _WHOLE:
        await check_number(services.streams, found, number)
    projection = project(found, number if cursor is None else cursor)
    await follow(exchange, services, found, projection, Manner(WIRE, hold=0))


async def delete(exchange: Exchange, services: Services, response_id: str) -> None:
    """Forget the response; one that is on its way is cancelled."""
    scope = exchange.scope
    await _found(services, scope, response_id)
    with contextlib.suppress(Gone):
        # Its log shows the answer to whoever knows its id or its key. One that has none needs no log that can be written.
        if await services.streams.head(StreamKey(scope.principal, response_id)) is not None:
            await erase_streams(services, scope, Whose(scope.principal, id=response_id))
    await services.responses.delete(scope, response_id)
    await exchange.respond_json(200, _encode(Deleted(response_id)))


async def list_items(exchange: Exchange, services: Services, response_id: str) -> None:
    """Tell what it was answered to."""
    found = await _found(services, exchange.scope, response_id)
    context = found.context if isinstance(found, KeptResponse) else asked_of(found).context
    items = listed([_decode(item) for item in context], response_id)
    shown = page(items, after=exchange.query("after"), limit=exchange.query("limit"), order=exchange.query("order"))
    await exchange.respond_json(200, _encode(shown))


async def cancel(exchange: Exchange, services: Services, response_id: str) -> None:
    """End the response, and show it. Nothing changes on one that has ended; one that came with its connection is refused."""
    found = await _found(services, exchange.scope, response_id)
    if isinstance(found, KeptResponse):
        response = _decode(found.body)
        if response.get("background") is not True:
            raise InvalidRequest(
                f"response {response_id!r} has ended ({response['status']}), and was not made in the background: "
                "only what goes on without its connection can be cancelled"
            )
        await exchange.respond_json(200, found.body)
        return
    head = await services.streams.cancel(found.key)
    await exchange.respond_json(200, await standing_now(services, head or found))


async def standing_now(services: Services, head: Head) -> bytes:
    """The response as it stands, as JSON."""
    return (await fold(services.streams, head)).kept.body if head.ended else open_response(head)


async def respond_ended(exchange: Exchange, services: Services, head: Head, *headers: Header) -> None:
    """Answer with the response once it has ended. Raises `LoggedFailure` if nothing came of it, and `ClientGone`."""
    known_after = overhead(exchange)
    reader = services.streams.attach(head.key)
    try:
        folded = await exchange.while_connected(fold(services.streams, head))
    finally:
        services.streams.detach(head.key, reader)
    if folded.finish.outcome == "failed":
        failed = folded.finish.error or Failed("internal", "the stream ended early")
        raise LoggedFailure(failed, repeated=head.ended)
    await exchange.respond_json(200, folded.kept.body, *headers, *origin(folded.attempts), known_after)


async def _found(services: Services, scope: Scope, response_id: str) -> KeptResponse | Head:
    found = await find(services, scope, response_id)
    if found is None:
        raise _unknown(response_id)
    return found


def _unknown(response_id: str) -> NotFound:
    return NotFound(f"there is no response {response_id!r} here (any more)")


def _number(exchange: Exchange) -> int:
    """Of the last event that the client says it has had; -1: of none."""
    number = exchange.query("starting_after")
    if number is None:
        return _WHOLE
    if not (number.isdecimal() and len(number) < 16):
        raise InvalidRequest("starting_after: must be a whole number from 0 on", field="starting_after")
    return int(number)
