"""Texts as vectors: what is asked for and what comes back."""

import msgspec

from cauce.domain.extra import Extra
from cauce.domain.usage import Usage


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """What to make vectors of. An input is a text, or its tokens' ids where the client cut it up itself.

    `dimensions` shortens the vectors where the model can; `task` says what they are for (`query`, `document`, `similarity`,
    `classification`, `clustering`), which some models want to know; `extra` holds the fields only the client's wire knows.
    """

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    user: str | None = None
    task: str | None = None
    extra: Extra | None = None
    privacy: str | None = None
    """`local`: it must not leave this machine."""
    timeout: float | None = None
    """Seconds for the whole call."""


class Embeddings(msgspec.Struct, frozen=True):
    """One vector per input, in the order of the inputs. `model` is the upstream's own name of what made them."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    model: str
