"""Reading JSON that strangers wrote: decoding, checking against a struct, and saying which field is wrong."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

from cauce.domain.errors import InvalidRequest

T = TypeVar("T")

_decoder = msgspec.json.Decoder()
_NEVER_DEEP = 500
"""Lists and objects that, were each inside the one before, could still be written wherever that is needed."""

_ROOM = 200
"""Frames between where a request is read and where it is written, and more."""

_STEP = re.compile(r"\[[^]]*\]|[^.\[]+")
_WRONG_CHOICE = re.compile(r"Invalid enum value (.*)$")
_PATH = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`$")


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`, without the members that are null: null counts as absent. Raises `InvalidRequest`."""
    try:
        few = body.count(b"[") + body.count(b"{") <= _NEVER_DEEP
        value = _decoder.decode(body) if few else _decode_below(body, _ROOM)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    whole = cast(dict[str, Any], value)
    return {key: item for key, item in whole.items() if item is not None} if None in whole.values() else whole


def _decode_below(body: bytes, frames: int) -> Any:
    """The JSON in `body`, read so many frames further down: what is not too deep there is so nowhere it is written again."""
    return _decode_below(body, frames - 1) if frames else _decoder.decode(body)


def check(value: Any, shape: type[T], *, strict: bool = True) -> T:
    """`value` as `shape`; not `strict`: numbers may be text, as in proto JSON. Raises `InvalidRequest` naming the field."""
    try:
        return msgspec.convert(value, shape, strict=strict)
    except msgspec.ValidationError as error:
        raise _invalid(error, shape) from error


def _invalid(error: msgspec.ValidationError, shape: Any) -> InvalidRequest:
    """The error of a value that does not fit `shape`, with the path of the field."""
    text = str(error)
    match = _PATH.search(text)
    if match is None:
        missing = re.search(r"missing required field `([^`]+)`", text)
        field = missing.group(1) if missing else None
        return InvalidRequest(text if field is None else f"{field}: is required", field=field)
    path = match.group("path")
    reason = text[: match.start()]
    missing = re.search(r"missing required field `([^`]+)`", reason)
    if missing:
        path, reason = f"{path}.{missing.group(1)}", "is required"
    elif (wrong := _WRONG_CHOICE.match(reason)) and (choices := _choices(shape, path)):
        reason = f"must be one of {', '.join(choices)}, not {wrong.group(1)}"
    return InvalidRequest(f"{path}: {reason}", field=path)


def _choices(shape: Any, path: str) -> list[str]:
    """The values that stand at `path` of `shape`, where they are a few."""
    kinds = _alternatives([inspect.type_info(shape)])
    for step in _STEP.findall(path):
        kinds = _alternatives([inner for kind in kinds for inner in _below(kind, step)])
    return [str(value) for kind in kinds if isinstance(kind, inspect.LiteralType) for value in kind.values]


def _alternatives(kinds: Sequence[inspect.Type]) -> list[inspect.Type]:
    """`kinds`, with unions taken apart."""
    found: list[inspect.Type] = []
    for kind in kinds:
        match kind:
            case inspect.UnionType(types):
                found += _alternatives(types)
            case inspect.Metadata(inner):
                found += _alternatives([inner])
            case _:
                found.append(kind)
    return found


def _below(kind: inspect.Type, step: str) -> Sequence[inspect.Type]:
    """What stands one `step` of a path below `kind`: a member, or an item."""
    match kind:
        case inspect.StructType(fields=fields):
            return [field.type for field in fields if field.encode_name == step]
        case inspect.DictType(value_type=inner) | inspect.ListType(item_type=inner) | inspect.VarTupleType(inner):
            return [inner]
        case _:
            return []


def rest(raw: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The members of `raw` that are not `known` and not null."""
    if raw.keys() <= known:
        return {}
    return {key: value for key, value in raw.items() if key not in known and value is not None}
