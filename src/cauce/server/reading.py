"""Reading a logged stream from where its reader stopped: the cursor it sends, whether the log knows it, and what follows it."""

from cauce.domain.errors import Conflict, InvalidRequest
from cauce.domain.stream import Head
from cauce.server.exchange import Exchange
from cauce.server.following import follow
from cauce.server.services import Services
from cauce.server.wires import WIRES, manner
from cauce.wire.numbering import Cursor, parse_cursor


def asked_cursor(exchange: Exchange) -> Cursor | None:
    """The cursor that is sent, `?after=` or else Last-Event-ID; None without one. Raises `InvalidRequest`."""
    text = exchange.query("after")
    if text is None:
        text = exchange.header(b"last-event-id") or None
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
    if cursor.seq > head.tail:
        raise _rewritten(head, "cursor")
    epoch = exchange.query("epoch")
    # The epoch is that of the record the cursor names: what came before a takeover keeps its own.
    if epoch is not None and cursor.seq and epoch != str(await services.streams.epoch(head.key, cursor.seq)):
        raise _rewritten(head, "epoch")
    return cursor


async def read_from(
    exchange: Exchange, services: Services, head: Head, after: Cursor, wire: str, *, hold: float | None = None
) -> None:
    """Answer with the frames after `after` on `wire`; `hold` as in `Manner`. Raises what `follow` raises."""
    if head.ended and after == Cursor(head.tail):
        # An EventSource stops reconnecting at 204.
        await exchange.respond(204, b"", b"text/event-stream")
        return
    await follow(exchange, services, head, WIRES[wire].project(head, after), manner(wire, after, hold=hold))


def _rewritten(head: Head, what: str) -> Conflict:
    return Conflict(
        f"the {what} does not fit this stream: drop your copy and read from 0", tail=head.tail, epoch=head.epoch
    )
