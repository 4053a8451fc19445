"""Google's Gemini API, under `/v1` and `/v1beta`: the model is in the path, and after it what to do with it.

| call | meaning |
|---|---|
| `POST …/models/{m}:generateContent` | answer |
| `POST …/models/{m}:streamGenerateContent` | stream the answer: events with `?alt=sse`, else one JSON list |
| `POST …/models/{m}:countTokens` | how many tokens a request would be |
| `POST …/models/{m}:embedContent`, `:batchEmbedContents` | texts to vectors |
| `GET /v1beta/models`, `GET /v1beta/models/{m}` | every name a client may send |
"""

from typing import Any
from urllib.parse import unquote

import msgspec

from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.errors import NotFound
from cauce.server.errors import not_allowed
from cauce.server.event_stream import BARE_EVENTS, LIST
from cauce.server.exchange import Exchange
from cauce.server.following import Manner, follow
from cauce.server.logged import answer_logged, begin, is_logged
from cauce.server.relay import answer, count_input, embed, relay
from cauce.server.services import Services
from cauce.server.wires import GEMINI
from cauce.wire.gemini.embeddings import parse_embed, parse_embed_all, render_embedding, render_embeddings
from cauce.wire.gemini.render import GeminiProjector, Head, render_answer
from cauce.wire.gemini.request import parse_request
from cauce.wire.numbering import Unnumbered

PREFIXES = ("/v1/models/", "/v1beta/models/")
LISTING = "/v1beta/models"

_encode = msgspec.json.Encoder().encode


class GeminiTokenCount(msgspec.Struct, rename="camel"):
    """How many tokens a request is. With the header `x-cauce-estimated` the figure is an estimate."""

    total_tokens: int


class GeminiModel(msgspec.Struct, rename="camel"):
    """A name a client may send."""

    name: str
    display_name: str
    supported_generation_methods: tuple[str, ...] = ("generateContent", "streamGenerateContent", "countTokens")


class GeminiModels(msgspec.Struct):
    """All of them."""

    models: list[GeminiModel]


async def act(exchange: Exchange, services: Services) -> None:
    """Everything of the form `…/models/{m}:verb`."""
    model, verb = _parted(exchange.path)
    match verb:
        case "generateContent":
            await _generate(exchange, services, model)
        case "streamGenerateContent":
            await _stream(exchange, services, model)
        case "countTokens":
            await _count(exchange, services, model)
        case "embedContent":
            request = parse_embed(await exchange.body(services.settings.max_body), model)
            await _embed(exchange, services, request, one=True)
        case "batchEmbedContents":
            request = parse_embed_all(await exchange.body(services.settings.max_body), model)
            await _embed(exchange, services, request, one=False)
        case _:
            raise NotFound(
                f"there is no method {verb!r} here: known are generateContent, streamGenerateContent, "
                "countTokens, embedContent and batchEmbedContents"
            )


async def listing(exchange: Exchange, services: Services) -> None:
    """The models in Google's shape; one of them with its name in the path."""
    if exchange.method not in ("GET", "HEAD"):
        raise not_allowed(exchange, "GET")
    name = unquote(exchange.path.removeprefix(LISTING).removeprefix("/"))
    if not name:
        await exchange.respond_json(200, _encode(models(services.router.names())))
        return
    if name not in services.router.names() and name not in services.router.aliases():
        raise NotFound(f"model {name!r} does not exist here (GET {LISTING} lists them)")
    await exchange.respond_json(200, _encode(model(name)))


def models(names: tuple[str, ...]) -> GeminiModels:
    """All of `names`, as Google's API lists them."""
    return GeminiModels([model(name) for name in names])


def model(name: str) -> GeminiModel:
    """One of them."""
    return GeminiModel(f"models/{name}", name)


def _parted(path: str) -> tuple[str, str]:
    whole = next(path.removeprefix(prefix) for prefix in PREFIXES if path.startswith(prefix))
    model, colon, verb = whole.rpartition(":")
    if not colon or not model:
        raise NotFound(f"there is no {path} here: a method follows the model, as in {path}:generateContent")
    return unquote(model), verb


async def _generate(exchange: Exchange, services: Services, model: str) -> None:
    request = parse_request(await exchange.body(services.settings.max_body), model, stream=False)
    if is_logged(exchange, services, request):
        stream = await begin(exchange, services, request, GEMINI)
        response_id, got = stream.key.id, await answer_logged(exchange, services, stream, GEMINI)
    else:
        response_id = services.ids.new("resp")
        got = await answer(exchange, services, request, response_id)
    head = Head(response_id, model, thoughts=_shows(request.reasoning))
    await exchange.respond_json(200, render_answer(got.completion, head), *got.headers)


async def _stream(exchange: Exchange, services: Services, model: str) -> None:
    request = parse_request(await exchange.body(services.settings.max_body), model, stream=True)
    listed = exchange.query("alt") != "sse"
    form = LIST if listed else BARE_EVENTS
    thoughts = _shows(request.reasoning)
    if is_logged(exchange, services, request):
        stream = await begin(exchange, services, request, GEMINI)
        logged = GeminiProjector(Head(stream.key.id, model, thoughts=thoughts), listed=listed)
        await follow(exchange, services, stream, Unnumbered(logged), Manner(form=form))
        return
    response_id = services.ids.new("resp")
    head = Head(response_id, model, thoughts=thoughts)
    projector = GeminiProjector(head, listed=listed)
    await relay(exchange, services, request, projector, response_id, form)


def _shows(reasoning: Any) -> bool:
    """Whether a client wants to see thoughts."""
    return reasoning is not None and reasoning.visible is True


async def _count(exchange: Exchange, services: Services, model: str) -> None:
    request = parse_request(await exchange.body(services.settings.max_body), model, stream=False)
    tokens, headers = await count_input(exchange, services, request)
    await exchange.respond_json(200, _encode(GeminiTokenCount(tokens)), *headers)


async def _embed(exchange: Exchange, services: Services, request: EmbeddingRequest, *, one: bool) -> None:
    made, headers = await embed(exchange, services, request)
    await exchange.respond_json(200, render_embedding(made) if one else render_embeddings(made), *headers)
