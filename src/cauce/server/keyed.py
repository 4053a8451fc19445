"""Which stream is the answer of a call: the one of its id, or of its key.

A try that we ourselves refused before anybody was asked (a limit, a budget, the queue, a circuit) is no answer, and waiting may help. So
the next call with its key begins anew, under the next of the ids that the key has. Which one that is follows from the log alone: every
server finds the same.
"""

import re
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from cauce.domain.delta import Attempt
from cauce.domain.errors import Conflict, Gone, InvalidRequest
from cauce.domain.request import Request
from cauce.domain.stream import Head, StreamKey
from cauce.engine.streams.options import StreamOptions
from cauce.server.cache_control import cache_control
from cauce.server.exchange import Exchange
from cauce.server.reading import asked_cursor
from cauce.server.services import Services
from cauce.wire.numbering import START

KEY = b"idempotency-key"

MOST = 50
"""Ids that a key has. The last one's answer stays, whatever it is."""

_CHOSEN = re.compile(r"[^\x00-\x20/\x7f]+")

Naming = Callable[[int], str]
"""The ids of a key, by their number from 1 on."""


def is_id(text: str, most: int) -> bool:
    """Whether a client may choose `text` as an id or as a key: at most so many characters."""
    return len(text) <= most and _CHOSEN.fullmatch(text) is not None


def given_key(exchange: Exchange, most: int = 200) -> str:
    """The key that the client gives its call, empty without one. Raises `InvalidRequest`."""
    sent = exchange.request_headers.get(KEY)
    if sent is None:
        return ""
    try:
        key = sent.decode()
    except UnicodeDecodeError:
        key = ""
    if not is_id(key, most):
        what = f"has 1 to {most} characters in UTF-8, none of them blank, control or a slash"
        raise InvalidRequest(f"Idempotency-Key: {what}", field="Idempotency-Key")
    return key


async def start(
    exchange: Exchange, services: Services, stream_id: str, request: Request, options: StreamOptions
) -> Head:
    """The stream of that id: a new one, or the one that has it, seen as who asks now wants to see it. Raises as `Streams.start`."""
    key = StreamKey(exchange.scope.principal, stream_id)
    if (asked_cursor(exchange) or START) != START and await services.streams.head(key) is None:
        # Who has read something reads on, and begins nothing.
        raise Conflict(
            "what you have read is not here any more: ask again from 0", reason="records_lost", tail=0, epoch=0
        )
    control = cache_control(exchange)
    try:
        head = await services.streams.start(key, request, exchange.scope, exchange.request_id, control, options)
    except Conflict as conflict:
        conflict.facts = {"reason": "stream_id_reused"}
        conflict.lasting = True
        raise
    if head.request.include_usage != request.include_usage:
        # It adds a frame at the end, and nothing to what stands before it.
        shown = msgspec.structs.replace(head.request, include_usage=request.include_usage)
        head = msgspec.structs.replace(head, request=shown)
    return head


async def start_keyed(
    exchange: Exchange, services: Services, naming: Naming, request: Request, options: StreamOptions
) -> Head:
    """The stream of a key: the first of its ids whose answer counts, or a new one. Raises as `start` does."""
    reads_on = (asked_cursor(exchange) or START) != START
    for number in range(1, MOST):
        follows = StreamKey(exchange.scope.principal, naming(number + 1))
        try:
            head = await start(exchange, services, naming(number), request, options)
            if not await _denied(services, head) or (reads_on and not await _known(services, follows)):
                return head
        except Gone:
            if not await _known(services, follows):
                raise
    return await start(exchange, services, naming(MOST), request, options)


async def newest(services: Services, principal: str, naming: Naming) -> StreamKey:
    """Of the ids that a key has, the last one that was begun, else the first."""
    return StreamKey(principal, naming(await _begun(services, principal, naming)))


async def tries(services: Services, principal: str, naming: Naming) -> list[StreamKey]:
    """Of the ids that a key has, those that were begun, and the first in any case."""
    begun = await _begun(services, principal, naming)
    return [StreamKey(principal, naming(number)) for number in range(1, begun + 1)]


async def following(services: Services, principal: str, naming: Naming) -> StreamKey:
    """The id behind that one."""
    return StreamKey(principal, naming(min(MOST, 1 + await _begun(services, principal, naming))))


async def _begun(services: Services, principal: str, naming: Naming) -> int:
    number = 1
    while number < MOST and await _known(services, StreamKey(principal, naming(number + 1))):
        number += 1
    return number


async def begins_anew(services: Services, key: StreamKey) -> bool:
    """Whether the next call with the key of that stream gets another one."""
    try:
        head = await services.streams.head(key)
    except Gone:
        return False
    return head is not None and await _denied(services, head)


async def _denied(services: Services, head: Head) -> bool:
    """Whether it failed before anybody was asked."""
    if head.state != "failed":
        return False
    async with aclosing(services.streams.follow(head.key, 0)) as batches:
        async for batch in batches:
            if any([isinstance(record.delta, Attempt) for record in batch]):
                return False
    return True


async def _known(services: Services, key: StreamKey) -> bool:
    try:
        return await services.streams.head(key) is not None
    except Gone:
        return True
