"""`/v1/responses`: OpenAI's Responses, plain, streamed or in the background, and the responses that are kept.

| call | meaning |
|---|---|
| `POST /v1/responses` | answer; with `previous_response_id` the conversation goes on; with `background` nobody has to wait for it |
| `POST /v1/responses/input_tokens` | how many tokens a request would be |
| `GET /v1/responses/{id}` | the response as it stands; with `?stream=true&starting_after=N` its events from there on |
| `DELETE /v1/responses/{id}` | forget it |
| `GET /v1/responses/{id}/input_items` | what it was answered to |
| `POST /v1/responses/{id}/cancel` | end it, if it goes on without its connection |
"""

import hashlib
from typing import Any

import msgspec

from cauce.domain.errors import InvalidRequest, NotFound
from cauce.domain.request import Request
from cauce.domain.stream import Head as StreamHead
from cauce.ports.responses import KeptResponse
from cauce.server.errors import not_allowed
from cauce.server.exchange import Exchange, Header
from cauce.server.keyed import given_key, start, start_keyed
from cauce.server.leaving import Leaving
from cauce.server.logged import is_logged, options_for, stream_logged
from cauce.server.logged_responses import PREFIX as ID_PREFIX
from cauce.server.logged_responses import WIRE, beside, find, fold
from cauce.server.relay import answer, count_input, relay
from cauce.server.routes import kept_responses
from cauce.server.services import Services
from cauce.server.wishes import wished
from cauce.wire.fields import decode_object
from cauce.wire.openai_responses.history import surviving_items
from cauce.wire.openai_responses.replay import Recorder
from cauce.wire.openai_responses.request import input_items, parse
from cauce.wire.openai_responses.response import Head, echo, render_response
from cauce.wire.openai_responses.tools import custom_names

PREFIX = "/v1/responses/"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class InputTokens(msgspec.Struct):
    """How many tokens a request is. With the header `x-cauce-estimated` the figure is an estimate."""

    input_tokens: int
    object: str = "response.input_tokens"


class _Asked(msgspec.Struct, frozen=True):
    """A request's JSON and the items of the conversation before it."""

    raw: dict[str, Any]
    before: list[dict[str, Any]]
    context: tuple[bytes, ...]
    private: bool = False
    """It stays on this machine, since it goes on from a response that does."""

    @property
    def items(self) -> tuple[bytes, ...]:
        """All items of the conversation, the request's own included."""
        return (*self.context, *[_encode(item) for item in input_items(self.raw.get("input", ""))])

    def request(self) -> Request:
        """All of it as a request. What a private response held stays on this machine in the next turn too."""
        request = parse(self.raw, self.before)
        return msgspec.structs.replace(request, privacy="local") if self.private else request


async def responses(exchange: Exchange, services: Services) -> None:
    """Answer one request."""
    asked = await _asked(exchange, services)
    raw = asked.raw
    request = asked.request()
    if raw.get("background") is True or is_logged(exchange, services, request):
        await _logged(exchange, services, asked, request)
        return
    created = services.clock.now()
    model = request.model or services.router.default
    head = Head(services.ids.new("resp"), int(created), echo(raw, model), custom_names(request.tools))
    keep = raw.get("store") is not False
    user = exchange.scope.known_as(request.user)
    if request.stream:
        private = keep and services.router.is_private(wished(exchange, request))
        recorder = Recorder(head, services.clock.now, keep=keep)
        try:
            await relay(exchange, services, request, recorder, head.id)
        finally:
            # The client may have left with the last event in hand: then it may well come back for more.
            if keep and recorder.response is not None:
                whole, tape = _encode(recorder.response), recorder.tape()
                kept = KeptResponse(head.id, head.created, whole, asked.items, tape, user, private)
                await services.responses.put(exchange.scope, kept)
        return
    got = await answer(exchange, services, request, head.id)
    body = render_response(got.completion, head, int(services.clock.now()))
    if keep:
        kept = KeptResponse(head.id, head.created, body, asked.items, user=user, private=got.private)
        await services.responses.put(exchange.scope, kept)
    await exchange.respond_json(200, body, *got.headers)


async def count(exchange: Exchange, services: Services) -> None:
    """Say how many tokens a request would be."""
    request = (await _asked(exchange, services)).request()
    tokens, headers = await count_input(exchange, services, request)
    await exchange.respond_json(200, _encode(InputTokens(tokens)), *headers)


async def route(exchange: Exchange, services: Services) -> None:
    """Everything below `PREFIX`."""
    response_id, slash, what = exchange.path.removeprefix(PREFIX).partition("/")
    match exchange.method, what if slash else None:
        case "GET", None:
            await kept_responses.retrieve(exchange, services, response_id)
        case "DELETE", None:
            await kept_responses.delete(exchange, services, response_id)
        case "GET", "input_items":
            await kept_responses.list_items(exchange, services, response_id)
        case "POST", "cancel":
            await kept_responses.cancel(exchange, services, response_id)
        case _, None:
            raise not_allowed(exchange, "GET, DELETE")
        case _, "input_items":
            raise not_allowed(exchange, "GET")
        case _, "cancel":
            raise not_allowed(exchange, "POST")
        case _:
            raise NotFound(f"there is no {exchange.path} here")


async def _asked(exchange: Exchange, services: Services) -> _Asked:
    raw = decode_object(await exchange.body(services.settings.max_body))
    previous = raw.get("previous_response_id")
    if not isinstance(previous, str):
        return _Asked(raw, [], ())
    kept = await _previous(exchange, services, previous)
    output = surviving_items(_decode(kept.body)["output"])
    before = [*[_decode(item) for item in kept.context], *output]
    return _Asked(raw, before, (*kept.context, *[_encode(item) for item in output]), kept.private)


async def _previous(exchange: Exchange, services: Services, response_id: str) -> KeptResponse:
    found = await find(services, exchange.scope, response_id)
    if found is None:
        raise NotFound(
            f"previous_response_id: there is no response {response_id!r} here (any more): send the whole conversation",
            field="previous_response_id",
        )
    if isinstance(found, KeptResponse):
        return found
    if not found.ended:
        raise InvalidRequest(
            f"previous_response_id: response {response_id!r} has not ended: wait for it, or cancel it",
            field="previous_response_id",
        )
    return (await fold(services.streams, found)).kept


async def _logged(exchange: Exchange, services: Services, asked: _Asked, request: Request) -> None:
    """Answer out of the log of a stream."""
    head = await _begin(exchange, services, asked, request)
    background = asked.raw.get("background") is True
    if request.stream:
        # Whoever asks for it in the background has to know its id at once.
        await stream_logged(exchange, services, head, WIRE, hold=0 if background else None)
    elif background:
        await exchange.respond_json(200, await kept_responses.standing_now(services, head), *_address(head))
    else:
        await kept_responses.respond_ended(exchange, services, head, *_address(head))


async def _begin(exchange: Exchange, services: Services, asked: _Asked, request: Request) -> StreamHead:
    """The stream of the call: a new one, or that of its key."""
    raw = asked.raw
    common = Leaving("continue" if raw.get("background") is True else services.stream_settings.on_disconnect)
    options = options_for(exchange, services, request, WIRE, common)
    model = request.model or services.router.default
    # A plain answer is shown to nobody before its end, but one in the background may be streamed later.
    hidden = options.buffer or not (request.stream or raw.get("background") is True)
    options = msgspec.structs.replace(options, replaces=True, buffer=hidden, asked=beside(raw, model, asked.items))
    request = wished(exchange, request)
    if key := given_key(exchange):
        head = await start_keyed(exchange, services, lambda number: _named(key, number), request, options)
    else:
        head = await start(exchange, services, services.ids.new("resp"), request, options)
    if raw.get("store") is not False:
        await services.responses.promise(head.key, head.created)
    return head


def _named(key: str, number: int) -> str:
    """One of the ids that the responses of a key have."""
    # No key has a slash in it.
    named = key if number == 1 else f"{number}/{key}"
    return ID_PREFIX + hashlib.blake2b(named.encode(), digest_size=16).hexdigest()


def _address(head: StreamHead) -> tuple[Header, ...]:
    return ((b"x-cauce-stream-id", head.key.id.encode()), (b"location", f"{PREFIX}{head.key.id}".encode()))
