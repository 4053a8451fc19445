"""`POST /llm/message`: the service API, plain or streamed in native frames."""

import msgspec

from cauce.server.event_stream import Form
from cauce.server.exchange import Exchange
from cauce.server.relay import answer, relay
from cauce.server.services import Services
from cauce.wire.native.answer import Facts, render_answer
from cauce.wire.native.frames import priming, projector
from cauce.wire.native.request import parse_request


async def message(exchange: Exchange, services: Services) -> None:
    """Answer one message."""
    request = parse_request(await exchange.body(services.settings.max_body))
    stream_id = exchange.named("str")
    if request.stream:
        form = Form(opening=priming(0))
        await relay(exchange, services, request, projector(stream_id, request.response_format), stream_id, form)
        return
    if request.timeout is None:
        request = msgspec.structs.replace(request, timeout=services.message_timeout)
    got = await answer(exchange, services, request, stream_id)
    structured = request.response_format is not None and request.response_format.kind != "text"
    facts = Facts(stream_id, got.attempts, got.processing_time, request.conversation_id, structured)
    await exchange.respond_json(200, render_answer(got.completion, facts), *got.headers)
