"""`/conversations`: what was said under a `conversation_id`, for the key it was said with.

| call | meaning |
|---|---|
| `GET /conversations` | list them, the one spoken in last first |
| `POST /conversations` | make one, before anything is said in it |
| `GET /conversations/{id}` | its turns |
| `PATCH /conversations/{id}` | give it a title |
| `DELETE /conversations/{id}` | delete it, and the logs its turns came from |
"""

import asyncio
import contextlib

import msgspec

from cauce.domain.conversation import Conversation
from cauce.domain.errors import CauceError, Conflict, InvalidRequest, NotFound
from cauce.domain.request import Scope
from cauce.domain.stream import Whose
from cauce.server.erasing import erase_streams
from cauce.server.errors import not_allowed
from cauce.server.exchange import Exchange
from cauce.server.services import Services
from cauce.wire.native.conversations import (
    DeletedBody,
    parse_make,
    parse_place,
    parse_rename,
    render_conversation,
    render_conversations,
    render_turns,
)

PATH = "/conversations"

MOST = 200
"""Conversations or turns on a page."""

USUAL = 50
_LONGEST = 200
_LAST = 1_000_000_000


async def route(exchange: Exchange, services: Services) -> None:
    """`PATH` and everything below it."""
    below = exchange.path.removeprefix(PATH)
    if below and not below.startswith("/"):
        raise NotFound(f"there is no {exchange.path} here")
    match exchange.method, below.removeprefix("/"):
        case "GET", "":
            await show_list(exchange, services)
        case "POST", "":
            await make(exchange, services)
        case _, "":
            raise not_allowed(exchange, "GET, POST")
        case "GET", id:
            await show(exchange, services, id)
        case "PATCH", id:
            await rename(exchange, services, id)
        case "DELETE", id:
            await delete(exchange, services, id)
        case _:
            raise not_allowed(exchange, "GET, PATCH, DELETE")


async def show_list(exchange: Exchange, services: Services) -> None:
    """A page of the list."""
    limit, after = _number(exchange, "limit", USUAL, 1, MOST), exchange.query("after")
    place = parse_place(after) if after else None
    await services.conversing.caught_up()
    found = list(await services.conversations.newest(exchange.scope, limit + 1, place))
    body = render_conversations(found[:limit], more=len(found) > limit)
    await exchange.respond_json(200, msgspec.json.encode(body))


async def make(exchange: Exchange, services: Services) -> None:
    """Make one."""
    id, title = parse_make(await exchange.body(services.settings.max_body))
    id = id or services.ids.new("conv")
    if not await services.conversations.make(exchange.scope, id, title):
        raise Conflict(f"there is a conversation {id!r}: take another id, or use the one that is there")
    await _respond(exchange, 201, await _found(exchange, services, id))


async def show(exchange: Exchange, services: Services, id: str) -> None:
    """A page of its turns."""
    limit, after = _number(exchange, "limit", USUAL, 1, MOST), _number(exchange, "after", 0, 0, _LAST)
    await services.conversing.caught_up()
    conversation = await _found(exchange, services, id)
    turns = await services.conversations.turns(exchange.scope, id, after, limit)
    await exchange.respond_json(200, msgspec.json.encode(render_turns(conversation, list(turns))))


async def rename(exchange: Exchange, services: Services, id: str) -> None:
    """Give it a title."""
    title = parse_rename(await exchange.body(services.settings.max_body))
    await services.conversing.caught_up()
    if not await services.conversations.rename(exchange.scope, id, title):
        raise _unknown(id)
    await _respond(exchange, 200, await _found(exchange, services, id))


async def delete(exchange: Exchange, services: Services, id: str) -> None:
    """Delete it. What is still being said in it goes on, and is not kept."""
    await services.conversing.caught_up()
    streams = await services.conversations.delete(exchange.scope, id)
    if streams is None:
        raise _unknown(id)
    await asyncio.gather(*[_erase(services, exchange.scope, stream_id) for stream_id in streams])
    await exchange.respond_json(200, msgspec.json.encode(DeletedBody(id)))


async def _erase(services: Services, scope: Scope, stream_id: str) -> None:
    """Have the log go too, that shows the same. Where it does not answer, it goes at its own time."""
    with contextlib.suppress(CauceError):
        await erase_streams(services, scope, Whose(scope.principal, id=stream_id))


async def _found(exchange: Exchange, services: Services, id: str) -> Conversation:
    found = await services.conversations.find(exchange.scope, id) if len(id) <= _LONGEST else None
    if found is None:
        raise _unknown(id)
    return found


async def _respond(exchange: Exchange, status: int, conversation: Conversation) -> None:
    await exchange.respond_json(status, msgspec.json.encode(render_conversation(conversation)))


def _number(exchange: Exchange, name: str, usual: int, least: int, most: int) -> int:
    text = exchange.query(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) < 16 and least <= int(text) <= most):
        raise InvalidRequest(f"{name}: must be a whole number from {least} to {most}", field=name)
    return int(text)


def _unknown(id: str) -> NotFound:
    return NotFound(f"there is no conversation {id!r}")
