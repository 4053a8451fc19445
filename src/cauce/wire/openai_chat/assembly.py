"""Tool calls of an answer, put together from their pieces."""

from typing import Any

import msgspec

from cauce.domain.delta import ToolCall
from cauce.domain.extra import Extra
from cauce.domain.signature import Signature
from cauce.wire.fields import rest
from cauce.wire.making import CallIds
from cauce.wire.openai_chat import custom
from cauce.wire.openai_chat.calls import take_signature
from cauce.wire.openai_chat.extras import WIRE, member

_CALL_FIELDS = frozenset({"index", "id", "type", "function"})
_FUNCTION_FIELDS = frozenset({"name", "arguments"})

_encode = msgspec.json.Encoder().encode


class OpenCall:
    """A call while its pieces come. `place` is its number among the calls of its choice."""

    __slots__ = ("arguments", "call_id", "customs", "extra", "given_id", "name", "place", "signature")

    def __init__(self, place: int, call_id: str, name: str, *, given_id: bool) -> None:
        self.place = place
        self.call_id = call_id
        self.given_id = given_id
        self.name = name
        self.arguments: list[str] = []
        self.customs: list[str] | None = None
        """The pieces of its input, if it calls a custom tool."""
        self.extra: Extra | None = None
        self.signature: Signature | None = None

    def ready(self, choice: int) -> ToolCall:
        """The delta that says all of it has come."""
        arguments, extra = "".join(self.arguments), self.extra
        if self.customs is not None:
            text = "".join(self.customs)
            arguments = custom.arguments_of(text)
            extra = Extra(WIRE, {**(extra.data if extra is not None else {}), "custom": text})
        return ToolCall(self.place, self.call_id, self.name, arguments, "ready", choice, extra, self.signature)


class Calls:
    """The calls of one answer."""

    __slots__ = ("_calls", "_current", "_ids", "_known")

    def __init__(self, ids: CallIds) -> None:
        self._ids = ids
        self._known = _CALL_FIELDS
        self._calls: dict[int, list[OpenCall]] = {}
        self._current: dict[tuple[int, int], OpenCall] = {}

    def whole(self) -> None:
        """Calls come whole, in a plain answer: an index there is no part of the wire, and is kept."""
        self._known = _CALL_FIELDS - {"index"}

    def piece(self, raw: dict[str, Any], choice: int, extra: Extra | None) -> tuple[OpenCall, ToolCall]:
        """The call that `raw` is a piece of, and the delta for it; `extra` are the unknown fields around it."""
        function = member(raw, "function")
        name = function.get("name")
        name = name if type(name) is str else ""
        if "custom" in raw and not function:
            return self._custom_piece(raw, choice, extra)
        call = self._call(raw, choice, name)
        if name and not call.name:
            call.name = name
        arguments = function.get("arguments")
        piece = arguments if type(arguments) is str else "" if arguments is None else _encode(arguments).decode()
        call.arguments.append(piece)
        signature: Signature | None = None
        if not (raw.keys() <= self._known and function.keys() <= _FUNCTION_FIELDS) or _foreign_type(raw):
            extra, signature = self._keep(call, raw, function, extra)
        return call, ToolCall(call.place, call.call_id, call.name, piece, "piece", choice, extra, signature)

    def ready(self, choice: int) -> list[ToolCall]:
        """What is left to say when all calls of `choice` have come: that each is whole."""
        deltas: list[ToolCall] = []
        for call in self._calls.get(choice, ()):
            if call.customs is not None:
                deltas.append(_piece(call, '"}', choice, Extra(WIRE, {"custom": ""})))
            deltas.append(call.ready(choice))
        return deltas

    def _custom_piece(self, raw: dict[str, Any], choice: int, extra: Extra | None) -> tuple[OpenCall, ToolCall]:
        """A piece of a custom tool's call, told as one of the function it is to others."""
        body = member(raw, "custom")
        name = body.get("name")
        call = self._call(raw, choice, name if type(name) is str else "")
        if type(name) is str and name and not call.name:
            call.name = name
        given = body.get("input")
        text = given if type(given) is str else ""
        opening = call.customs is None
        if call.customs is None:
            call.customs = []
        call.customs.append(text)
        piece = ('{"input":"' if opening else "") + custom.escaped(text)
        call.arguments.append(piece)
        own = {key: value for key, value in raw.items() if key not in _CALL_FIELDS and key != "custom"}
        data = {**(extra.data if extra is not None else {}), "custom": text, **({"call": own} if own else {})}
        return call, _piece(call, piece, choice, Extra(WIRE, data))

    def _call(self, raw: dict[str, Any], choice: int, name: str) -> OpenCall:
        """The call a piece belongs to: the one under its index, unless it brings another id."""
        calls = self._calls.get(choice)
        if calls is None:
            calls = self._calls[choice] = []
        call_id = raw.get("id")
        index = raw.get("index")
        if type(index) is not int:
            # Servers that leave the index out send one whole call per piece, or go on with the last one.
            index = len(calls) if call_id or not calls else len(calls) - 1
        known = self._current.get((choice, index))
        if known is None or (call_id and known.given_id and call_id != known.call_id):
            place = len(calls)
            known = OpenCall(place, str(call_id or self._ids.make("call")), name, given_id=bool(call_id))
            calls.append(known)
            self._current[(choice, index)] = known
        return known

    def _keep(
        self, call: OpenCall, raw: dict[str, Any], function: dict[str, Any], extra: Extra | None
    ) -> tuple[Extra | None, Signature | None]:
        """What only this wire knows of a piece: kept with the call, and returned with what else came around it."""
        own = rest(raw, self._known)
        if _foreign_type(raw):
            own["type"] = raw["type"]
        signature = take_signature(own)
        call.signature = signature or call.signature
        levels = (("call", own), ("function", rest(function, _FUNCTION_FIELDS)))
        kept = {level: fields for level, fields in levels if fields}
        if not kept:
            return extra, signature
        call.extra = Extra(WIRE, {**(call.extra.data if call.extra is not None else {}), **kept})
        return Extra(WIRE, {**(extra.data if extra is not None else {}), **kept}), signature


def _piece(call: OpenCall, arguments: str, choice: int, extra: Extra) -> ToolCall:
    return ToolCall(call.place, call.call_id, call.name, arguments, "piece", choice, extra)


def _foreign_type(raw: dict[str, Any]) -> bool:
    return raw.get("type") not in (None, "function")


def goes_on(choice: dict[str, Any]) -> bool:
    """Whether the one piece of a call in `choice` says nothing but its index and more of its arguments."""
    pieces = choice["delta"].get("tool_calls") if isinstance(choice.get("delta"), dict) else None
    if not pieces or len(pieces) != 1 or type(pieces[0].get("index")) is not int:
        return False
    return not pieces[0].get("id") and not member(pieces[0], "function").get("name")
