"""The kinds of local model servers as a table: where each may be, how it is told from others, how its models are read.

A kind is data. A reader says by the shape of a body whether it is the answer it stands for: anything else raises
`msgspec.DecodeError`, and is another server's. Nothing here connects.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from cauce.ports.provider import ModelInfo

OPENAI_MODELS = "/v1/models"

Models = tuple[ModelInfo, ...]
Loaded = Mapping[str, int | None]
"""Ids of the loaded models, each with the context window it was loaded with, in tokens, where that is told."""

T = TypeVar("T")


class Reader(msgspec.Struct, Generic[T], frozen=True):
    """A path to GET, and what its body says. `read` raises `msgspec.DecodeError` for a body of another shape."""

    path: str
    read: Callable[[bytes], T]


class Kind(msgspec.Struct, frozen=True):
    """One kind of server. Any of `signs` tells it; the first of `models` that can be read lists its models.

    Servers are named `prefix`, and `prefix-port` when that is taken (`numbered`: always). `variable` is the environment
    variable that says where it is, `command` whether the `foundry` command knows. The chat API is under `url` + `base_path`.
    """

    id: str
    label: str
    prefix: str
    signs: tuple[Reader[Any], ...]
    models: tuple[Reader[Models], ...]
    loaded: Reader[Loaded] | None = None
    window: Reader[int | None] | None = None
    """The context window of all its models."""
    ports: tuple[int, ...] = ()
    variable: str | None = None
    command: bool = False
    numbered: bool = False
    base_path: str = "/v1"


Id = Annotated[str, msgspec.Meta(min_length=1)]


class _Status(msgspec.Struct):
    state: str = Field(name="value") if (Field := msgspec.field) else ""
