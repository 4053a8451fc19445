"""`POST /v1/chat/completions`: OpenAI's chat wire, plain or streamed."""

from cauce.server.exchange import Exchange
from cauce.server.relay import answer, relay
from cauce.server.services import Services
from cauce.wire.openai_chat.render import ChatProjector, render_completion
from cauce.wire.openai_chat.request import parse_request


async def chat_completions(exchange: Exchange, services: Services) -> None:
    """Answer one chat request."""
    request = parse_request(await exchange.body(services.settings.max_body))
    stream_id = services.ids.new("chatcmpl")
    created = int(services.clock.now())
    model = request.model or services.router.default
    if request.stream:
        projector = ChatProjector(stream_id, model, created, include_usage=request.include_usage)
        await relay(exchange, services, request, projector, stream_id)
        return
    got = await answer(exchange, services, request, stream_id)
    await exchange.respond_json(200, render_completion(got.completion, stream_id, model, created), *got.headers)
