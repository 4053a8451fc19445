"""Chunks of a logged stream of the completions wire: an answer that broke for good ends as it does on the chat wire."""

from collections.abc import Sequence
from typing import Any

from cauce.domain.delta import Delta, Finish, Restart
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.logged import broken, ended_early
from cauce.wire.openai_completions.render import CompletionProjector


class LoggedCompletionProjector(CompletionProjector):
    """Deltas in, chunks out: a fold without clock or randomness."""

    _over = False

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        return b"".join([self._frames(delta) for delta in deltas if not self._over])

    def _frames(self, delta: Delta) -> bytes:
        match delta:
            case Restart():
                return self._cut(None)
            case Finish(outcome="incomplete", usage=usage):
                return self._cut(usage)
            case Finish(outcome="failed" | "cancelled"):
                self._over = True
                return broken(delta)
            case _:
                return super().feed((delta,))

    def _cut(self, usage: Usage | None) -> bytes:
        """The end of an answer of which there is a part."""
        self._over = True
        ends: list[dict[str, Any]] = [
            {"index": choice, "text": "", "logprobs": None, "finish_reason": "length"}
            for choice in sorted(self._opened)
        ]
        return ended_early(self._head, ends, usage if self._include_usage else None)
