"""Figures for an operator, as the engine reports them."""

from typing import Protocol

from cauce.domain.delta import Outcome
from cauce.domain.usage import Usage


class Metrics(Protocol):
    def attempt(
        self, provider: str, model: str, outcome: Outcome, latency: float, first_delta: float | None, usage: Usage
    ) -> None:
        """One attempt ended. Times are seconds."""
        ...

    def waited(self, seconds: float) -> None:
        """A call has left the queue, let through or not, after so long."""
        ...

    def denied(self, whose: str, what: str) -> None:
        """A limit of ours denied a call. `whose`: provider, model, upstream, key, user, tenant; `what`: its unit."""
        ...
