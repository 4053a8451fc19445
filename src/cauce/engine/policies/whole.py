"""Answers that nobody is shown any of before their end: one that breaks half-way has failed like one that never began, so it may be
asked for again."""

from collections.abc import Awaitable, Sequence
from contextlib import aclosing

import msgspec

from cauce.domain.delta import Delta, Finish, Text
from cauce.domain.errors import ProviderFailure
from cauce.ports.provider import Call, Deltas, Open, Policy

MAX_TEXT = 2 * 1024 * 1024
"""Characters of an answer that is held back."""


class Turn(msgspec.Struct, frozen=True):
    """One whole answer."""

    deltas: Sequence[Delta]
    finish: Finish

    @property
    def text(self) -> str:
        """The text of it."""
        return "".join([delta.text for delta in self.deltas if isinstance(delta, Text)])


def whole() -> Policy:
    """Read what is asked for `whole` to its end, inside of those who ask again and outside of those who count what was used."""

    def policy(open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            return _opened(open, call) if call.whole else open(call)

        return opened

    return policy


async def _opened(open: Open, call: Call) -> Deltas:
    deltas = await open(call)
    return Deltas(None, (await read_whole(deltas, await deltas.read())).deltas)


async def read_whole(deltas: Deltas, first: Sequence[Delta]) -> Turn:
    """The rest of an answer of which `first` is known. Closes it. Raises what it raises, and `ProviderFailure` for one that is too long."""
    got = list(first)
    size = _characters(first)
    async with aclosing(deltas):
        while batch := await deltas.read():
            got.extend(batch)
            size += _characters(batch)
            if size > MAX_TEXT:
                raise ProviderFailure(
                    f"a structured answer is longer than {MAX_TEXT} characters",
                    failure="transient",
                    provider="upstream",
                )
    last = got[-1]
    assert isinstance(last, Finish), "deltas end with their Finish, or raise"
    return Turn(got, last)


def _characters(batch: Sequence[Delta]) -> int:
    return sum([len(delta.text) for delta in batch if isinstance(delta, Text)])
