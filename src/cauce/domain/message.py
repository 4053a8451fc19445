"""Messages of a conversation and the parts they are made of."""

from typing import Any, Literal

import msgspec

from cauce.domain.citation import Citation
from cauce.domain.extra import Extra
from cauce.domain.signature import Signature

Role = Literal["system", "developer", "user", "assistant", "tool"]


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    text: str
    extra: Extra | None = None
    citations: tuple[Citation, ...] = ()


class RefusalPart(msgspec.Struct, frozen=True, tag="refusal"):
    """The model's words for why it does not answer."""

    text: str
    extra: Extra | None = None


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """An image: `url` is http(s) or a data URL. `detail` is the wire's own word for resolution."""

    url: str
    detail: str | None = None
    extra: Extra | None = None


class DocumentPart(msgspec.Struct, frozen=True, tag="document"):
    """A document: `url` is http(s) or a data URL. `name` is its file name or title."""

    url: str
    media_type: str | None = None
    name: str | None = None
    extra: Extra | None = None


class ReasoningPart(msgspec.Struct, frozen=True, tag="reasoning"):
    """Reasoning of an earlier turn. `signature` must go back unchanged where the model gave one."""

    text: str
    signature: Signature | None = None
    extra: Extra | None = None


class ToolCallPart(msgspec.Struct, frozen=True, tag="tool_call"):
    """A call the assistant made. `arguments` is a string of JSON, possibly invalid: it is what the model wrote."""

    call_id: str
    name: str
    arguments: str
    extra: Extra | None = None
    signature: Signature | None = None


class OpaquePart(msgspec.Struct, frozen=True, tag="opaque"):
    """A part only one wire knows."""

    wire: str
    data: dict[str, Any]


Part = TextPart | RefusalPart | ImagePart | DocumentPart | ReasoningPart | ToolCallPart | OpaquePart


class Message(msgspec.Struct, frozen=True):
    """One message. A message of role `tool` answers the call `call_id`; `failed` says that the tool could not do it."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    call_id: str | None = None
    extra: Extra | None = None
    failed: bool = False

    @property
    def text(self) -> str:
        """The text parts joined."""
        return "".join([part.text for part in self.parts if isinstance(part, TextPart)])
