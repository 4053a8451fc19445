"""`POST /v1/chat/completions`: OpenAI's chat wire, plain or streamed."""

from cauce.domain.request import Request
from cauce.server.exchange import Exchange
from cauce.server.logged import answer_logged, begin, is_logged, shown_whole, stream_logged
from cauce.server.relay import answer, relay
from cauce.server.services import Services
from cauce.server.wires import CHAT, chat_head
from cauce.wire.openai_chat.answer import Head, render_completion
from cauce.wire.openai_chat.render import ChatProjector
from cauce.wire.openai_chat.request import parse_request
from cauce.wire.openai_chat.tools import style_of


async def chat_completions(exchange: Exchange, services: Services) -> None:
    """Answer one chat request."""
    request = parse_request(await exchange.body(services.settings.max_body))
    if is_logged(exchange, services, request):
        await _logged(exchange, services, request)
        return
    stream_id = exchange.named("chatcmpl")
    head = Head(stream_id, request.model or services.router.default, int(services.clock.now()))
    style = style_of(request)
    if request.stream:
        projector = ChatProjector(head, include_usage=request.include_usage, style=style)
        await relay(exchange, services, request, projector, stream_id)
        return
    got = await answer(exchange, services, request, stream_id)
    await exchange.respond_json(200, render_completion(got.completion, head, style), *got.headers)


async def _logged(exchange: Exchange, services: Services, request: Request) -> None:
    head = await begin(exchange, services, request, CHAT)
    if request.stream:
        await stream_logged(exchange, services, head, CHAT)
        return
    got = await answer_logged(exchange, services, head, CHAT)
    body = shown_whole(got.completion, lambda whole: render_completion(whole, chat_head(head), style_of(head.request)))
    await exchange.respond_json(200, body, *got.headers)
