"""What is known of models before they are asked."""

from typing import Protocol

from cauce.domain.model import ModelFacts


class Catalogue(Protocol):
    def facts(self, provider: str, vendor: str, model: str, window: int | None = None) -> ModelFacts:
        """What is known of `model`, asked of the provider of that name, whose prices are those of `vendor`.

        `window` is the context window that the server itself tells. Asked for every candidate of every request: must be quick.
        """
        ...
