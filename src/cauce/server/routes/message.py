"""`POST /llm/message`: the service API, plain or streamed in native frames."""

import msgspec

from cauce.server.exchange import Exchange
from cauce.server.relay import answer, relay
from cauce.server.services import Services
from cauce.wire.native.answer import Facts, render_answer
from cauce.wire.native.frames import NativeProjector, priming
from cauce.wire.native.request import parse_request


async def message(exchange: Exchange, services: Services) -> None:
    """Answer one message."""
    request = parse_request(await exchange.body(services.settings.max_body))
    stream_id = services.ids.new("str")
    if request.stream:
        await relay(exchange, services, request, NativeProjector(stream_id), stream_id, priming(0))
        return
    if request.timeout is None:
        request = msgspec.structs.replace(request, timeout=services.message_timeout)
    got = await answer(exchange, services, request, stream_id)
    facts = Facts(stream_id, got.attempts, got.processing_time, request.conversation_id)
    await exchange.respond_json(200, render_answer(got.completion, facts), *got.headers)
