"""Reading JSON that strangers wrote: decoding, checking against a struct, and saying which field is wrong."""

import re
from typing import Any, TypeVar, cast

import msgspec

from cauce.domain.errors import InvalidRequest

T = TypeVar("T")

_decoder = msgspec.json.Decoder()
_NEVER_DEEP = 500
"""Lists and objects that, were each inside the one before, could still be written wherever that is needed."""

_ROOM = 200
"""Frames between where a request is read and where it is written, and more."""

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
        raise invalid(error) from error


def invalid(error: msgspec.ValidationError) -> InvalidRequest:
    """The error of a value that does not fit its struct, with the path of the field."""
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
    return InvalidRequest(f"{path}: {reason}", field=path)


def rest(raw: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The members of `raw` that are not `known` and not null."""
    if raw.keys() <= known:
        return {}
    return {key: value for key, value in raw.items() if key not in known and value is not None}
