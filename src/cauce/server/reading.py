"""Reading a logged stream from where its reader stopped: the cursor it sends, whether the log knows it, and what follows it."""

from contextlib import aclosing

from cauce.domain.errors import Conflict, InvalidRequest
from cauce.domain.stream import Head
from cauce.engine.streams.options import options_of
from cauce.server.exchange import Exchange
from cauce.server.following import follow
from cauce.server.services import Services
from cauce.server.wires import WIRES, manner
from cauce.wire.numbering import START, Cursor, parse_cursor


def asked_cursor(exchange: Exchange) -> Cursor | None:
    """The cursor that is sent, the later of `?after=` and Last-Event-ID; None without one. Raises `InvalidRequest`."""
    after, last = _after(exchange), last_event_id(exchange)
    # An EventSource that comes back repeats its address, and says beside it what it has had since.
    return last if after is None or (last is not None and last.later(after)) else after


def last_event_id(exchange: Exchange) -> Cursor | None:
    """The cursor in the header of that name, None without one. Raises `InvalidRequest`."""
    return _parsed(exchange.header(b"last-event-id") or None)


def _after(exchange: Exchange) -> Cursor | None:
    return _parsed(exchange.query("after"))


def _parsed(text: str | None) -> Cursor | None:
    if text is None:
        return None
    cursor = parse_cursor(text)
    if cursor is None:
        raise InvalidRequest("the cursor (`after` or Last-Event-ID) must be a whole number from 0 on", field="after")
    return cursor


async def cursor_of(exchange: Exchange, services: Services, head: Head) -> Cursor | None:
    """The same for a reader of this stream. Raises `Conflict` too, for a cursor the log cannot know."""
    cursor = asked_cursor(exchange)
    if cursor is None:
        return None
    if cursor.seq > head.tail and (head.ended or not await services.streams.hears(head.key, cursor.seq)):
        raise _rewritten(head, "cursor")
    epoch, after = exchange.query("epoch"), _after(exchange)
    # The epoch is that of the record that `after` names, else the header: what came before a takeover keeps its own.
    seq = cursor.seq if after is None else after.seq
    if epoch is not None and seq and epoch != str(await services.streams.epoch(head.key, seq)):
        raise _rewritten(head, "epoch")
    return cursor


async def read_from(
    exchange: Exchange, services: Services, head: Head, after: Cursor, wire: str, *, hold: float | None = None
) -> None:
    """Answer with the frames after `after` on `wire`; `hold` as in `Manner`. Raises what `follow` raises."""
    if head.ended and (after == Cursor(head.tail) or await _cut_before(services, head, after, wire)):
        # An EventSource stops reconnecting at 204.
        await exchange.respond(204, b"", b"text/event-stream")
        return
    await follow(exchange, services, head, WIRES[wire].project(head, after), manner(wire, after, hold=hold))


async def _cut_before(services: Services, head: Head, after: Cursor, wire: str) -> bool:
    """Whether an ended stream has nothing after `after` on `wire`, since what was taken back there ended it for its readers."""
    options = options_of(head)
    if after == START or not WIRES[wire].cut or not options.replaces or options.buffer:
        return False
    projection = WIRES[wire].project(head, after)
    async with aclosing(services.streams.follow(head.key, 0)) as batches:
        async for batch in batches:
            if projection.feed(batch):
                return False
    return True


def _rewritten(head: Head, what: str) -> Conflict:
    message = f"the {what} does not fit this stream: drop your copy and read from 0"
    return Conflict(message, reason="records_lost", tail=head.tail, epoch=head.epoch)
