"""Servers that break a rule of one way to begin a stream, or to read it on: a call with a key, a response in the background, a cancel that
comes first, an answer that its provider keeps."""

from typing import Any

import msgspec

from cauce.domain.stream import StreamKey
from cauce.providers.openai_compatible import kept_streams
from cauce.server.exchange import Exchange
from cauce.server.routes import kept_responses
from cauce.stores.sqlite.stream_log import SqliteStreamLog
from cauce.testing.chaos import CALM
from tests.chaos.mutant import Mutant


async def never_an_answer(_: Any, __: Any) -> bool:
    """Takes no answer of a key for one, so that the next call with it begins anew."""
    return True


_asked_number = kept_responses._number


def inclusive(exchange: Exchange) -> int:
    """Reads on from the event that was read last, and not behind it."""
    return max(-1, _asked_number(exchange) - 1)


class Present(SqliteStreamLog):
    """Cancels what is there, and thinks no more of what is not."""

    async def _cancel_early(self, key: StreamKey, reason: str) -> bool:
        return False


class NeverBack(kept_streams._Answer):
    """Does not come back for an answer whose connection breaks."""

    async def _again(self, cut: Any) -> None:
        return None


_BRIEF = {"streams": 8, "pieces": 60, "pause": 15, "length": 800, "spread": 0.5, "seconds": 12.0}

WAY_MUTANTS = (
    Mutant(
        "ask again for a repeated key",
        "a call with a key that is sent again gets the same answer, and asks nobody",
        ("I7",),
        {"cauce.server.keyed:_denied": never_an_answer},
        {
            **_BRIEF,
            "streams": 3,
            "pieces": 30,
            "keyed": 1.0,
            "seconds": 3.0,
            "rates": msgspec.structs.replace(CALM, duplicate=1.0),
        },
    ),
    Mutant(
        "read a response on from its last event, not behind it",
        "a response is read on behind the event that was read last",
        ("I1",),
        {"cauce.server.routes.kept_responses:_number": inclusive},
        {**_BRIEF, "background": 1.0, "rates": msgspec.structs.replace(CALM, drop=2.0)},
    ),
    Mutant(
        "forget a cancel that comes first",
        "a cancel that comes before its stream holds wherever that is made",
        ("I6",),
        {"cauce.bootstrap.streaming:SqliteStreamLog": Present},
        {**_BRIEF, "streams": 3, "pieces": 30, "nodes": 2, "early_cancels": 1.0, "rates": CALM},
    ),
    Mutant(
        "ask again for what its provider keeps",
        "an answer that its provider keeps is read on there",
        ("I16",),
        {"cauce.providers.openai_compatible.kept_streams:_Answer": NeverBack},
        {**_BRIEF, "kept": 1.0, "pieces": 120, "rates": msgspec.structs.replace(CALM, provider=0.1)},
    ),
)
