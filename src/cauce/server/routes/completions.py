"""`POST /v1/completions`: OpenAI's legacy wire, plain or streamed."""

import asyncio

import msgspec

from cauce.domain.completion import Completion
from cauce.domain.delta import Attempt, Status
from cauce.domain.errors import InvalidRequest
from cauce.engine.compose import collect
from cauce.ports.provider import Call
from cauce.server.cache_control import cache_control
from cauce.server.exchange import Exchange, Header
from cauce.server.logged import answer_logged, asks_for_log, begin, is_logged, shown_whole, stream_logged
from cauce.server.provenance import provenance
from cauce.server.relay import relay
from cauce.server.services import Services
from cauce.server.wires import COMPLETIONS, chat_head
from cauce.server.wishes import wished
from cauce.wire.openai_chat.answer import Head
from cauce.wire.openai_completions.render import CompletionProjector, render_completions
from cauce.wire.openai_completions.request import Asked, parse_request

AT_ONCE = 8
"""Prompts of one request that are answered at the same time."""


async def completions(exchange: Exchange, services: Services) -> None:
    """Answer one request: one prompt, or several in one plain answer."""
    asked = parse_request(await exchange.body(services.settings.max_body))
    first = asked.requests[0]
    if is_logged(exchange, services, first):
        if len(asked.requests) == 1:
            await _logged(exchange, services, asked)
            return
        if asks_for_log(exchange):
            raise InvalidRequest(
                "prompt: a logged call answers one prompt: send each in a call of its own", field="prompt"
            )
    stream_id = services.ids.new("cmpl")
    head = Head(stream_id, first.model or services.router.default, int(services.clock.now()))
    if first.stream:
        projector = CompletionProjector(head, include_usage=first.include_usage, echo=asked.echoes[0])
        await relay(exchange, services, first, projector, stream_id)
        return
    got, headers = await _answers(exchange, services, asked, stream_id)
    await exchange.respond_json(200, render_completions(got, head, asked.echoes), *headers)


async def _logged(exchange: Exchange, services: Services, asked: Asked) -> None:
    (request,) = asked.requests
    (echo,) = asked.echoes
    head = await begin(
        exchange, services, request, COMPLETIONS, msgspec.Raw(msgspec.json.encode(echo)) if echo else None
    )
    if request.stream:
        await stream_logged(exchange, services, head, COMPLETIONS)
        return
    got = await answer_logged(exchange, services, head, COMPLETIONS)
    body = shown_whole(got.completion, lambda whole: render_completions([whole], chat_head(head), asked.echoes))
    await exchange.respond_json(200, body, *got.headers)


async def _answers(
    exchange: Exchange, services: Services, asked: Asked, stream_id: str
) -> tuple[list[Completion], tuple[Header, ...]]:
    """The answers to all prompts, in their order. Raises what the first of them that fails raises."""
    attempts: list[Attempt] = []

    def notice(delta: Status | Attempt) -> None:
        if isinstance(delta, Attempt):
            attempts.append(delta)

    control = cache_control(exchange)
    calls = [
        services.turn.call(
            wished(exchange, request),
            exchange.scope,
            request_id=exchange.request_id,
            streamed=False,
            notice=notice,
            cache=control,
            stream_id=stream_id,
        )
        for request in asked.requests
    ]
    places = asyncio.Semaphore(AT_ONCE)

    async def one(call: Call) -> Completion:
        async with places:
            return await collect(await services.turn.open(call))

    async def work() -> list[Completion]:
        tasks = [asyncio.create_task(one(call)) for call in calls]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    began = services.clock.monotonic()
    got = await exchange.while_connected(work())
    return got, provenance(attempts, stream_id, began - exchange.began, calls[-1].course)
