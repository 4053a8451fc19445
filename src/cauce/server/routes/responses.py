"""`/v1/responses`: OpenAI's Responses, plain or streamed, and the responses that are kept.

| call | meaning |
|---|---|
| `POST /v1/responses` | answer; with `previous_response_id` the conversation goes on |
| `POST /v1/responses/input_tokens` | how many tokens a request would be |
| `GET /v1/responses/{id}` | a kept response; with `?stream=true&starting_after=N` its events, once more |
| `DELETE /v1/responses/{id}` | forget it |
| `GET /v1/responses/{id}/input_items` | what it was answered to |
| `POST /v1/responses/{id}/cancel` | refused: nothing runs here without its connection |
"""

from typing import Any

import msgspec

from cauce.domain.errors import InvalidRequest, NotFound
from cauce.engine.counting import count_tokens
from cauce.ports.responses import KeptResponse
from cauce.server.errors import not_allowed
from cauce.server.event_stream import HEADERS
from cauce.server.exchange import Exchange, Header
from cauce.server.relay import answer, relay
from cauce.server.services import Services
from cauce.server.wishes import wished
from cauce.wire.fields import decode_object
from cauce.wire.openai_responses.listing import listed, page
from cauce.wire.openai_responses.replay import Recorder, replay
from cauce.wire.openai_responses.request import input_items, parse
from cauce.wire.openai_responses.response import Head, echo, render_response
from cauce.wire.openai_responses.tools import custom_names

PREFIX = "/v1/responses/"

_ESTIMATED: Header = (b"x-cauce-estimated", b"true")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class InputTokens(msgspec.Struct):
    """How many tokens a request is. With the header `x-cauce-estimated` the figure is an estimate."""

    input_tokens: int
    object: str = "response.input_tokens"


class Deleted(msgspec.Struct):
    """A response that is kept no longer."""

    id: str
    object: str = "response"
    deleted: bool = True


class _Asked(msgspec.Struct):
    """A request's JSON and the items of the conversation before it."""

    raw: dict[str, Any]
    before: list[dict[str, Any]]
    context: tuple[bytes, ...]


async def responses(exchange: Exchange, services: Services) -> None:
    """Answer one request."""
    asked = await _asked(exchange, services)
    raw = asked.raw
    request = parse(raw, asked.before)
    created = services.clock.now()
    model = request.model or services.router.default
    head = Head(services.ids.new("resp"), int(created), echo(raw, model), custom_names(request.tools))
    keep = raw.get("store") is not False
    if request.stream:
        recorder = Recorder(head, keep=keep)
        try:
            await relay(exchange, services, request, recorder, head.id)
        finally:
            # The client may have left with the last event in hand: then it may well come back for more.
            if keep and recorder.response is not None:
                await _keep(exchange, services, asked, head, _encode(recorder.response), recorder.tape())
        return
    got = await answer(exchange, services, request, head.id)
    body = render_response(got.completion, head)
    if keep:
        await _keep(exchange, services, asked, head, body)
    await exchange.respond_json(200, body, *got.headers)


async def count(exchange: Exchange, services: Services) -> None:
    """Say how many tokens a request would be."""
    asked = await _asked(exchange, services)
    request = parse(asked.raw, asked.before)
    counted = await exchange.while_connected(
        count_tokens(services.router, wished(exchange, request), services.estimator, services.tokenizer)
    )
    headers = () if counted.exact else (_ESTIMATED,)
    await exchange.respond_json(200, _encode(InputTokens(counted.tokens)), *headers)


async def route(exchange: Exchange, services: Services) -> None:
    """Everything below `PREFIX`."""
    response_id, slash, what = exchange.path.removeprefix(PREFIX).partition("/")
    match exchange.method, what if slash else None:
        case "GET", None:
            await _retrieve(exchange, await _kept(exchange, services, response_id))
        case "DELETE", None:
            if not await services.responses.delete(exchange.scope, response_id):
                raise _unknown(response_id)
            await exchange.respond_json(200, _encode(Deleted(response_id)))
        case "GET", "input_items":
            await _list_items(exchange, await _kept(exchange, services, response_id))
        case "POST", "cancel":
            response = _decode((await _kept(exchange, services, response_id)).body)
            raise InvalidRequest(
                f"response {response_id!r} has ended ({response['status']}): only what still runs can be cancelled"
            )
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
    kept = await services.responses.get(exchange.scope, previous)
    if kept is None:
        raise NotFound(
            f"previous_response_id: there is no response {previous!r} here (any more): send the whole conversation",
            field="previous_response_id",
        )
    output: list[dict[str, Any]] = _decode(kept.body)["output"]
    before = [*[_decode(item) for item in kept.context], *output]
    return _Asked(raw, before, (*kept.context, *[_encode(item) for item in output]))


async def _keep(
    exchange: Exchange, services: Services, asked: _Asked, head: Head, body: bytes, tape: bytes = b""
) -> None:
    items = [_encode(item) for item in input_items(asked.raw.get("input", ""))]
    kept = KeptResponse(head.id, head.created, body, (*asked.context, *items), tape)
    await services.responses.put(exchange.scope, kept)


async def _kept(exchange: Exchange, services: Services, response_id: str) -> KeptResponse:
    kept = await services.responses.get(exchange.scope, response_id)
    if kept is None:
        raise _unknown(response_id)
    return kept


def _unknown(response_id: str) -> NotFound:
    return NotFound(f"there is no response {response_id!r} here (any more)")


async def _retrieve(exchange: Exchange, kept: KeptResponse) -> None:
    if exchange.query("stream") not in ("true", "True", "1"):
        await exchange.respond_json(200, kept.body)
        return
    after = exchange.query("starting_after")
    if after is not None and not (after.isdecimal() and len(after) < 16):
        raise InvalidRequest("starting_after: must be a whole number from 0 on", field="starting_after")
    events = replay(kept.body, kept.tape, int(after) if after is not None else -1)
    (_, content_type), *others = HEADERS
    await exchange.respond(200, events, content_type, *others)


async def _list_items(exchange: Exchange, kept: KeptResponse) -> None:
    items = listed([_decode(item) for item in kept.context], kept.id)
    shown = page(items, after=exchange.query("after"), limit=exchange.query("limit"), order=exchange.query("order"))
    await exchange.respond_json(200, _encode(shown))
