"""Output items while the projector writes them."""

from typing import Any

from cauce.domain.signature import Signature
from cauce.wire.openai_responses.response import message_item, reasoning_item, text_part


class Message:
    """A message that is open. `kind` is the type of its open part, empty if none is."""

    __slots__ = ("annotations", "content", "fields", "index", "item_id", "kind", "logprobs", "texts", "unknown")

    def __init__(self, index: int, made: str, fields: dict[str, Any]) -> None:
        self.index = index
        self.item_id = str(fields.get("id", made))
        self.fields = dict(fields)
        self.content: list[dict[str, Any]] = []
        self.open_part("", {})

    @property
    def place(self) -> dict[str, Any]:
        """Where the open part is."""
        return {"item_id": self.item_id, "output_index": self.index, "content_index": len(self.content)}

    def item(self, status: str) -> dict[str, Any]:
        """The item with the parts that are complete."""
        return message_item(self.item_id, list(self.content), {"status": status, **self.fields})

    def open_part(self, kind: str, unknown: dict[str, Any]) -> None:
        """Begin a part."""
        self.kind = kind
        self.unknown = unknown
        self.texts: list[str] = []
        self.annotations: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []

    def part(self, *, empty: bool = False) -> dict[str, Any]:
        """The open part, as it is so far."""
        text = "" if empty else "".join(self.texts)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text, **self.unknown}
        return text_part(text, self.annotations, self.logprobs, self.unknown)

    def close_part(self) -> dict[str, Any]:
        """End the open part, and hand it out."""
        part = self.part()
        self.content.append(part)
        self.open_part("", {})
        return part


class Thought:
    """A reasoning item that is open. `kind` is the type of its open part, empty if none is."""

    __slots__ = ("content", "fields", "index", "item_id", "kind", "signature", "summary", "texts")

    def __init__(self, index: int, made: str, fields: dict[str, Any]) -> None:
        self.index = index
        self.item_id = str(fields.get("id", made))
        self.fields = dict(fields)
        self.signature: Signature | None = None
        self.summary: list[dict[str, Any]] = []
        self.content: list[dict[str, Any]] = []
        self.kind = ""
        self.texts: list[str] = []

    @property
    def place(self) -> dict[str, Any]:
        """Where the open part is."""
        place: dict[str, Any] = {"item_id": self.item_id, "output_index": self.index}
        if self.kind == "summary_text":
            return {**place, "summary_index": len(self.summary)}
        return {**place, "content_index": len(self.content)}

    @property
    def text_event(self) -> str:
        """The name of events about the open part's text, without what they say of it."""
        return "response.reasoning_summary_text" if self.kind == "summary_text" else "response.reasoning_text"

    @property
    def part_event(self) -> str:
        """The name of events about the open part."""
        return "response.reasoning_summary_part" if self.kind == "summary_text" else "response.content_part"

    def open_part(self, kind: str) -> None:
        """Begin a part."""
        self.kind = kind
        self.texts = []

    def close_part(self) -> dict[str, Any]:
        """End the open part, and hand it out."""
        part: dict[str, Any] = {"type": self.kind, "text": "".join(self.texts)}
        (self.summary if self.kind == "summary_text" else self.content).append(part)
        self.kind = ""
        return part

    def item(self) -> dict[str, Any]:
        """The item with the parts that are complete."""
        texts: dict[str, Any] = {"summary": list(self.summary)}
        if self.content:
            texts["content"] = list(self.content)
        return reasoning_item(self.item_id, texts, self.signature, self.fields)


class Call:
    """A call that is open. `fields` are what its upstream says of the item (None: it spoke another wire)."""

    __slots__ = ("custom", "fields", "index", "item_id", "opened", "pieces", "signed")

    def __init__(self, fields: dict[str, Any] | None) -> None:
        self.fields = fields
        self.opened = False
        """Whether it has been announced: its name is known."""
        self.signed = False
        """Whether its signature has been shown."""
        self.custom = False
        self.index = 0
        self.item_id = ""
        self.pieces: list[str] = []

    @property
    def place(self) -> dict[str, Any]:
        """Where it is."""
        return {"item_id": self.item_id, "output_index": self.index}
