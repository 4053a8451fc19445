"""Types that users bring, as JSON Schemas, and JSON read as values of them.

pydantic's models and adapters are known by their methods: it need not be installed. Everything else is msgspec's: structs,
dataclasses, typed dicts, named tuples, lists, unions, literals.
"""

import re
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast, runtime_checkable

import msgspec

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_NAME = re.compile(r"[^\w-]+", re.ASCII)
_LONGEST_NAME = 64


@runtime_checkable
class Model(Protocol[T_co]):
    """A class made with pydantic."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Its schema."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: str) -> T_co:
        """A value of it. Raises a `ValueError`."""
        ...


@runtime_checkable
class Adapter(Protocol[T_co]):
    """A `TypeAdapter` of pydantic."""

    def json_schema(self) -> dict[str, Any]:
        """Its schema."""
        ...

    def validate_json(self, data: str) -> T_co:
        """A value of it. Raises a `ValueError`."""
        ...


class Shape(msgspec.Struct, Generic[T], frozen=True):
    """`schema` has an object at its root, as some providers demand. `read` raises `ValueError` or `MsgspecError` for what is no value."""

    name: str
    schema: dict[str, Any]
    read: Callable[[str], T]


def shape(kind: type[T] | Adapter[T]) -> Shape[T]:
    """The shape of `kind`. Raises `TypeError` for what has no JSON Schema."""
    schema, read = _described(kind)
    name = _NAME.sub("_", getattr(kind, "__name__", "answer"))[:_LONGEST_NAME] or "answer"
    if _is_object(schema):
        return Shape(name, schema, read)

    def unwrapped(text: str) -> T:
        return read(bytes(_unwrap(text).value).decode())

    return Shape(name, _wrapped(schema), unwrapped)


def _described(kind: type[T] | Adapter[T]) -> tuple[dict[str, Any], Callable[[str], T]]:
    if isinstance(kind, type) and isinstance(kind, Model):
        model = cast(type[Model[T]], kind)
        return model.model_json_schema(), model.model_validate_json
    if not isinstance(kind, type) and hasattr(kind, "validate_json"):
        return kind.json_schema(), kind.validate_json
    try:
        return msgspec.json.schema(kind), msgspec.json.Decoder(cast(type[T], kind)).decode
    except TypeError as error:
        raise TypeError(
            f"{kind!r} has no JSON Schema; parse() takes pydantic models, msgspec structs, dataclasses, typed dicts "
            f"and what is made of them: {error}"
        ) from error


class _Wrapped(msgspec.Struct):
    value: msgspec.Raw


_unwrap = msgspec.json.Decoder(_Wrapped).decode


def _is_object(schema: dict[str, Any]) -> bool:
    """Whether the root is an object, itself or by reference."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        schema = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
    return schema.get("type") == "object"


def _wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    """An object whose `value` follows `schema`."""
    inside = {name: value for name, value in schema.items() if name != "$defs"}
    outside: dict[str, Any] = {
        "type": "object",
        "properties": {"value": inside},
        "required": ["value"],
        "additionalProperties": False,
    }
    return {**outside, "$defs": schema["$defs"]} if "$defs" in schema else outside
