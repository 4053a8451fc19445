"""The chunks of a message's parts: which are open, and what their next piece looks like."""

from typing import Any

import msgspec

from cauce.domain.delta import ToolCall
from cauce.domain.signature import Signature
from cauce.wire.signing import seal

WIRE = "ui_messages"
OWN = "cauce"
"""Under this name a part's metadata has what only we know of it: pages send it back unchanged."""

BROKEN_OFF = "the call was broken off before it was complete: it was not made"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def chunk(kind: str, **fields: Any) -> bytes:
    """One chunk, framed."""
    return b"data: %b\n\n" % _encode({"type": kind, **fields})


def value(text: str) -> Any:
    """The JSON value in `text`. Raises ValueError if it is none, or none that can be written again."""
    try:
        found = _decode(text)
        # A few levels deeper than it will stand.
        _encode([[[found]]])
    except (msgspec.MsgspecError, OverflowError, RecursionError) as error:
        raise ValueError("no JSON that can be written again") from error
    return found


def owned(**facts: Any) -> dict[str, Any]:
    """`facts` as the member that holds a part's metadata; none if there are none."""
    told = {name: fact for name, fact in facts.items() if fact}
    return {"providerMetadata": {OWN: told}} if told else {}


class _Call:
    """A tool call while its pieces come. `shown`: its part is open, which takes a name."""

    __slots__ = ("call_id", "name", "pieces", "shown", "signature")

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.shown = False
        self.signature: Signature | None = None


class Parts:
    """The parts of the step that is being written. One text or one reasoning is open at a time, and any number of calls."""

    def __init__(self) -> None:
        self._count = 0
        self._kind = ""
        self._id = ""
        self._metadata: dict[str, Any] = {}
        """What the end of the open part says about it."""
        self._calls: dict[int, _Call] = {}
        self._made: set[str] = set()
        """Calls that the reader has: only of these it takes a result."""
        self._over: set[str] = set()
        """Calls that have ended: what comes late for them adds nothing."""
        self._of_step: set[str] = set()
        """Calls of the step."""
        self.before_text = b""
        """The chunk of a piece of text up to its text; empty while no text is open."""

    def text(self, text: str, out: list[bytes], *, begins: bool = False, refusal: bool = False) -> None:
        """A piece of text, or of a refusal."""
        kind = "refusal" if refusal else "text"
        if begins or self._kind != kind:
            self.close(out)
            self._open("text", kind, out)
            self._metadata = owned(refusal=refusal)
            self.before_text = b"" if refusal else self._before("text-delta")
        if text:
            out.append(self._before("text-delta") + _encode(text) + b"}\n\n")

    def reasoning(self, text: str, signature: Signature | None, out: list[bytes], *, begins: bool = False) -> None:
        """A piece of reasoning, or what signs it."""
        if begins or self._kind != "reasoning":
            self.close(out)
            self._open("reasoning", "reasoning", out)
        if text:
            out.append(self._before("reasoning-delta") + _encode(text) + b"}\n\n")
        if signature is not None:
            self._metadata = owned(signature=seal(signature, WIRE))

    def call(self, delta: ToolCall, out: list[bytes]) -> None:
        """A piece of a tool call, or its end."""
        if delta.call_id in self._over:
            return
        call = self._calls.setdefault(delta.index, _Call())
        call.call_id = call.call_id or delta.call_id
        call.name = call.name or delta.name
        call.signature = call.signature or delta.signature
        if not call.shown and call.name and call.call_id and delta.mark != "abandoned":
            self.close(out)
            call.shown = True
            self._made.add(call.call_id)
            self._of_step.add(call.call_id)
            out.append(chunk("tool-input-start", toolCallId=call.call_id, toolName=call.name))
            if call.pieces:
                self._input(call, "".join(call.pieces), out)
        match delta.mark:
            case "piece" if delta.arguments:
                call.pieces.append(delta.arguments)
                if call.shown:
                    self._input(call, delta.arguments, out)
            case "ready":
                self._end(delta.index, out, delta.arguments)
            case "abandoned":
                self._end(delta.index, out, None)
            case "piece":
                pass

    def result(self, call_id: str, content: str, error: str | None, out: list[bytes]) -> None:
        """What a tool gave."""
        if call_id not in self._made:
            # A reader that has no such call takes this for a broken stream.
            return
        if error is not None:
            out.append(chunk("tool-output-error", toolCallId=call_id, errorText=error or content))
            return
        try:
            output = value(content)
        except ValueError:
            output = content
        out.append(chunk("tool-output-available", toolCallId=call_id, output=output))

    def close(self, out: list[bytes]) -> None:
        """End the open text or reasoning."""
        if self._kind:
            end = "reasoning-end" if self._kind == "reasoning" else "text-end"
            out.append(chunk(end, id=self._id, **self._metadata))
        self.drop()

    def close_reasoning(self, out: list[bytes]) -> None:
        """End the open reasoning: what comes is another's."""
        if self._kind == "reasoning":
            self.close(out)

    def close_all(self, out: list[bytes]) -> None:
        """End all that is open: a call whose arguments never came to their end was not made."""
        self.close(out)
        for index in list(self._calls):
            self._end(index, out, None)
        self._of_step.clear()

    def drop(self) -> None:
        """The open text or reasoning has ended, or is not there any more."""
        self._kind = self._id = ""
        self._metadata = {}
        self.before_text = b""

    def reset(self) -> None:
        """The reader has dropped all parts of the step."""
        self.drop()
        self._calls.clear()
        self._made -= self._of_step
        self._over -= self._of_step
        self._of_step.clear()

    def _open(self, part: str, kind: str, out: list[bytes]) -> None:
        self._count += 1
        self._kind = kind
        self._id = f"{part}-{self._count}"
        out.append(chunk(f"{part}-start", id=self._id))

    def _before(self, kind: str) -> bytes:
        return b'data: {"type":"%b","id":"%b","delta":' % (kind.encode(), self._id.encode())

    def _input(self, call: _Call, piece: str, out: list[bytes]) -> None:
        out.append(chunk("tool-input-delta", toolCallId=call.call_id, inputTextDelta=piece))

    def _end(self, index: int, out: list[bytes], arguments: str | None) -> None:
        """End a call: with its whole `arguments`, or broken off (None)."""
        call = self._calls.pop(index)
        self._over.add(call.call_id)
        if not call.shown:
            return
        named: dict[str, Any] = {"toolCallId": call.call_id, "toolName": call.name}
        if arguments is None:
            out.append(chunk("tool-input-error", **named, input=None, errorText=BROKEN_OFF))
            return
        told = owned(signature=seal(call.signature, WIRE)) if call.signature is not None else {}
        try:
            # A tool without parameters may be called with nothing at all.
            made = value(arguments.strip() or "{}")
        except ValueError:
            wrong = "the model wrote arguments that are not valid JSON"
            out.append(chunk("tool-input-error", **named, input=arguments, errorText=wrong, **told))
        else:
            out.append(chunk("tool-input-available", **named, input=made, **told))
