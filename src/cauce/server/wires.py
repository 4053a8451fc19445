"""The wires a logged stream can be read on, whichever it was asked for on: one table."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from weakref import WeakValueDictionary

import msgspec

from cauce.domain.delta import Text
from cauce.domain.errors import InvalidRequest
from cauce.domain.stream import Head, Record, StreamKey
from cauce.domain.tokens import estimate_input_tokens
from cauce.engine.streams.options import options_of
from cauce.server.event_stream import EVENTS, HEADERS, Form
from cauce.server.following import Manner, Projection
from cauce.server.logged_responses import WIRE as RESPONSES
from cauce.server.logged_responses import project as responses_project
from cauce.wire.anthropic_messages.logged import LoggedMessagesProjector
from cauce.wire.anthropic_messages.thinking import shows_thinking
from cauce.wire.native.frames import NativeProjector, priming
from cauce.wire.native.frames import projector as native_projector
from cauce.wire.numbering import Cursor, Numbered
from cauce.wire.openai_chat.answer import Head as ChatHead
from cauce.wire.openai_chat.logged import LoggedChatProjector
from cauce.wire.openai_chat.tools import style_of
from cauce.wire.openai_completions.logged import LoggedCompletionProjector
from cauce.wire.ui_messages.render import HEADER as UI_HEADER
from cauce.wire.ui_messages.render import VERSION as UI_VERSION
from cauce.wire.ui_messages.render import projector_of as ui_projector

NATIVE = "native"
CHAT = "openai-chat"
COMPLETIONS = "openai-completions"
ANTHROPIC = "anthropic"
UI = "ui"
GEMINI = "gemini"
"""Its SDKs know no ids of events: it is not in the table."""

_UI_EVENTS = Form((*HEADERS, (UI_HEADER, UI_VERSION)))


class Wire(msgspec.Struct, frozen=True):
    """One of them. `project` makes what shows a stream to a reader who has had everything up to a cursor.

    `cut`: its readers cannot take anything back, so a `Restart` is the end for them.
    """

    project: Callable[[Head, Cursor], Projection]
    form: Callable[[Cursor], Form] = lambda _: EVENTS
    cut: bool = False


class _Latest:
    """The frames of a stream that were made last, and of which records: they are the same for all who have come as far."""

    __slots__ = ("__weakref__", "frames", "records")

    def __init__(self) -> None:
        self.records: Sequence[Record] = ()
        self.frames = b""

    def of(self, records: Sequence[Record]) -> bytes | None:
        """The frames of `records`, if they are those. A record is decoded once: whoever reads it has the same."""
        mine = self.records
        same = len(mine) == len(records) and mine[0] is records[0] and mine[-1] is records[-1]
        return self.frames if same else None


_LATEST: WeakValueDictionary[StreamKey, _Latest] = WeakValueDictionary()
"""Of streams that have readers here."""


class NativeRecords:
    """Frames of the native wire, which have their numbers already. Text, which nearly all of them are, is encoded once for all readers."""

    def __init__(self, projector: NativeProjector, key: StreamKey, after: int) -> None:
        self._projector = projector
        self._after = after
        self._shared = _LATEST.setdefault(key, _Latest()) if type(projector) is NativeProjector else None

    @property
    def seq(self) -> int:
        return self._projector.seq

    def feed(self, records: Sequence[Record]) -> bytes:
        shared = self._shared
        if shared is None or not records or records[0].seq <= self._after:
            return self._made(records)
        if (frames := shared.of(records)) is not None:
            self._projector.take([record.delta for record in records])  # pyright: ignore[reportArgumentType]
            return frames
        frames = self._made(records)
        if all([type(record.delta) is Text for record in records]):
            shared.records, shared.frames = records, frames
        return frames

    def _made(self, records: Sequence[Record]) -> bytes:
        frames: list[bytes] = []
        for epoch, of_epoch in groupby(records, lambda record: record.epoch):
            self._projector.at_epoch(epoch)
            frames.append(self._projector.feed([record.delta for record in of_epoch]))
        return b"".join(frames)


def native(head: Head, after: Cursor, *, resumed: bool = False) -> Projection:
    """The native wire, where each record is one frame. `resumed` opens with an unnumbered `start` frame."""
    wanted = head.request.response_format
    projector = native_projector(head.key.id, wanted, after=after.folded, resumed=resumed)
    return NativeRecords(projector, head.key, after.folded)


def native_form(after: Cursor) -> Form:
    """Events that open with a block that sets the cursor."""
    return Form(opening=priming(after.folded))


def chat_head(head: Head) -> ChatHead:
    """What stands in answers of OpenAI's wires."""
    return ChatHead(head.key.id, head.request.model, int(head.created))


def _chat(head: Head, after: Cursor) -> Projection:
    request = head.request
    projector = LoggedChatProjector(chat_head(head), include_usage=request.include_usage, style=style_of(request))
    return Numbered(projector, after)


def _completions(head: Head, after: Cursor) -> Projection:
    options = options_of(head)
    # Of an echo the request says nothing any more: what is to be shown before the answer is kept with the stream.
    echo = msgspec.json.decode(options.asked, type=str | None) if options.wire == COMPLETIONS else None
    usage = head.request.include_usage
    return Numbered(LoggedCompletionProjector(chat_head(head), include_usage=usage, echo=echo or ""), after)


def _anthropic(head: Head, after: Cursor) -> Projection:
    request = head.request
    tokens, thinking = estimate_input_tokens(request), shows_thinking(request)
    projector = LoggedMessagesProjector(head.key.id, request.model, input_tokens=tokens, thinking=thinking)
    return Numbered(projector, after)


def _ui(head: Head, after: Cursor) -> Projection:
    return Numbered(ui_projector(head), after)


def _ui_form(after: Cursor) -> Form:
    return _UI_EVENTS


WIRES: Mapping[str, Wire] = {
    NATIVE: Wire(native, native_form),
    CHAT: Wire(_chat, cut=True),
    COMPLETIONS: Wire(_completions, cut=True),
    RESPONSES: Wire(responses_project),
    ANTHROPIC: Wire(_anthropic, cut=True),
    UI: Wire(_ui, _ui_form),
}
"""By the name that `?wire=` takes."""


def wire_named(name: str) -> Wire:
    """The wire of that name. Raises `InvalidRequest`."""
    wire = WIRES.get(name)
    if wire is None:
        raise InvalidRequest(
            f"wire: {name!r} is none that streams are read on: take one of {', '.join(WIRES)}", field="wire"
        )
    return wire


def manner(name: str, after: Cursor, *, hold: float | None = None) -> Manner:
    """How a stream is shown on the wire `name` from `after` on."""
    return Manner(name, WIRES[name].form(after), hold)
