"""The `offline` provider: an extractive answerer. It quotes; it never makes a sentence up, and it says so when it has none."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Sequence

from cauce.domain.delta import Delta, Finish, FinishReason, Text
from cauce.domain.errors import ProviderFailure
from cauce.domain.request import Request, Sampling
from cauce.domain.usage import Usage
from cauce.ports.provider import Call, Deltas, ModelInfo
from cauce.providers.offline.answer import Library
from cauce.providers.offline.pages import Page
from cauce.providers.offline.tongue import count_tokens, cut

NAME = "offline"


class OfflineProvider:
    """See `ports.provider.Provider`. Its one model has no name. The index over `pages` is built at the first question."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = tuple(pages)
        self._library: Library | None = None
        self._building = threading.Lock()

    @property
    def name(self) -> str:
        return NAME

    async def open(self, call: Call) -> Deltas:
        """Answer in text. Raises `ProviderFailure` when JSON is asked for."""
        expected = call.request.response_format
        if expected is not None and expected.kind != "text":
            raise ProviderFailure(
                f"the offline answerer quotes text and cannot produce structured output ({expected.kind}): connect a model",
                failure="bad_request",
                provider=NAME,
                code="invalid_request",
            )
        library = self._library or await asyncio.to_thread(self._built)
        return await Deltas.opened(_answer(library, call), NAME)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        return _input_tokens(request)

    async def models(self) -> tuple[ModelInfo, ...]:
        return ()

    async def aclose(self) -> None:
        with self._building:
            if self._library is not None:
                self._library.close()
                self._library = None

    def _built(self) -> Library:
        with self._building:
            if self._library is None:
                try:
                    self._library = Library(self._pages)
                except sqlite3.OperationalError as error:
                    raise ProviderFailure(
                        f"the offline answerer needs an SQLite with FTS5, which this Python does not have: {error}",
                        failure="transient",
                        provider=NAME,
                    ) from error
            return self._library


async def _answer(library: Library, call: Call) -> AsyncGenerator[Sequence[Delta], None]:
    request = call.request
    pieces, reason = _bounded(library.answer(request.messages, instead=call.after is not None), request.sampling)
    for piece in pieces:
        yield (Text(piece),)
    output = sum([count_tokens(piece) for piece in pieces])
    yield (Finish(reason, Usage(_input_tokens(request), output, cost=0.0, cost_source="priced")),)


def _bounded(pieces: Sequence[str], sampling: Sampling) -> tuple[list[str], FinishReason]:
    """`pieces` up to the first stop sequence and at most `max_tokens`."""
    text = "".join(pieces)
    stops = [place for stop in sampling.stop if stop and (place := text.find(stop)) >= 0]
    length = min(stops, default=len(text))
    reason: FinishReason = "stop"
    if sampling.max_tokens is not None:
        kept = cut(text[:length], sampling.max_tokens)
        if count_tokens(text[len(kept) : length]):
            reason = "length"
            length = len(kept)
    bounded: list[str] = []
    for piece in pieces:
        if length <= 0:
            break
        bounded.append(piece[:length])
        length -= len(piece)
    return bounded, reason


def _input_tokens(request: Request) -> int:
    return sum([count_tokens(message.text) for message in request.messages])
