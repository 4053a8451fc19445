"""Output items read into deltas, piece by piece or whole.

Whatever has not come in pieces by the time an item is done is taken from the finished item, so an answer that was not
streamed is one whose items are all done at once.
"""

from typing import Any, cast

from cauce.domain.delta import Delta, Opaque, Reasoning, Refusal, Text, TokenLogprob, ToolCall
from cauce.domain.extra import Extra
from cauce.domain.signature import Signature
from cauce.wire.fields import rest
from cauce.wire.making import CallIds
from cauce.wire.openai_responses.content import parse_annotation, parse_logprobs
from cauce.wire.openai_responses.names import WIRE
from cauce.wire.openai_responses.tools import as_arguments

_ENDED_WELL = (None, "completed")
_KNOWN = {
    "message": frozenset({"type", "content", "status"}),
    "reasoning": frozenset({"type", "summary", "content", "encrypted_content"}),
    "function_call": frozenset({"type", "call_id", "name", "arguments", "status"}),
    "custom_tool_call": frozenset({"call_id", "name", "input"}),
}
_PART_FIELDS = frozenset({"type", "text", "refusal", "annotations", "logprobs"})


class Piece:
    """A content part while it comes: how many characters and annotations of it have."""

    __slots__ = ("annotations", "length")

    def __init__(self) -> None:
        self.length = 0
        self.annotations = 0


class Item:
    """An output item while it comes."""

    __slots__ = (
        "announced",
        "call_id",
        "done",
        "fields",
        "input",
        "kind",
        "length",
        "name",
        "pieces",
        "place",
        "unknown",
    )

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields
        self.pieces: dict[tuple[str, int], Piece] = {}
        self.unknown: dict[int, dict[str, Any]] = {}
        """Of content parts: what only this wire knows."""
        self.announced = False
        self.length = 0
        self.input: list[str] = []
        """Pieces of a call's arguments or free text."""
        self.place = 0
        self.call_id = ""
        self.name = ""
        self.done: dict[str, Any] | None = None

    def announce(self) -> dict[str, Any]:
        """What the first delta of the item says of it; nothing on later ones."""
        if self.announced:
            return {}
        self.announced = True
        return {"item": self.fields}


class OutputReader:
    """The items of one answer. All methods append to the `deltas` they are given and take any JSON: what makes no sense is skipped."""

    def __init__(self, ids: CallIds) -> None:
        self._ids = ids
        self.items: dict[int, Item] = {}
        self.calls = 0
        self.refused = False
        self.characters = 0
        self.place: tuple[int, int] | None = None
        """Item and content part of the text that came last, if only its text can differ in the next piece."""
        self.piece = Piece()
        self._last: Item | None = None

    def added(self, index: int, raw: dict[str, Any], event: dict[str, Any], deltas: list[Delta]) -> None:
        """An item begins; `event` says so."""
        if index in self.items:
            return
        status = None if raw.get("status") == "in_progress" else raw.get("status")
        item = self._open(index, {**raw, "status": status}, deltas)
        if item.kind == "opaque":
            deltas.append(Opaque(WIRE, {"event": event}))
            self._last = item
        text = raw.get("arguments" if item.kind == "function_call" else "input")
        if isinstance(text, str) and text:
            self.called(index, text, deltas)

    def part(self, index: int, content: int, raw: dict[str, Any]) -> None:
        """A content part begins."""
        item = self.items.get(index)
        if item is not None and (unknown := rest(raw, _PART_FIELDS)):
            item.unknown[content] = unknown

    def text(
        self, index: int, content: int, text: str, deltas: list[Delta], logprobs: tuple[TokenLogprob, ...] = ()
    ) -> None:
        """A piece of a message's text."""
        item = self.items.get(index) or self._begin(index, {"type": "message"})
        if item.kind != "message":
            return
        piece, data = self._piece(item, "output_text", content)
        begins = data is not None and self._last is not None and self._last.kind == "message"
        deltas.append(Text(text, 0, Extra(WIRE, data) if data else None, begins, logprobs))
        piece.length += len(text)
        self.characters += len(text)
        self._last = item
        self.place, self.piece = (index, content), piece

    def refusal(self, index: int, content: int, text: str, deltas: list[Delta]) -> None:
        """A piece of a refusal."""
        item = self.items.get(index) or self._begin(index, {"type": "message"})
        if item.kind != "message":
            return
        self.refused = True
        piece, data = self._piece(item, "refusal", content)
        deltas.append(Refusal(text, 0, Extra(WIRE, data) if data else None))
        piece.length += len(text)
        self.characters += len(text)
        self._last, self.place = item, None

    def reasoning(self, index: int, kind: str, part: int, text: str, deltas: list[Delta]) -> None:
        """A piece of a summary (`summary_text`) or of the reasoning itself (`reasoning_text`)."""
        item = self.items.get(index) or self._begin(index, {"type": "reasoning"})
        if item.kind != "reasoning":
            return
        piece = item.pieces.get((kind, part))
        data: dict[str, Any] = {}
        if piece is None:
            piece = item.pieces[(kind, part)] = Piece()
            data["parts"] = [[item.length, kind]]
        self._reason(item, text, data, deltas)
        piece.length += len(text)
        item.length += len(text)

    def annotation(self, index: int, content: int, raw: dict[str, Any], deltas: list[Delta]) -> None:
        """A source of a text."""
        item = self.items.get(index)
        piece = item.pieces.get(("output_text", content)) if item is not None else None
        if piece is not None:
            piece.annotations += 1
            deltas.append(parse_annotation(raw))

    def called(self, index: int, text: str, deltas: list[Delta]) -> None:
        """A piece of a call's arguments, or of a custom call's free text."""
        item = self.items.get(index)
        if item is None or item.kind not in ("function_call", "custom_tool_call"):
            return
        self.characters += len(text)
        if item.kind == "function_call":
            item.input.append(text)
            deltas.append(ToolCall(item.place, item.call_id, item.name, text))
            return
        opening = "" if item.input else '{"input":"'
        item.input.append(text)
        deltas.append(
            ToolCall(item.place, item.call_id, item.name, opening + _escaped(text), extra=Extra(WIRE, {"input": text}))
        )

    def beside(self, index: int, event: dict[str, Any], deltas: list[Delta]) -> None:
        """An event about an item that only this wire knows."""
        if index in self.items:
            deltas.append(Opaque(WIRE, {"event": event}))

    def done(self, index: int, raw: dict[str, Any], deltas: list[Delta]) -> None:
        """An item is complete, and looks like `raw`."""
        item = self.items.get(index) or self._open(index, raw, deltas)
        if item.done is not None:
            return
        item.done = raw
        if item.kind == "opaque":
            deltas.append(Opaque(WIRE, {"item": raw, "output_index": index}))
        elif item.kind == "message":
            self._message_done(index, item, raw, deltas)
        elif item.kind == "reasoning":
            self._reasoning_done(index, item, raw, deltas)
        else:
            self._call_done(index, item, raw, deltas)
        self._last, self.place = item, None

    def end(self, deltas: list[Delta]) -> None:
        """The answer is over: calls whose end never came end here."""
        for index, item in self.items.items():
            if item.done is None and item.kind in ("function_call", "custom_tool_call"):
                item.done = {}
                self._call_done(index, item, {}, deltas)

    def _open(self, index: int, raw: dict[str, Any], deltas: list[Delta]) -> Item:
        item = self._begin(index, raw)
        if item.kind == "reasoning":
            self._reason(item, "", {}, deltas)
        elif item.kind in ("function_call", "custom_tool_call"):
            deltas.append(ToolCall(item.place, item.call_id, item.name, "", extra=Extra(WIRE, item.announce())))
            self._last, self.place = item, None
        return item

    def _begin(self, index: int, raw: dict[str, Any]) -> Item:
        kind = _kind(raw)
        item = self.items[index] = Item(kind, _fields(kind, raw))
        if kind == "reasoning":
            # It is said with the end: how it stands is not known yet.
            item.fields.pop("status", None)
        elif kind in ("function_call", "custom_tool_call"):
            item.place = self.calls
            self.calls += 1
            item.call_id = str(raw.get("call_id") or raw.get("id") or self._ids.make("call"))
            item.name = str(raw.get("name") or "")
        return item

    def _piece(self, item: Item, kind: str, content: int) -> tuple[Piece, dict[str, Any] | None]:
        """The part that a piece of text belongs to, and what its first piece says of it (None on later ones)."""
        piece = item.pieces.get((kind, content))
        if piece is not None:
            return piece, None
        piece = item.pieces[(kind, content)] = Piece()
        data = item.announce()
        if unknown := item.unknown.get(content):
            data["part"] = unknown
        return piece, data

    def _reason(self, item: Item, text: str, data: dict[str, Any], deltas: list[Delta]) -> None:
        begins = not item.announced and self._last is not None and self._last.kind == "reasoning"
        data = {**item.announce(), **data}
        deltas.append(Reasoning(text, None, 0, Extra(WIRE, data) if data else None, begins))
        self.characters += len(text)
        self._last, self.place = item, None

    def _message_done(self, index: int, item: Item, raw: dict[str, Any], deltas: list[Delta]) -> None:
        item.fields = {**item.fields, **_fields("message", raw)} if not item.announced else item.fields
        for content, part in enumerate(_list(raw.get("content"))):
            self.part(index, content, part)
            match part:
                case {"type": "output_text", "text": str(text)}:
                    piece = item.pieces.get(("output_text", content))
                    sent = piece.length if piece is not None else 0
                    if piece is None or len(text) > sent:
                        logprobs = () if sent else parse_logprobs(part.get("logprobs"))
                        self.text(index, content, text[sent:], deltas, logprobs)
                        piece = item.pieces[("output_text", content)]
                    for annotation in _list(part.get("annotations"))[piece.annotations :]:
                        self.annotation(index, content, annotation, deltas)
                case {"type": "refusal", "refusal": str(text)}:
                    piece = item.pieces.get(("refusal", content))
                    sent = piece.length if piece is not None else 0
                    if piece is None or len(text) > sent:
                        self.refusal(index, content, text[sent:], deltas)
                case _:
                    announced = item.announce()
                    deltas.append(Opaque(WIRE, {"part": part, **({"of": announced["item"]} if announced else {})}))
        if not item.announced:
            deltas.append(Opaque(WIRE, {"item": raw, "output_index": index}))
        elif (changed := _changed(item.fields, _fields("message", raw))) and self._last is item:
            extra = Extra(WIRE, {"done": changed})
            said = any([kind == "output_text" for kind, _ in item.pieces])
            deltas.append(Text("", 0, extra) if said else Refusal("", 0, extra))

    def _reasoning_done(self, index: int, item: Item, raw: dict[str, Any], deltas: list[Delta]) -> None:
        for kind, member in (("summary_text", "summary"), ("reasoning_text", "content")):
            for place, part in enumerate(_list(raw.get(member))):
                text = part.get("text")
                piece = item.pieces.get((kind, place))
                if isinstance(text, str) and (piece is None or len(text) > piece.length):
                    self.reasoning(index, kind, place, text[piece.length if piece is not None else 0 :], deltas)
        changed = _changed(item.fields, _fields("reasoning", raw))
        encrypted, identifier = raw.get("encrypted_content"), raw.get("id")
        signature = None
        if isinstance(encrypted, str) and encrypted:
            signature = Signature(WIRE, encrypted, identifier if isinstance(identifier, str) else None)
        if signature is not None or changed:
            deltas.append(Reasoning("", signature, 0, Extra(WIRE, {"done": changed}) if changed else None))

    def _call_done(self, index: int, item: Item, raw: dict[str, Any], deltas: list[Delta]) -> None:
        free = item.kind == "custom_tool_call"
        came = "".join(item.input)
        whole = raw.get("input" if free else "arguments")
        if not isinstance(whole, str):
            whole = came
        if whole.startswith(came) and len(whole) > len(came):
            self.called(index, whole[len(came) :], deltas)
        if free:
            closing = '"}' if item.input else '{"input":""}'
            deltas.append(ToolCall(item.place, item.call_id, item.name, closing, extra=Extra(WIRE, {"input": ""})))
        name = raw.get("name")
        item.name = name if isinstance(name, str) and name else item.name
        fields = {**item.fields, **_fields(item.kind, raw)} if raw else item.fields
        arguments = as_arguments(whole) if free else whole
        deltas.append(
            ToolCall(item.place, item.call_id, item.name, arguments, "ready", extra=Extra(WIRE, {"item": fields}))
        )


def _kind(raw: dict[str, Any]) -> str:
    kind = raw.get("type")
    return kind if isinstance(kind, str) and kind in _KNOWN else "opaque"


def _fields(kind: str, raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of an item that the domain has no place for."""
    if kind == "opaque":
        return {}
    fields = rest(raw, _KNOWN[kind])
    if kind in ("message", "function_call") and raw.get("status") not in _ENDED_WELL:
        fields["status"] = raw["status"]
    if kind == "message" and fields.get("role") == "assistant":
        del fields["role"]
    if kind == "reasoning" and raw.get("content") == []:
        fields["content"] = []
    return fields


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if name not in before or before[name] != value}


def _list(value: Any) -> list[dict[str, Any]]:
    return [one for one in cast(list[Any], value) if isinstance(one, dict)] if isinstance(value, list) else []


def _escaped(text: str) -> str:
    """`text` as it stands inside a JSON string."""
    return as_arguments(text)[len('{"input":"') : -len('"}')]
