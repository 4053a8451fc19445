"""Providers whose answers go on by themselves, whoever reads them: they are told when nobody will."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from cauce.domain.stream import Upstream
from cauce.ports.provider import Candidate, Provider


@runtime_checkable
class Attachable(Protocol):
    """A provider whose own streams can be attached to again."""

    def give_up(self, upstream: Upstream) -> None:
        """Nobody wants the answer behind `upstream` any more. Returns at once; does nothing for a stream of another provider."""
        ...


def give_up(candidates: Sequence[Candidate], upstream: Upstream | None) -> None:
    """Have the provider of `upstream`, if it is one of `candidates`, told that nobody wants its answer: it would be billed to its end.

    Where it has several places, each is told: which of them makes the answer is not known.
    """
    told: list[Provider] = []
    for one in candidates:
        provider = one.provider
        if upstream is None or provider.name != upstream.provider or provider in told:
            continue
        told.append(provider)
        if isinstance(provider, Attachable):
            provider.give_up(upstream)
