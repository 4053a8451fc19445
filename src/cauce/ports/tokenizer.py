"""Who counts tokens here, with the vocabulary of a model, in place of its provider."""

from typing import Protocol

from cauce.domain.request import Request


class Tokenizer(Protocol):
    async def count(self, request: Request, model: str) -> int | None:
        """Input tokens of `request` for `model`, exactly; None where that cannot be told: another vocabulary, more than text."""
        ...
