"""Calls on the compatible wires that go through the log: they outlive their connection, and are answered once however often they are sent.

A call asks for it with `Idempotency-Key`, with `X-Cauce-Durable: true`, or by saying what is to become of it when its client leaves
(`X-Cauce-On-Disconnect`); a model can ask for it with `buffer`. The key plays the id of a stream. Keys and the ids of `/chat/stream`
are of one principal and one log, so a key has the wire before it: `openai-chat:KEY`, and `openai-chat.2:KEY` where it began anew. The
same key on two wires is two answers.
"""

import re
from collections.abc import Callable

import msgspec

from cauce.domain.completion import Completion
from cauce.domain.delta import Attempt
from cauce.domain.errors import CauceError, InvalidRequest
from cauce.domain.request import Request
from cauce.domain.stream import Head
from cauce.engine.streams.options import StreamOptions, options_of
from cauce.server.exchange import Exchange
from cauce.server.following import addresses, completion_of, overhead, records_of
from cauce.server.keyed import KEY, Naming, given_key, start, start_keyed
from cauce.server.leaving import FORMS, Leaving, ModelManner, parse_leaving
from cauce.server.provenance import origin
from cauce.server.reading import asked_cursor, cursor_of, read_from
from cauce.server.relay import Answer
from cauce.server.services import Services
from cauce.server.wires import ANTHROPIC, CHAT, COMPLETIONS, GEMINI, NATIVE, UI, WIRES
from cauce.server.wishes import wished
from cauce.wire.numbering import START

_DURABLE = b"x-cauce-durable"
_LEAVING = b"x-cauce-on-disconnect"
RESTART = b"x-cauce-restart"

_KINDS = {NATIVE: "str", CHAT: "chatcmpl", COMPLETIONS: "cmpl", ANTHROPIC: "msg", GEMINI: "resp"}
"""By wire, what the ids begin with that are made here."""

_NAMED = re.compile(rf"({'|'.join(_KINDS)})(?:\.\d+)?:(.+)")
"""Ids of the streams of keys."""

_PARTS = frozenset({CHAT, COMPLETIONS, ANTHROPIC})
"""Wires that say of an answer that it is incomplete."""

_INCOMPLETE = b',"cauce":{"incomplete":true}}'

_PLAIN_MANNER = ModelManner()


def is_logged(exchange: Exchange, services: Services, request: Request) -> bool:
    """Whether the call goes through the log. Raises `InvalidRequest` for a header that says nothing known."""
    headers = exchange.request_headers
    if KEY in headers:
        return True
    if _DURABLE in headers and _durable(exchange.header(_DURABLE)):
        return True
    if _LEAVING in headers and _leaving(exchange).on_disconnect != "cancel":
        return True
    if request.conversation_id and request.stream and _DURABLE not in headers:
        # What is said in a conversation is kept, and a stream is known at its end by its log alone.
        return True
    return bool(services.manners) and manner_of(services, request).buffer


def asks_for_log(exchange: Exchange) -> bool:
    """Whether the client itself asks for the log."""
    return KEY in exchange.request_headers or _DURABLE in exchange.request_headers


def manner_of(services: Services, request: Request) -> ModelManner:
    """What the configuration says of the model that is asked."""
    return services.manners.get(request.model or services.router.default, _PLAIN_MANNER)


def options_for(exchange: Exchange, services: Services, request: Request, wire: str, common: Leaving) -> StreamOptions:
    """What is decided of the stream: by the header, else by the model, else `common`. Raises `InvalidRequest`."""
    manner = manner_of(services, request)
    leaving = _leaving(exchange) if _LEAVING in exchange.request_headers else manner.leaving or common
    settings = services.stream_settings
    restart = exchange.header(RESTART).lower()
    return StreamOptions(
        wire,
        leaving.on_disconnect,
        settings.grace if leaving.grace is None else leaving.grace,
        None if wire in (NATIVE, UI) else settings.retention_api,
        replaces=(wire == NATIVE and restart == "accept") or (wire == UI and restart != "refuse"),
        buffer=manner.buffer,
    )


def naming_of(stream_id: str) -> Naming | None:
    """The ids of the key that a stream of this id is of; None if it is no key's."""
    found = _NAMED.fullmatch(stream_id)
    return None if found is None else _naming(found[1], found[2])


def _naming(wire: str, key: str) -> Naming:
    # Nothing of the key comes before the colon, so no key has another's ids.
    return lambda number: f"{wire}:{key}" if number == 1 else f"{wire}.{number}:{key}"


async def begin(
    exchange: Exchange, services: Services, request: Request, wire: str, asked: msgspec.Raw | None = None
) -> Head:
    """The stream of the call: a new one, or that of its key. `asked` as in `StreamOptions`.

    Raises `InvalidRequest`, `Conflict` where the key is another request's, `Gone`, `Overloaded` and what refuses a request.
    """
    key = given_key(exchange)
    asked_cursor(exchange)
    request = wished(exchange, request)
    settings = services.stream_settings
    options = options_for(exchange, services, request, wire, Leaving(settings.on_disconnect))
    if not request.stream:
        # Its client is shown nothing before the end: the answer may begin anew, and whoever else reads it waits too.
        options = msgspec.structs.replace(options, buffer=True)
    if asked is not None:
        options = msgspec.structs.replace(options, asked=asked)
    if key:
        return await start_keyed(exchange, services, _naming(wire, key), request, options)
    return await start(exchange, services, services.ids.new(_KINDS[wire]), request, options)


async def stream_logged(
    exchange: Exchange, services: Services, head: Head, wire: str, *, hold: float | None = None
) -> None:
    """Answer with the frames of the stream, after those the client says it has had; `hold` as in `Manner`.

    Raises what `follow` raises, and `Conflict` for a cursor that the log cannot know.
    """
    try:
        after = await cursor_of(exchange, services, head)
    except CauceError:
        # It may have been started for this call, and nobody is going to read it.
        services.streams.detach(head.key, services.streams.attach(head.key))
        raise
    await read_from(exchange, services, head, after or START, wire, hold=hold)


async def answer_logged(exchange: Exchange, services: Services, head: Head, wire: str) -> Answer:
    """The plain answer out of the log. Where `wire` can say so, it may be incomplete; elsewhere that is an error.

    Raises `CauceError` and `ClientGone`.
    """
    known_after = overhead(exchange)
    records = await records_of(exchange, services, head)
    attempts = [record.delta for record in records if isinstance(record.delta, Attempt)]
    exchange.headers.extend(addresses(head, wire if wire in WIRES else NATIVE))
    completion = await completion_of(records, parts=wire in _PARTS, repeated=head.ended)
    headers = (*origin(attempts), known_after)
    took = services.clock.monotonic() - exchange.began
    return Answer(completion, attempts, headers, took, options_of(head).private)


def shown_whole(completion: Completion, render: Callable[[Completion], bytes]) -> bytes:
    """The body `render` makes of `completion`; one that broke off ends for its length, and says beside it that it is incomplete."""
    if completion.outcome != "incomplete":
        return render(completion)
    choices = [msgspec.structs.replace(choice, finish_reason="length") for choice in completion.choices]
    body = render(msgspec.structs.replace(completion, choices=tuple(choices)))
    return body.removesuffix(b"}") + _INCOMPLETE


def _durable(value: str) -> bool:
    match value.lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise InvalidRequest(f"X-Cauce-Durable: must be true or false, not {value!r}", field="X-Cauce-Durable")


def _leaving(exchange: Exchange) -> Leaving:
    value = exchange.header(_LEAVING)
    leaving = parse_leaving(value)
    if leaving is None:
        what = f"X-Cauce-On-Disconnect: must be {FORMS}, not {value!r}"
        raise InvalidRequest(what, field="X-Cauce-On-Disconnect")
    return leaving
