"""The events of content blocks: which are open, under which index, and what their next piece looks like."""

from typing import Any

import msgspec

from cauce.domain.delta import ToolCall
from cauce.domain.extra import Extra
from cauce.wire.anthropic_messages.blocks import own, sealed_call

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def event(kind: str, **fields: Any) -> bytes:
    """One event, framed."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields}))


class _Call:
    """A tool call while its pieces come. `index` is None until its block is open, which takes a name."""

    __slots__ = ("index", "pieces")

    def __init__(self) -> None:
        self.index: int | None = None
        self.pieces: list[str] = []

    @property
    def complete(self) -> bool:
        """Whether the pieces make a whole."""
        try:
            _decoder.decode("".join(self.pieces))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return False
        return True


class Blocks:
    """Which blocks of an answer are open. One at a time, but for tool calls whose pieces an upstream mixes."""

    def __init__(self) -> None:
        self._last = -1
        self._open = -1
        self._kind = ""
        self._calls: dict[int, _Call] = {}
        self._ended: set[int] = set()
        """Tool calls whose block has ended: what comes late for them adds nothing."""
        self.before_text = b""
        """The event of a piece of text up to its text; empty while no text block is open."""

    def text(self, text: str, fields: dict[str, Any], out: list[bytes], *, begins: bool = False) -> None:
        """A piece of text."""
        if begins or self._kind != "text":
            self._start({"type": "text", "text": "", **fields}, out)
            self.before_text = (
                b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
                b'{"type":"text_delta","text":' % self._open
            )
        if text:
            out.append(self.before_text + _encode(text) + b"}}\n\n")

    def citation(self, citation: dict[str, Any], out: list[bytes]) -> None:
        """A source of the text before it."""
        self.text("", {}, out)
        self._delta(self._open, {"type": "citations_delta", "citation": citation}, out)

    def thinking(
        self, text: str, signature: str | None, fields: dict[str, Any], out: list[bytes], *, begins: bool = False
    ) -> None:
        """A piece of reasoning, or what signs it."""
        if begins or self._kind != "thinking":
            self._start({"type": "thinking", "thinking": "", "signature": "", **fields}, out)
        if text:
            self._delta(self._open, {"type": "thinking_delta", "thinking": text}, out)
        if signature is not None:
            self._delta(self._open, {"type": "signature_delta", "signature": signature}, out)

    def call(self, delta: ToolCall, out: list[bytes]) -> None:
        """A piece of a tool call, or its end."""
        if delta.index in self._ended:
            return
        call = self._calls.setdefault(delta.index, _Call())
        if delta.mark == "piece" and delta.arguments:
            call.pieces.append(delta.arguments)
        if call.index is None:
            if not delta.name and delta.mark == "piece":
                return
            fields = {**own(delta.extra, "block"), **sealed_call(delta.signature)}
            block: dict[str, Any] = {"type": "tool_use", "id": delta.call_id, "name": delta.name, "input": {}, **fields}
            self._start(block, out)
            call.index = self._open
            self._input(call.index, "".join(call.pieces), out)
        elif delta.mark == "piece" and delta.arguments:
            self._input(call.index, delta.arguments, out)
        if delta.mark != "piece":
            self._end(delta.index, out)

    def whole(self, block: dict[str, Any], out: list[bytes], deltas: Any = ()) -> None:
        """A block that is known whole. What clients expect in pieces comes as one."""
        match block:
            case {"input": dict()}:
                self._start({**block, "input": {}}, out)
                self._input(self._open, _encode(block["input"]).decode(), out)
            case {"type": "compaction", "content": str()}:
                said = {name: block[name] for name in ("content", "encrypted_content") if name in block}
                self._start({**block, **dict.fromkeys(said)}, out)
                self._delta(self._open, {"type": "compaction_delta", **said}, out)
            case _:
                self._start(block, out)
        for delta in deltas:
            self._delta(self._open, delta, out)
        self._close(out)

    def unknown(self, extra: Extra | None, out: list[bytes]) -> None:
        """Pieces that only clients of this wire understand, as they came, for the block that is open."""
        deltas: Any = own(extra, "deltas")
        for delta in deltas:
            self._delta(self._last, delta, out)

    def close_all(self, out: list[bytes]) -> None:
        """End what is open, the answer being complete."""
        self._close(out)
        for number in list(self._calls):
            self._end(number, out)

    def _start(self, block: dict[str, Any], out: list[bytes]) -> None:
        """Open a block; the one before it ends, and so do the tool calls that are complete."""
        self._close(out)
        done = [number for number, call in self._calls.items() if call.index is not None and call.complete]
        for number in done:
            self._end(number, out)
        self._last += 1
        self._open = self._last
        self._kind = block["type"]
        out.append(event("content_block_start", index=self._open, content_block=block))
        if self._open == 0:
            out.append(_PING)

    def _close(self, out: list[bytes]) -> None:
        """End the open block, unless it is a tool call: those end by themselves."""
        self.before_text = b""
        if self._kind and self._kind != "tool_use":
            out.append(event("content_block_stop", index=self._open))
        self._kind = ""

    def _end(self, number: int, out: list[bytes]) -> None:
        """End a tool call."""
        self._ended.add(number)
        call = self._calls.pop(number)
        if call.index is not None:
            out.append(event("content_block_stop", index=call.index))
        if call.index == self._open and self._kind == "tool_use":
            self._kind = ""

    def _input(self, index: int, piece: str, out: list[bytes]) -> None:
        self._delta(index, {"type": "input_json_delta", "partial_json": piece}, out)

    def _delta(self, index: int, delta: dict[str, Any], out: list[bytes]) -> None:
        out.append(event("content_block_delta", index=index, delta=delta))
