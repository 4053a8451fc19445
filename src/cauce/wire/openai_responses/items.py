"""Input items read into messages.

Items are a flat list; other wires want one message per turn of the assistant. So what the assistant said, thought and called
between two messages of others becomes one message, in order, and the parts' extras say where items begin.
"""

from typing import Any, cast

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.message import Message, OpaquePart, Part, ReasoningPart, Role, ToolCallPart
from cauce.domain.signature import Signature
from cauce.wire.fields import rest
from cauce.wire.openai_responses.content import parse_parts
from cauce.wire.openai_responses.names import WIRE, carried, is_made, own
from cauce.wire.openai_responses.tools import as_arguments
from cauce.wire.signing import unseal

_MESSAGE_FIELDS = frozenset({"type", "role", "content"})
_CALL_FIELDS = frozenset({"type", "call_id", "name", "arguments"})
_CUSTOM_CALL_FIELDS = frozenset({"call_id", "name", "input"})
_OUTPUT_FIELDS = frozenset({"type", "call_id", "output"})
_CUSTOM_OUTPUT_FIELDS = frozenset({"call_id", "output"})
_REASONING_FIELDS = frozenset({"type", "summary", "content", "encrypted_content"})
_ROLES: dict[str, Role] = {"user": "user", "system": "system", "developer": "developer"}


def parse_items(items: list[Any], before: int = 0) -> tuple[Message, ...]:
    """The messages `items` are. The first `before` of them are ours, from kept responses. Raises `InvalidRequest`."""
    reader = _Reader()
    for place, item in enumerate(items):
        reader.read(item, f"input[{place - before}]" if place >= before else "previous_response_id")
    return reader.messages()


class _Reader:
    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._parts: list[Part] = []
        """Of the assistant's turn that is being read."""

    def messages(self) -> tuple[Message, ...]:
        self._end_turn()
        return tuple(self._messages)

    def read(self, item: Any, path: str) -> None:
        match item:
            case {"type": "message"} | {"role": str()} if item.get("type", "message") == "message":
                self._message(item, path)
            case {"type": "function_call"}:
                arguments = _string(item, "arguments", path)
                self._parts.append(_call(item, path, arguments, rest(item, _CALL_FIELDS)))
            case {"type": "custom_tool_call"}:
                arguments = as_arguments(_string(item, "input", path))
                self._parts.append(_call(item, path, arguments, rest(item, _CUSTOM_CALL_FIELDS)))
            case {"type": "function_call_output"}:
                self._output(item, path, rest(item, _OUTPUT_FIELDS))
            case {"type": "custom_tool_call_output"}:
                self._output(item, path, rest(item, _CUSTOM_OUTPUT_FIELDS))
            case {"type": "reasoning"}:
                self._parts.append(_reasoning(item, path))
            case {"type": "item_reference"}:
                raise InvalidRequest(
                    f"{path}: items cannot be referred to by id here: send the item itself, or previous_response_id",
                    field=path,
                )
            case {"type": str()}:
                self._parts.append(OpaquePart(WIRE, {"item": item}))
            case {"id": str()}:
                raise InvalidRequest(
                    f"{path}: an id alone is a reference, which is not understood here: send the item itself",
                    field=path,
                )
            case _:
                raise InvalidRequest(f"{path}.type: is required", field=f"{path}.type")

    def _message(self, item: dict[str, Any], path: str) -> None:
        role: Any = item.get("role")
        parts = parse_parts(item.get("content"), f"{path}.content")
        fields = rest(item, _MESSAGE_FIELDS)
        if role == "assistant":
            # A message without parts says nothing.
            if parts:
                if fields or self._parts:
                    parts[0] = _beginning(parts[0], fields)
                self._parts.extend(parts)
            return
        if role not in _ROLES:
            raise InvalidRequest(f"{path}.role: must be user, assistant, system or developer", field=f"{path}.role")
        self._end_turn()
        self._messages.append(Message(_ROLES[role], tuple(parts), extra=carried({"item": fields} if fields else {})))

    def _output(self, item: dict[str, Any], path: str, fields: dict[str, Any]) -> None:
        call_id = _string(item, "call_id", path)
        parts = parse_parts(item.get("output"), f"{path}.output")
        extra = carried({"item": fields} if fields else {})
        self._end_turn()
        self._messages.append(Message("tool", tuple(parts), call_id=call_id, extra=extra))

    def _end_turn(self) -> None:
        if self._parts:
            self._messages.append(Message("assistant", _proven(self._parts)))
            self._parts = []


def _proven(parts: list[Part]) -> tuple[Part, ...]:
    """A turn's parts, with the signatures of calls, which were shown as reasoning, back on their calls."""
    called = {part.call_id for part in parts if isinstance(part, ToolCallPart)}
    proofs: dict[str | None, Signature] = {}
    kept: list[Part] = []
    for part in parts:
        signature = part.signature if isinstance(part, ReasoningPart) and not part.text else None
        if signature is not None and signature.wire != WIRE and signature.id in called:
            proofs[signature.id] = Signature(signature.wire, signature.data)
        else:
            kept.append(part)
    if not proofs:
        return tuple(parts)
    return tuple(
        [
            msgspec.structs.replace(part, signature=proofs[part.call_id])
            if isinstance(part, ToolCallPart) and part.call_id in proofs
            else part
            for part in kept
        ]
    )


def _beginning(part: Part, fields: dict[str, Any]) -> Part:
    """`part` as the first of an item with `fields`."""
    if isinstance(part, OpaquePart):
        return OpaquePart(WIRE, {**part.data, "of": fields})
    return msgspec.structs.replace(part, extra=carried({**own(part.extra), "item": fields}))


def _call(item: dict[str, Any], path: str, arguments: str, fields: dict[str, Any]) -> ToolCallPart:
    call_id, name = _string(item, "call_id", path), _string(item, "name", path)
    return ToolCallPart(call_id, name, arguments, carried({"item": fields} if fields else {}))


def _reasoning(item: dict[str, Any], path: str) -> ReasoningPart:
    texts: list[str] = []
    parts: list[list[Any]] = []
    offset = 0
    for member in ("summary", "content"):
        given: Any = item.get(member) or []
        if not isinstance(given, list):
            raise InvalidRequest(f"{path}.{member}: must be a list", field=f"{path}.{member}")
        for place, part in enumerate(cast(list[Any], given)):
            match part:
                case {"type": str(kind), "text": str(text)}:
                    parts.append([offset, kind])
                    texts.append(text)
                    offset += len(text)
                case _:
                    where = f"{path}.{member}[{place}]"
                    raise InvalidRequest(f"{where}: must have a type and a text", field=where)
    data: dict[str, Any] = {"item": rest(item, _REASONING_FIELDS)}
    if parts:
        data["parts"] = parts
    return ReasoningPart("".join(texts), signed(item), carried(data))


def signed(item: dict[str, Any]) -> Signature | None:
    """The signature of a reasoning item, if it has one."""
    encrypted = item.get("encrypted_content")
    if not isinstance(encrypted, str) or not encrypted:
        return None
    signature = unseal(encrypted, WIRE)
    identifier = item.get("id")
    if signature.wire != WIRE or not isinstance(identifier, str) or is_made(identifier):
        return signature
    return Signature(WIRE, signature.data, identifier)


def _string(item: dict[str, Any], name: str, path: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{path}.{name}: must be a string", field=f"{path}.{name}")
    return value
