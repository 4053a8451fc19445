"""What a model wants back unchanged: proof of its reasoning, or reasoning that only it can read."""

import msgspec


class Signature(msgspec.Struct, frozen=True):
    """`data` means something to upstreams of `wire` only; no other is ever sent it. `id` is that wire's name of the block, if any.

    Sources: Anthropic, "Extended thinking" (`signature`, `redacted_thinking`); OpenAI, "Reasoning models"
    (`encrypted_content`); Google, "Thought signatures" (`thoughtSignature`).
    """

    wire: str
    data: str
    id: str | None = None
