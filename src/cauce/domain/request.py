"""A request to a model, in the one form that every wire is translated to and from."""

from typing import Any, Literal

import msgspec

from cauce.domain.extra import Extra
from cauce.domain.message import Message
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice


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
    logprobs: int | None = None
    """Log probabilities are wanted, with that many alternatives of each token (0: of the chosen one only)."""


class ResponseFormat(msgspec.Struct, frozen=True):
    """`text`, any JSON object, or JSON that follows `schema` (a JSON Schema)."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ReasoningOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much a model should think, and whether the client wants to see it. None: the model's own default.

    `effort` is none, minimal, low, medium, high, xhigh or max; `budget_tokens` bounds thinking where a wire counts it so;
    `enabled` switches it on or off; `visible` asks for the text, or a summary of it.
    """

    effort: str | None = None
    budget_tokens: int | None = None
    enabled: bool | None = None
    visible: bool | None = None


class Prompt(msgspec.Struct, frozen=True):
    """Text to be continued, not a conversation. With `suffix` the answer goes between the two.

    `tokens` is how many tokens came as their ids: what text they are is known to the model alone.
    """

    text: str
    suffix: str | None = None
    tokens: int = 0

    @property
    def goes_on(self) -> bool:
        """Whether a longer text could take its place: it has no end to meet, and is none of tokens."""
        return bool(self.text) and self.suffix is None


class Request(msgspec.Struct, frozen=True):
    """What a client asks for.

    `model` is a public name, an alias, `provider/model`, or empty for the default. `fallbacks` are further models for this
    call; `timeout` is in seconds; `extra` holds the fields only the client's wire knows.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    tools: tuple[Tool | OpaqueTool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning: ReasoningOptions | None = None
    stream: bool = False
    include_usage: bool = False
    """The client asked for a usage chunk at the end of its stream."""
    user: str | None = None
    metadata: dict[str, Any] | None = None
    task: str | None = None
    conversation_id: str | None = None
    fallbacks: tuple[str, ...] = ()
    timeout: float | None = None
    privacy: str | None = None
    """`local`: it must not leave this machine. None: what its metadata or its model say."""
    extra: Extra | None = None
    continues: bool = False
    """The last message is the beginning of the model's own answer: it goes on from its last character."""
    prompt: Prompt | None = None
    """What a client of the completions wire asked; `messages` then says the same as a conversation."""


def storable(text: str) -> str:
    """`text` as any store takes it: without what UTF-8 has no bytes for, and without U+0000."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


LONGEST_USER = 200
"""Characters by which a user is known: clients choose the name."""


class Scope(msgspec.Struct, frozen=True):
    """Who asks: every store function and every ledger row is told."""

    tenant: str = "default"
    key: str = "anonymous"
    user: str | None = None

    def of(self, user: str | None) -> "Scope":
        """The same, for the `user` that a request names: the first `LONGEST_USER` characters of it. One who is known stays."""
        if not user or self.user is not None:
            return self
        return Scope(self.tenant, self.key, user[:LONGEST_USER])

    def known_as(self, user: str | None) -> str | None:
        """The name by which stores find what the `user` that a request names has asked: what cannot be written is replaced."""
        name = self.of(user).user
        return None if name is None else storable(name)

    @property
    def principal(self) -> str:
        """Owner of streams made in this scope."""
        return f"{self.tenant}/{self.key}"
