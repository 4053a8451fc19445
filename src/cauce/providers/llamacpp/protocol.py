"""What the server and its worker say to each other: lines of JSON, commands one way and events the other.

    Generate -> Loaded? Piece* (Done | Failed)      Count -> Loaded? (Counted | Failed)      Stop -> (its Generate ends soon)

Every command has a number of its own, and its events carry it. `Absent` may come at any time; then the worker ends.
"""

from typing import Any, Literal

import msgspec

from cauce.domain.request import Sampling


class ModelFile(msgspec.Struct, frozen=True):
    """A model and how to run it. Two that are equal are the same loaded model."""

    path: str
    context: int
    gpu_layers: int
    threads: int


class Prompt(msgspec.Struct, frozen=True):
    """Chat messages for the model's template, with what else it is told; or plain `text`, which is taken as it is."""

    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    options: dict[str, Any] = {}
    text: str | None = None


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Write an answer. `grammar` (GBNF) is what it must follow."""

    number: int
    model: ModelFile
    prompt: Prompt
    sampling: Sampling
    grammar: str | None = None


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Count the tokens of a prompt."""

    number: int
    model: ModelFile
    prompt: Prompt


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Nobody wants the rest of `number`."""

    number: int


Command = Generate | Count | Stop


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The model that `number` asks for is ready."""

    number: int


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """More of the answer: whole characters."""

    number: int
    text: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The answer is over. The token that says so is not counted."""

    number: int
    reason: Literal["stop", "length", "cancelled"]
    input_tokens: int
    output_tokens: int


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    number: int
    tokens: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It could not be done: the request asks too much of the model, the prompt is too long, the model cannot be loaded, or
    llama.cpp broke."""

    number: int
    kind: Literal["unsupported", "context", "load", "broken"]
    message: str
    field: str | None = None
    """The field of the request that asks too much."""


class Absent(msgspec.Struct, frozen=True, tag="absent"):
    """llama.cpp is not installed, or does not run here."""

    message: str
    number: int = 0


Event = Loaded | Piece | Done | Counted | Failed | Absent

encode = msgspec.json.Encoder().encode
decode_command = msgspec.json.Decoder(Command).decode
decode_event = msgspec.json.Decoder(Event).decode
