"""A raw table of the configuration made into settings; what does not fit is told in one sentence, with its place."""

import difflib
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from cauce.config.shape import ConfigError


def convert(value: Any, shape: Any, section: str, where: str) -> Any:
    """`value`, which stands under `section`, as `shape`. Raises `ConfigError`."""
    fields = getattr(shape, "__struct_fields__", None)
    if fields is not None and isinstance(value, dict):
        known_keys(cast(dict[str, Any], value), dict.fromkeys(fields), section, where)
    try:
        return msgspec.convert(value, shape, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(_told(value, shape, section, where, error)) from error


def known_keys(value: Mapping[str, object], known: Mapping[str, object], section: str, where: str) -> None:
    """Raises `ConfigError` for a key of `value` that is none of `known`."""
    for key in value:
        if key not in known:
            raise ConfigError(_unknown(key, known, section, where))


def _unknown(key: str, known: Mapping[str, object], section: str, where: str) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
    place = f"[{section}] has no key" if section else "there is no section"
    return f"{where}: {place} {key!r}; {hint}"


def _told(value: Any, shape: Any, place: str, where: str, error: msgspec.ValidationError) -> str:
    """What is wrong with `value` as `shape`, which `error` says, at the innermost place that has a name."""
    shape = _only(shape)
    fields = getattr(shape, "__struct_fields__", None)
    if isinstance(value, dict):
        table = cast(dict[str, Any], value)
        if fields is not None:
            unknown = next((key for key in table if key not in fields), None)
            if unknown is not None:
                return _unknown(unknown, dict.fromkeys(fields), place, where)
            hints = get_type_hints(shape, include_extras=True)
            inner = [(f"{place}.{key}", hints[key], one) for key, one in table.items()]
        elif get_origin(shape) is dict:
            inner = [(f'{place}."{key}"', get_args(shape)[1], one) for key, one in table.items()]
        else:
            inner = []
        for name, kind, one in inner:
            mistake = _mistake(one, kind)
            if mistake is not None:
                return _told(one, kind, name, where, mistake)
    elif fields is not None:
        return f"{where}: [{place}] must be a table"
    if get_origin(shape) is Literal and isinstance(value, str):
        return f"{where}: {place}: must be one of {', '.join(get_args(shape))}, not {value!r}"
    reason, _, path = str(error).partition(" - at `$")
    return f"{where}: {place}{path.rstrip('`')}: {reason[:1].lower()}{reason[1:]}"


def _only(shape: Any) -> Any:
    """What `shape` is where there is a value at all, without its bounds."""
    if get_origin(shape) in (Union, UnionType):
        kinds = [kind for kind in get_args(shape) if kind is not type(None)]
        shape = kinds[0] if len(kinds) == 1 else shape
    return get_args(shape)[0] if get_origin(shape) is Annotated else shape


def _mistake(value: Any, shape: Any) -> msgspec.ValidationError | None:
    try:
        msgspec.convert(value, shape, strict=False)
    except msgspec.ValidationError as error:
        return error
    return None
