"""A request to a model, in the one form that every wire is translated to and from."""

from typing import Any, Literal

import msgspec

from cauce.domain.extra import Extra
from cauce.domain.message import Message
from cauce.domain.tool import Tool, ToolChoice


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How tokens are drawn. None everywhere means: the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int = 1


class ResponseFormat(msgspec.Struct, frozen=True):
    """`text`, any JSON object, or JSON that follows `schema` (a JSON Schema)."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class Request(msgspec.Struct, frozen=True):
    """What a client asks for.

    `model` is a public name, an alias, `provider/model`, or empty for the default. `fallbacks` are further models for this
    call; `timeout` is in seconds; `extra` holds the fields only the client's wire knows.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    stream: bool = False
    include_usage: bool = False
    """The client asked for a usage chunk at the end of its stream."""
    user: str | None = None
    metadata: dict[str, Any] | None = None
    task: str | None = None
    conversation_id: str | None = None
    fallbacks: tuple[str, ...] = ()
    timeout: float | None = None
    extra: Extra | None = None


class Scope(msgspec.Struct, frozen=True):
    """Who asks: every store function and every ledger row is told."""

    tenant: str = "default"
    key: str = "anonymous"
    user: str | None = None

    @property
    def principal(self) -> str:
        """Owner of streams made in this scope."""
        return f"{self.tenant}/{self.key}"
