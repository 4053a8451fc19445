"""`POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's wire."""

import msgspec

from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens
from cauce.server.exchange import Exchange
from cauce.server.logged import answer_logged, begin, is_logged, shown_whole, stream_logged
from cauce.server.relay import answer, count_input, relay
from cauce.server.services import Services
from cauce.server.wires import ANTHROPIC
from cauce.wire.anthropic_messages.render import MessagesProjector, render_message
from cauce.wire.anthropic_messages.request import parse_count, parse_request
from cauce.wire.anthropic_messages.thinking import shows_thinking


class TokenCount(msgspec.Struct):
    """How many tokens a request is. With the header `x-cauce-estimated` the figure is an estimate."""

    input_tokens: int


async def messages(exchange: Exchange, services: Services) -> None:
    """Answer one request, plain or streamed."""
    request = parse_request(await exchange.body(services.settings.max_body), _named(exchange))
    if is_logged(exchange, services, request):
        await _logged(exchange, services, request)
        return
    stream_id = exchange.named("msg")
    model = request.model or services.router.default
    thinking = shows_thinking(request)
    if request.stream:
        projector = MessagesProjector(stream_id, model, input_tokens=estimate_input_tokens(request), thinking=thinking)
        await relay(exchange, services, request, projector, stream_id)
        return
    got = await answer(exchange, services, request, stream_id)
    await exchange.respond_json(200, render_message(got.completion, stream_id, model, thinking=thinking), *got.headers)


async def _logged(exchange: Exchange, services: Services, request: Request) -> None:
    head = await begin(exchange, services, request, ANTHROPIC)
    if request.stream:
        await stream_logged(exchange, services, head, ANTHROPIC)
        return
    got = await answer_logged(exchange, services, head, ANTHROPIC)
    thinking = shows_thinking(head.request)
    body = shown_whole(
        got.completion, lambda whole: render_message(whole, head.key.id, head.request.model, thinking=thinking)
    )
    await exchange.respond_json(200, body, *got.headers)


async def count(exchange: Exchange, services: Services) -> None:
    """Say how many tokens a request would be."""
    request = parse_count(await exchange.body(services.settings.max_body), _named(exchange))
    tokens, headers = await count_input(exchange, services, request)
    await exchange.respond_json(200, msgspec.json.encode(TokenCount(tokens)), *headers)


def _named(exchange: Exchange) -> dict[str, str]:
    """The headers that say which version of the API, and which trials of it, the client speaks."""
    return {name.decode(): exchange.header(name) for name in (b"anthropic-version", b"anthropic-beta")}
