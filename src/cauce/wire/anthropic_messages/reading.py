"""Content blocks of an answer on their way: their pieces become deltas, each block the parts of the domain it stands for."""

from typing import Any, Literal, cast

import msgspec

from cauce.domain.delta import Delta, Opaque, Reasoning, Text, ToolCall
from cauce.domain.errors import ProviderFailure
from cauce.domain.extra import Extra
from cauce.domain.signature import Signature
from cauce.wire.anthropic_messages.blocks import REDACTED, parse_citation, redacted
from cauce.wire.anthropic_messages.usage import WIRE
from cauce.wire.making import CallIds

_TOOL_USE = frozenset({"type", "id", "name", "input"})
_KNOWN = {
    "text": frozenset({"type", "text"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    REDACTED: frozenset({"type", "data"}),
    "tool_use": _TOOL_USE,
}
"""The blocks that mean something beyond this wire, and their fields that do."""

_SAID = {"text": "text", "thinking": "reasoning", REDACTED: "reasoning"}
"""What blocks say; two in a row that say the same have to be told apart."""

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()


class Block:
    """A block that has been opened: as it came, and what has been made of it. A kind unknown here is gathered whole."""

    __slots__ = ("begun", "kind", "place", "raw", "unknown", "written")

    def __init__(self, kind: str, raw: dict[str, Any]) -> None:
        self.kind = kind
        self.raw = raw
        self.begun = False
        self.place = 0
        self.written: list[str] = []
        self.unknown: list[dict[str, Any]] = []


class Reading:
    """What one answer's blocks share. `message` is what `message_start` said, until a delta has carried it."""

    def __init__(self, provider: str, ids: CallIds) -> None:
        self._ids = ids
        self.message: dict[str, Any] | None = None
        self.characters = 0
        self._provider = provider
        self._calls = 0
        self._last: str | None = None

    def delta(self, block: Block, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """One piece of `block`. Raises `ProviderFailure` where a field is not what it must be."""
        match block.kind, fields.get("type"):
            case "text", "text_delta":
                self._text(block, self._string(fields, "text"), deltas)
            case "text", "citations_delta":
                self._begin_text(block, deltas)
                deltas.append(self._citation(fields.get("citation")))
            case "thinking", "thinking_delta":
                self._thinking(block, self._string(fields, "thinking"), None, deltas)
            case "thinking", "signature_delta":
                self._thinking(block, "", self._string(fields, "signature"), deltas)
            case "tool_use", "input_json_delta":
                self._arguments(block, self._string(fields, "partial_json"), deltas)
            case _, "input_json_delta":
                block.written.append(self._string(fields, "partial_json"))
            case "compaction", "compaction_delta":
                block.raw = {**block.raw, **fields, "type": block.kind}
            case _:
                self._unknown(block, fields, deltas)

    def close(self, block: Block, deltas: list[Delta]) -> None:
        """What is left to say of `block` when no more of it comes; all of it, if it came in one piece."""
        match block.kind:
            case "text":
                self._begin_text(block, deltas)
            case "thinking":
                if not block.begun:
                    self._thinking(block, "", None, deltas)
            case "redacted_thinking":
                extra, begins = self._begin(block)
                signature = redacted(self._string(block.raw, "data"))
                deltas.append(Reasoning("", signature, extra=extra, begins=begins))
            case "tool_use":
                self._ready(block, deltas)
            case _:
                self._opaque(block, deltas)

    def _begin(self, block: Block) -> tuple[Extra | None, bool]:
        """The extra of a block's first delta, and whether the block before it said the same kind of thing."""
        block.begun = True
        said = _SAID.get(block.kind)
        begins, self._last = said is not None and said == self._last, said
        data: dict[str, Any] = {}
        known = _KNOWN.get(block.kind)
        if known is not None and not block.raw.keys() <= known:
            data["block"] = {name: value for name, value in block.raw.items() if name not in known}
            if data["block"].get("citations"):
                # They come as deltas of their own.
                data["block"]["citations"] = []
        if self.message is not None:
            data["message"] = self.message
            self.message = None
        return Extra(WIRE, data) if data else None, begins

    def _text(self, block: Block, text: str, deltas: list[Delta]) -> None:
        if block.begun or block.raw.get("text") or block.raw.get("citations"):
            self._begin_text(block, deltas)
            deltas.append(Text(text))
        else:
            extra, begins = self._begin(block)
            deltas.append(Text(text, 0, extra, begins))
        self.characters += len(text)

    def _begin_text(self, block: Block, deltas: list[Delta]) -> None:
        """Say what a text block begins with, be it nothing: its extra shows that it is a block all the same."""
        if block.begun:
            return
        text = self._string(block.raw, "text")
        extra, begins = self._begin(block)
        deltas.append(Text(text, 0, extra or Extra(WIRE, {}), begins))
        self.characters += len(text)
        citations = block.raw.get("citations")
        if isinstance(citations, list):
            deltas.extend([self._citation(one) for one in cast(list[Any], citations)])

    def _citation(self, raw: Any) -> Delta:
        if type(raw) is not dict:
            raise self._broken("sent a citation that is no object")
        return parse_citation(cast(dict[str, Any], raw))

    def _thinking(self, block: Block, text: str, signed: str | None, deltas: list[Delta]) -> None:
        extra: Extra | None = None
        begins = False
        if not block.begun:
            text = self._string(block.raw, "thinking") + text
            signed = signed or self._string(block.raw, "signature")
            extra, begins = self._begin(block)
            extra = extra or Extra(WIRE, {})
        self.characters += len(text)
        deltas.append(Reasoning(text, Signature(WIRE, signed) if signed else None, extra=extra, begins=begins))

    def _arguments(self, block: Block, piece: str, deltas: list[Delta]) -> None:
        extra = self._begin_call(block)
        block.written.append(piece)
        self.characters += len(piece)
        deltas.append(self._call(block, piece, "piece", extra))

    def _begin_call(self, block: Block) -> Extra | None:
        if block.begun:
            return None
        block.place = self._calls
        self._calls += 1
        if not block.raw.get("id"):
            block.raw = {**block.raw, "id": self._ids.make("toolu")}
        return self._begin(block)[0]

    def _ready(self, block: Block, deltas: list[Delta]) -> None:
        whole = "".join(block.written)
        if not whole.strip():
            # Nothing came, or nothing but blanks: the start may hold the arguments, else there are none.
            given = block.raw.get("input")
            piece = _encode(given).decode() if type(given) is dict else "{}"
            self._arguments(block, piece, deltas)
            whole += piece
        unknown = {name: value for name, value in block.raw.items() if name not in _TOOL_USE}
        deltas.append(self._call(block, whole, "ready", Extra(WIRE, {"block": unknown}) if unknown else None))

    def _call(self, block: Block, arguments: str, mark: Literal["piece", "ready"], extra: Extra | None) -> ToolCall:
        call_id, name = self._string(block.raw, "id"), self._string(block.raw, "name")
        return ToolCall(block.place, call_id, name, arguments, mark, extra=extra)

    def _opaque(self, block: Block, deltas: list[Delta]) -> None:
        data = {**block.raw, "input": _input("".join(block.written))} if block.written else block.raw
        extra, _ = self._begin(block)
        if block.unknown:
            extra = Extra(WIRE, {**(extra.data if extra is not None else {}), "deltas": block.unknown})
        deltas.append(Opaque(WIRE, data, extra=extra))

    def _unknown(self, block: Block, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """A piece of a kind unknown here goes along raw, on a delta that says nothing else."""
        carried = Extra(WIRE, {"deltas": [fields]})
        match block.kind:
            case "text":
                self._begin_text(block, deltas)
                deltas.append(Text("", 0, carried))
            case "thinking":
                if not block.begun:
                    self._thinking(block, "", None, deltas)
                deltas.append(Reasoning("", extra=carried))
            case "tool_use":
                if not block.begun:
                    self._arguments(block, "", deltas)
                deltas.append(self._call(block, "", "piece", carried))
            case _:
                block.unknown.append(fields)

    def _string(self, fields: dict[str, Any], name: str) -> str:
        value = fields.get(name)
        if value is None:
            return ""
        if type(value) is not str:
            raise self._broken(f"sent a {name} that is no text")
        return value

    def _broken(self, what: str) -> ProviderFailure:
        return ProviderFailure(f"{self._provider}: {what}", failure="transient", provider=self._provider, shape=True)


def _input(text: str) -> Any:
    """What the pieces of a block's `input` say."""
    if not text.strip():
        return {}
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return text
