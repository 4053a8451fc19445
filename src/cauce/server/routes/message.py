"""`POST /llm/message`: the service API, plain or streamed in native frames."""

import msgspec

from cauce.domain.request import Request
from cauce.engine.streams.conversing import Said, answered_by
from cauce.server.event_stream import Form
from cauce.server.exchange import Exchange
from cauce.server.logged import RESTART, answer_logged, begin, is_logged, stream_logged
from cauce.server.relay import Answer, answer, relay
from cauce.server.services import Services
from cauce.server.wires import NATIVE
from cauce.server.wishes import wished
from cauce.wire.native.answer import Facts, render_answer
from cauce.wire.native.frames import priming, projector
from cauce.wire.native.request import parse_request


async def message(exchange: Exchange, services: Services) -> None:
    """Answer one message."""
    request = parse_request(await exchange.body(services.settings.max_body))
    if is_logged(exchange, services, request):
        await _logged(exchange, services, request)
        return
    stream_id = exchange.named("str")
    if request.stream:
        replaces = exchange.header(RESTART).lower() == "accept"
        form = Form(opening=priming(0), replaces=replaces, abandons=True)
        await relay(exchange, services, request, projector(stream_id, request.response_format), stream_id, form)
        return
    request = wished(exchange, request)
    if request.timeout is None:
        request = msgspec.structs.replace(request, timeout=services.message_timeout)
    got = await answer(exchange, services, request, stream_id)
    if request.conversation_id:
        await _keep(exchange, services, request, got, stream_id)
    await _respond(exchange, request, got, stream_id)


async def _logged(exchange: Exchange, services: Services, request: Request) -> None:
    # `message_timeout` is for clients that give up and cannot come back: these can.
    head = await begin(exchange, services, request, NATIVE)
    if request.stream:
        await stream_logged(exchange, services, head, NATIVE)
        return
    await _respond(exchange, head.request, await answer_logged(exchange, services, head, NATIVE), head.key.id)


async def _keep(exchange: Exchange, services: Services, request: Request, got: Answer, stream_id: str) -> None:
    now = services.clock.now()
    asked = now - got.processing_time
    said = Said(stream_id, request, got.completion, asked, now, got.private, answered_by(got.attempts))
    await services.conversing.say(exchange.scope, said)


async def _respond(exchange: Exchange, request: Request, got: Answer, stream_id: str) -> None:
    structured = request.response_format is not None and request.response_format.kind != "text"
    facts = Facts(stream_id, got.attempts, got.processing_time, request.conversation_id, structured)
    await exchange.respond_json(200, render_answer(got.completion, facts), *got.headers)
