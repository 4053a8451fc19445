"""What reading an answer has in common on all wires: its state, its errors, and tokens that nobody has reported."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import msgspec

from cauce.domain.delta import Delta
from cauce.domain.errors import ProviderFailure
from cauce.domain.request import Request
from cauce.domain.tokens import CHARACTERS_PER_TOKEN
from cauce.domain.usage import Usage
from cauce.wire.sse import Event, EventTooLarge, SSEDecoder

_decoder = msgspec.json.Decoder()


def tokens_in(characters: int) -> int:
    """Tokens of so many characters, roughly."""
    return -(-characters // CHARACTERS_PER_TOKEN)


class Decoding:
    """State of one answer being read. `provider` names the upstream in errors.

    Where it reports no usage, tokens are estimated: those of the answer from its text, those of `request` by `estimate`.
    """

    _strays = False
    """Whether the upstream sends errors that are no events."""
    _failure: ProviderFailure | None = None
    """An error that came in the same bytes as deltas before it."""

    def __init__(
        self, provider: str, estimate: Callable[[Request], int] | None = None, request: Request | None = None
    ) -> None:
        self._provider = provider
        self._estimate = estimate
        self._request = request

    @cached_property
    def _sse(self) -> SSEDecoder:
        return SSEDecoder(strays=self._strays)

    def feed(self, data: bytes) -> list[Delta]:
        """Deltas of the events that `data` completes. Raises `ProviderFailure` for an error inside the stream.

        Deltas that came before the error in the same bytes are handed out first; the error is then raised by `finish`.
        """
        try:
            events = self._sse.feed(data)
        except EventTooLarge as error:
            raise self._broken(str(error)) from error
        return self.take(events)

    def take(self, events: Sequence[Event]) -> list[Delta]:
        """The same for events that somebody else has read."""
        deltas: list[Delta] = []
        try:
            self._events(events, deltas)
        except ProviderFailure as failure:
            if not deltas:
                raise
            self._failure = failure
        return deltas

    def _events(self, events: Sequence[Event], deltas: list[Delta]) -> None:
        """Read `events` into `deltas`. Raises `ProviderFailure`."""
        raise NotImplementedError

    def _value(self, data: bytes) -> Any:
        try:
            return _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._broken(f"sent invalid JSON: {error}") from error

    def _object(self, data: bytes) -> dict[str, Any]:
        value = self._value(data)
        if type(value) is not dict:
            raise self._broken("sent JSON that is not an object")
        return cast(dict[str, Any], value)

    def _estimated(self, characters: int) -> Usage:
        """The usage of an answer that has so many characters by now."""
        asked = self._estimate(self._request) if self._estimate is not None and self._request is not None else 0
        return Usage(asked, tokens_in(characters), estimated=True)

    def _used(self, told: Usage | None, characters: int) -> Usage:
        """What the upstream has `told`, with estimates in place of what it cannot have meant: no tokens for what it was asked, or for
        an answer of so many characters."""
        if told is None:
            return self._estimated(characters)
        if told.input_tokens and (told.output_tokens or not characters):
            return told
        guess = self._estimated(characters)
        # Of a prompt that was in a cache those tokens are known at least.
        asked = told.input_tokens or max(guess.input_tokens, told.cached_tokens + told.cache_write_tokens)
        written = told.output_tokens or guess.output_tokens
        if (asked, written) == (told.input_tokens, told.output_tokens):
            return told
        return msgspec.structs.replace(told, input_tokens=asked, output_tokens=written, estimated=True)

    def _used_so_far(self, told: Usage | None, characters: int) -> Usage:
        """The same of an answer that has not ended: whatever was told may be more by now."""
        used = self._used(told, characters)
        return used if used.estimated else msgspec.structs.replace(used, estimated=True)

    def _broken(self, what: str, *, shape: bool = True) -> ProviderFailure:
        return ProviderFailure(f"{self._provider}: {what}", failure="transient", provider=self._provider, shape=shape)
