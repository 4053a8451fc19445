"""Function calls of an answer: whole ones, and ones that come in fragments (`partialArgs`, on Vertex)."""

import re
from itertools import pairwise
from typing import Any, cast

import msgspec

from cauce.domain.delta import Delta, Reasoning, ToolCall
from cauce.domain.extra import Extra
from cauce.domain.signature import Signature
from cauce.wire.gemini.functions import call_extra
from cauce.wire.gemini.names import WIRE, items, member, word
from cauce.wire.making import CallIds

_encode = msgspec.json.Encoder().encode

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
"""A step of a JSONPath (RFC 9535): a name, an index, or a name in quotes."""
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")
_MOST_ITEMS = 10_000

OF_CALL = Extra(WIRE, {"ofCall": True})
"""On reasoning whose signature is that of the call behind it, where clients of this wire find it."""


class _OpenCall:
    __slots__ = ("args", "call_id", "extra", "name", "place", "signature")

    def __init__(self, place: int, call_id: str, name: str, signature: Signature | None) -> None:
        self.place = place
        self.call_id = call_id
        self.name = name
        self.signature = signature
        self.args: dict[str, Any] = {}
        self.extra: Extra | None = None


class Calls:
    """Calls of one candidate, in the order they come."""

    def __init__(self, choice: int, ids: CallIds) -> None:
        self._choice = choice
        self._ids = ids
        self._made = 0
        self._open: _OpenCall | None = None

    def __bool__(self) -> bool:
        return self._made > 0

    def add(self, part: dict[str, Any], deltas: list[Delta]) -> int:
        """Take a part with a call or a fragment of one; returns the characters of the arguments it made whole."""
        raw = member(part, "functionCall")
        name = word(raw.get("name"))
        signed = part.get("thoughtSignature")
        signature = Signature(WIRE, signed) if isinstance(signed, str) and signed else None
        characters = 0
        if name:
            characters = self.close(deltas)
            if signature is not None:
                # Clients of other wires hand reasoning back, and have no place for a signature on a call.
                deltas.append(Reasoning("", signature, self._choice, OF_CALL))
            self._open = self._start(part, name, signature)
        call = self._open
        if call is None:
            return characters
        call.args.update(member(raw, "args"))
        for fragment in items(raw.get("partialArgs")):
            _lay(call.args, fragment)
        if not raw.get("willContinue"):
            characters += self.close(deltas)
        return characters

    def close(self, deltas: list[Delta]) -> int:
        """End the call that is open, if one is: the fragment that closes it may never come."""
        call, self._open = self._open, None
        if call is None:
            return 0
        arguments = _encode(call.args).decode()
        whole = ToolCall(
            call.place, call.call_id, call.name, arguments, "piece", self._choice, signature=call.signature
        )
        deltas += [whole, msgspec.structs.replace(whole, mark="ready", extra=call.extra)]
        return len(arguments)

    def _start(self, part: dict[str, Any], name: str, signature: Signature | None) -> _OpenCall:
        raw = member(part, "functionCall")
        given = raw.get("id")
        # Clients of this wire are shown no id where the model gave none; those of others need one that no other turn has.
        call_id = given if isinstance(given, str) and given else self._ids.make("call")
        call = _OpenCall(self._made, call_id, name, signature)
        call.extra = call_extra(part)
        self._made += 1
        return call


def _lay(args: dict[str, Any], fragment: dict[str, Any]) -> None:
    """Put a fragment where its path (`$.recipe.steps[0].name`) says; texts that go on are joined."""
    steps = [_step(match) for match in _STEP.finditer(word(fragment.get("jsonPath"))[1:])]
    kind = next((name for name in _VALUES if name in fragment), None)
    if not steps or kind is None:
        return
    target: Any = args
    for step, following in pairwise(steps):
        target = _member(target, step, [] if isinstance(following, int) else {})
        if target is None:
            return
    value = None if kind == "nullValue" else fragment[kind]
    last = steps[-1]
    there = _member(target, last, None)
    joined = there + value if isinstance(there, str) and isinstance(value, str) else value
    if isinstance(target, dict) and isinstance(last, str):
        cast(dict[str, Any], target)[last] = joined
    elif isinstance(target, list) and isinstance(last, int) and last < len(cast(list[Any], target)):
        cast(list[Any], target)[last] = joined


def _step(match: re.Match[str]) -> str | int:
    if match[2] is not None:
        # More digits than an index can have fit no list either.
        return int(match[2][:9])
    quoted = match[3] if match[3] is not None else match[4]
    return match[1] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)


def _member(target: Any, step: str | int, missing: Any) -> Any:
    """What `target` has at `step`, with `missing` put there if it has nothing; None where the path does not fit."""
    if isinstance(target, dict) and isinstance(step, str):
        known = cast(dict[str, Any], target)
        return known.setdefault(step, missing) if missing is not None else known.get(step)
    if isinstance(target, list) and isinstance(step, int) and step < _MOST_ITEMS:
        listed = cast(list[Any], target)
        while len(listed) <= step:
            listed.append(None)
        if listed[step] is None and missing is not None:
            listed[step] = missing
        return listed[step]
    return None
