"""Servers that break a rule about calls of tools, new beginnings, or readers that take nothing: see `mutants`."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.delta import Delta, Restart
from cauce.engine.recovery.delivered import Called, Delivered, Seen
from cauce.ports.provider import Deltas
from cauce.server.event_stream import EventStream
from cauce.testing.chaos import CALM, Rates
from cauce.testing.chaos.reader import WIRES
from cauce.wire.native.frames import NativeProjector
from cauce.wire.openai_chat.logged import LoggedChatProjector
from tests.chaos.mutant import Mutant


def spliced(deltas: Deltas, before: Called) -> Deltas:
    """Takes the calls of an attempt for those of the one before it that have the same ids."""
    return deltas


def nothing_given_up(delivered: Delivered) -> Sequence[Delta]:
    """Leaves calls open that broke."""
    return ()


class Forgetful(Seen):
    """Knows of no call that is whole: it would have been asked for again."""

    def delivered(self) -> Delivered:
        return msgspec.structs.replace(super().delivered(), ready=())


class Placeless(NativeProjector):
    """Says that something is taken back, and not from where."""

    def _frame(self, delta: Delta) -> tuple[str, Any, dict[str, Any]]:
        kind, data, beside = super()._frame(delta)
        beside.pop("from_seq", None)
        return kind, data, beside


class Keeping(NativeProjector):
    """Has in its end what was taken back."""

    def _take_back(self, from_seq: int) -> None:
        pass


def placeless(stream_id: str, _: Any, **given: Any) -> NativeProjector:
    return Placeless(stream_id, **given)


def keeping(stream_id: str, _: Any, **given: Any) -> NativeProjector:
    return Keeping(stream_id, **given)


class GoingOn(LoggedChatProjector):
    """Goes on with an answer that begins anew, on a wire that can take nothing back."""

    def _frames(self, delta: Delta) -> bytes:
        return b"" if isinstance(delta, Restart) else super()._frames(delta)


class Holding(EventStream):
    """Never waits for a reader: what that has not taken it holds."""

    async def write(self, data: bytes) -> None:
        writes: list[asyncio.Task[None]] = self.__dict__.setdefault("writes", [])
        writes.append(asyncio.create_task(super().write(data)))
        await asyncio.sleep(0)

    async def finish(self) -> None:
        await asyncio.gather(*self.__dict__.get("writes", []))
        await super().finish()


_CALLS = {
    "streams": 12,
    "pieces": 10,
    "pause": 15,
    "length": 300,
    "spread": 0.3,
    "seconds": 3.5,
    "calls": 1.0,
    "rates": Rates(0.6, 0, 0, 0, 0, 0),
}
_RESTARTS = {**_CALLS, "pieces": 30, "calls": 0.0, "restarts": 1.0}
_STALLED = {
    "streams": 4,
    "length": 1_200_000,
    "pieces": 150,
    "pause": 15,
    "spread": 0.2,
    "seconds": 12.0,
    "rates": CALM,
    "stalled": 80,
    "memory": 180_000,
}
_RECOVERY = "cauce.engine.recovery.recovery"

TOOL_MUTANTS = (
    Mutant(
        "go on with a call that broke",
        "a call that broke is given up, and comes again under a new id",
        ("I8",),
        {f"{_RECOVERY}:_distinct": spliced, f"{_RECOVERY}:_given_up": nothing_given_up},
        _CALLS,
    ),
    Mutant(
        "ask again after a call that is whole",
        "an answer that breaks after a call that is whole ends with it",
        ("I8",),
        {f"{_RECOVERY}:Seen": Forgetful},
        {**_CALLS, "streams": 30, "seconds": 3.0},
    ),
    Mutant(
        "take back without saying from where",
        "what is taken back is told from where",
        ("I14",),
        {"cauce.server.wires:native_projector": placeless},
        _RESTARTS,
    ),
    Mutant(
        "keep in the end what was taken back",
        "the full text of the end is what stands",
        ("I14",),
        {"cauce.server.wires:native_projector": keeping},
        _RESTARTS,
    ),
    Mutant(
        "go on where nothing can be taken back",
        "an answer that begins anew ends on wires that can take nothing back",
        ("I14",),
        {"cauce.server.wires:LoggedChatProjector": GoingOn},
        {**_RESTARTS, "wires": ("openai-chat",)},
    ),
    Mutant(
        "hold what readers do not take",
        "who writes waits for who reads",
        ("I10",),
        {"cauce.server.following:EventStream": Holding},
        _STALLED,
    ),
)

_BOTH = {**_CALLS, "streams": 24, "restarts": 0.4, "seconds": 12.0, "wires": WIRES[1:]}
BROKEN_CALLS = Mutant("calls and new beginnings", "", (), {}, _BOTH)
"""No mutant: the shipped server, which breaks nothing where those above are caught."""

STALLED = Mutant("readers that take nothing", "", (), {}, _STALLED)
"""No mutant: the shipped server, which stays within the bound that the one above breaks."""
