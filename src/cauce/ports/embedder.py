"""The source of vectors."""

from typing import Protocol

from cauce.domain.embedding import EmbeddingRequest, Embeddings
from cauce.ports.provider import Timeouts


class Embedder(Protocol):
    """Makes vectors of texts. A provider that also does this is both."""

    async def embed(self, request: EmbeddingRequest, model: str, timeouts: Timeouts) -> Embeddings:
        """One vector per input, made by `model`. Raises `ProviderFailure`, and `Unsupported` for what it cannot embed."""
        ...
