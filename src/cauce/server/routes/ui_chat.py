"""`/api/chat`: what pages made with the AI SDK call. A chat's answers are logged streams, and the chat is their group.

| call | meaning |
|---|---|
| `POST /api/chat` | answer the chat's newest message; leaving is not cancelling |
| `GET /api/chat/{id}/stream` | the answer that is being given now, from its beginning; 204 if there is none |
| `POST /api/chat/{id}/stop` | cancel that answer, or the one named in the body, and no other |

So which answer is a chat's newest is known wherever the log is read: to every server of several, and after a restart.
"""

from cauce.domain.errors import InvalidRequest, NotFound
from cauce.domain.stream import GROUP_END, Head, StreamKey
from cauce.server.errors import not_allowed
from cauce.server.exchange import Exchange
from cauce.server.keyed import Naming, given_key, is_id, start, start_keyed
from cauce.server.leaving import Leaving
from cauce.server.logged import options_for, stream_logged
from cauce.server.reading import asked_cursor, read_from
from cauce.server.routes.streams import respond_state
from cauce.server.services import Services
from cauce.server.wires import UI
from cauce.server.wishes import wished
from cauce.wire.numbering import START
from cauce.wire.ui_messages.request import parse_post, parse_stop

PATH = "/api/chat"
PREFIX = "/api/chat/"

_LONGEST = 100
"""Characters of a chat's id, and of a key: together with what stands between them they are the id of a stream."""

_ESCAPED = str.maketrans({"%": "%25", GROUP_END: "%7E", ":": "%3A"})
"""So that one chat's id is never what another's begins with, and no chat's answer is a key's of another wire."""

_STAYING = Leaving("continue")


async def chat(exchange: Exchange, services: Services) -> None:
    """Answer the chat's newest message."""
    posted = parse_post(await exchange.body(services.settings.max_body))
    asked_cursor(exchange)
    chat_id = _group(posted.chat)
    request = wished(exchange, posted.request)
    options = options_for(exchange, services, request, UI, _STAYING)
    if key := given_key(exchange, _LONGEST):
        head = await start_keyed(exchange, services, _naming(chat_id, key), request, options)
    else:
        head = await start(exchange, services, chat_id + GROUP_END + services.ids.new(UI), request, options)
    await stream_logged(exchange, services, head, UI, hold=0)


async def route(exchange: Exchange, services: Services) -> None:
    """Everything below `PREFIX`."""
    chat_id, _, verb = exchange.path.removeprefix(PREFIX).partition("/")
    match exchange.method, verb:
        case "GET", "stream":
            await resume(exchange, services, chat_id)
        case "POST", "stop":
            await stop(exchange, services, chat_id)
        case _, "stream":
            raise not_allowed(exchange, "GET")
        case _, "stop":
            raise not_allowed(exchange, "POST")
        case _:
            raise NotFound(f"there is no {exchange.path} here")


async def resume(exchange: Exchange, services: Services, chat_id: str) -> None:
    """Show the answer that is being given, from its beginning: that is what readers of this wire expect."""
    await exchange.body(services.settings.max_body)
    head = await _open(exchange, services, chat_id)
    if head is None:
        await exchange.respond(204, b"", b"text/event-stream")
    else:
        await read_from(exchange, services, head, START, UI, hold=0)


async def stop(exchange: Exchange, services: Services, chat_id: str) -> None:
    """Cancel an answer of the chat. Nothing changes on an ended one."""
    stream_id = parse_stop(await exchange.body(services.settings.max_body))
    if stream_id is None:
        head = await _open(exchange, services, chat_id)
        if head is None:
            await exchange.respond(204, b"", b"application/json")
            return
        key = head.key
    else:
        key = StreamKey(exchange.scope.principal, stream_id)
    if key.group != _group(chat_id):
        raise NotFound(f"there is no stream {key.id!r} in this chat")
    stopped = await services.streams.cancel(key)
    if stopped is None:
        raise NotFound(f"there is no stream {key.id!r}")
    await respond_state(exchange, services, stopped)


async def _open(exchange: Exchange, services: Services, chat_id: str) -> Head | None:
    """The chat's newest answer that has not ended."""
    head = await services.streams.newest_open(exchange.scope.principal, _group(chat_id))
    return None if head is None or head.ended else head


def _naming(group: str, key: str) -> Naming:
    # The colon before the number is escaped in keys, so no key has another's ids.
    escaped = key.translate(_ESCAPED)
    return lambda number: f"{group}{GROUP_END}{escaped}" + (f":{number}" if number > 1 else "")


def _group(chat_id: str) -> str:
    """The group of the chat's streams. Raises `InvalidRequest`."""
    if not is_id(chat_id, _LONGEST):
        raise InvalidRequest("id: a chat's has 1 to 100 characters, none of them blank, control or a slash", field="id")
    return chat_id.translate(_ESCAPED)
