"""Answers without a log, rendered straight from their opened deltas; vectors and counts of tokens. The client leaving closes the upstream."""

import asyncio
from contextlib import aclosing

import msgspec

from cauce.domain.completion import Completion
from cauce.domain.delta import Attempt, Delta, Finish, Status, Text
from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.domain.errors import CauceError
from cauce.domain.request import Request
from cauce.engine import ending
from cauce.engine.compose import collect
from cauce.engine.counting import count_tokens
from cauce.engine.streams.streams import shut_down
from cauce.ports.provider import Deltas, unreported
from cauce.server.cache_control import cache_control
from cauce.server.event_stream import EVENTS, EventStream, Form
from cauce.server.exchange import Exchange, Header
from cauce.server.provenance import provenance, tried
from cauce.server.services import Services
from cauce.server.wishes import wished
from cauce.wire.numbering import Projector

_ESTIMATED: Header = (b"x-cauce-estimated", b"true")


class Answer(msgspec.Struct, frozen=True):
    """A plain answer, who was asked for it, and its headers. `processing_time` is in seconds; `private`: it stays on this machine."""

    completion: Completion
    attempts: list[Attempt]
    headers: tuple[Header, ...]
    processing_time: float
    private: bool


async def answer(exchange: Exchange, services: Services, request: Request, stream_id: str) -> Answer:
    """The whole answer to `request`. Raises `CauceError`, and `ClientGone` when nobody waits for it any more."""
    attempts: list[Attempt] = []

    def notice(delta: Status | Attempt) -> None:
        if isinstance(delta, Attempt):
            attempts.append(delta)

    request = wished(exchange, request)
    call = services.turn.call(
        request,
        exchange.scope,
        request_id=exchange.request_id,
        streamed=False,
        notice=notice,
        cache=cache_control(exchange),
        stream_id=stream_id,
    )
    clock = services.clock
    asked = clock.monotonic()

    async def work() -> Completion:
        return await collect(await services.turn.open(call))

    try:
        completion = await exchange.while_connected(work())
    except CauceError:
        exchange.headers.append(tried(call.course))
        raise
    answered = clock.monotonic()
    headers = provenance(attempts, stream_id, asked - exchange.began, call.course)
    return Answer(completion, attempts, headers, answered - exchange.began, call.private)


async def embed(
    exchange: Exchange, services: Services, request: EmbeddingRequest
) -> tuple[Embeddings, tuple[Header, ...]]:
    """The vectors of `request`, and their headers. Raises `CauceError`, and `ClientGone` when nobody waits for them any more."""
    attempts: list[Attempt] = []

    def notice(delta: Status | Attempt) -> None:
        if isinstance(delta, Attempt):
            attempts.append(delta)

    call = services.embedding.call(
        wished(exchange, request),
        exchange.scope,
        request_id=exchange.request_id,
        notice=notice,
        cache=cache_control(exchange),
    )
    asked = services.clock.monotonic()
    try:
        made = await exchange.while_connected(services.embedding.embed(call))
    except CauceError:
        exchange.headers.append(tried(call.course))
        raise
    return made, provenance(attempts, services.ids.new("emb"), asked - exchange.began, call.course)


async def count_input(exchange: Exchange, services: Services, request: Request) -> tuple[int, tuple[Header, ...]]:
    """The input tokens of `request`, and their headers. Raises `CauceError`, and `ClientGone` when nobody waits for them any more."""
    ask = services.count_guards.asking(exchange.scope)
    request = wished(exchange, request)
    counted = await exchange.while_connected(
        count_tokens(services.router, request, services.estimator, services.tokenizer, ask)
    )
    return counted.tokens, () if counted.exact else (_ESTIMATED,)


async def relay(
    exchange: Exchange,
    services: Services,
    request: Request,
    projector: Projector,
    stream_id: str,
    form: Form = EVENTS,
) -> None:
    """Answer with the frames `projector` makes of the answer to `request`.

    An error before the first delta is raised if the headers have not left; later ones become the wire's own error frame.
    """
    attempts: list[Attempt] = []
    clock = services.clock
    pending: list[Delta] = []
    streams: list[EventStream] = []

    def notice(delta: Status | Attempt) -> None:
        pending.append(delta)
        if isinstance(delta, Attempt):
            attempts.append(delta)
        elif delta.kind == "waiting":
            # Its place in the queue is news now, not when the answer begins.
            for stream in streams:
                stream.write_soon(told)

    def told() -> bytes:
        deltas = pending.copy()
        pending.clear()
        return projector.feed(deltas) if deltas else b""

    request = wished(exchange, request)
    call = services.turn.call(
        request,
        exchange.scope,
        request_id=exchange.request_id,
        streamed=True,
        notice=notice,
        cache=cache_control(exchange),
        stream_id=stream_id,
    )
    if form.abandons:
        call = msgspec.structs.replace(call, replaces=form.replaces, abandons=True)
    pending.append(Status("accepted", facts={"model": call.request.model, "created": int(clock.now())}))
    settings = services.stream_settings
    asked = clock.monotonic()

    async def work() -> None:
        delivered = False
        end = b""
        deltas: Deltas | None = None

        def broken(error: CauceError) -> bytes:
            usage = deltas.used if deltas is not None else unreported()
            return projector.feed([*pending, ending.failed(error, usage, text_delivered=delivered)])

        stream = EventStream(
            exchange,
            lambda: provenance(attempts, stream_id, asked - exchange.began, call.course),
            hold=settings.hold_headers,
            heartbeat=settings.heartbeat,
            form=form,
        )
        streams.append(stream)
        async with stream:
            try:
                deltas = await services.turn.open(call)
                async with aclosing(deltas):
                    while batch := await deltas.read():
                        if pending:
                            batch = [*pending, *batch]
                            pending.clear()
                        delivered = delivered or any([isinstance(delta, Text) for delta in batch])
                        frames = projector.feed(batch)
                        if isinstance(batch[-1], Finish):
                            end = frames
                        else:
                            await stream.write(frames)
            except CauceError as error:
                if not exchange.started:
                    exchange.headers.append(tried(call.course))
                    raise
                end = broken(error)
            except asyncio.CancelledError:
                if not (exchange.started and services.streams.draining):
                    raise
                end = broken(shut_down())
            await stream.finish(end)

    await exchange.while_connected(work())
