"""Tools a model may call, and how it must choose among them."""

from typing import Any, Literal

import msgspec

from cauce.domain.extra import Extra


class Tool(msgspec.Struct, frozen=True, tag="tool"):
    """One function a model may call. `parameters` is a JSON Schema (None: no parameters)."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    extra: Extra | None = None


class OpaqueTool(msgspec.Struct, frozen=True, tag="opaque"):
    """A tool that only servers of one wire know: they run it themselves, or it is not called by JSON. `data` is its raw JSON."""

    wire: str
    kind: str
    data: dict[str, Any]


class ToolChoice(msgspec.Struct, frozen=True):
    """`auto`: the model decides; `none`: no tool; `required`: some tool; `tool`: the one called `name`."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str | None = None
