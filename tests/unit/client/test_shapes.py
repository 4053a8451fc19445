"""Types as schemas, and JSON as their values."""

import dataclasses
import datetime
from typing import Any, Literal, NamedTuple, TypedDict

import jsonschema_rs
import msgspec
import pydantic
import pytest

from cauce.client.options import body
from cauce.client.shapes import shape
from cauce.domain.message import Message, TextPart
from cauce.domain.request import ResponseFormat
from cauce.domain.tool import Tool, ToolChoice


class Struct(msgspec.Struct):
    name: str
    legs: int = 4


class Model(pydantic.BaseModel):
    name: str
    legs: int = 4


@dataclasses.dataclass
class Data:
    name: str
    legs: int = 4


class Typed(TypedDict):
    name: str
    legs: int


class Named(NamedTuple):
    name: str
    legs: int = 4


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Struct, '{"name": "cat"}', Struct("cat")),
        (Model, '{"name": "cat"}', Model(name="cat")),
        (Data, '{"name": "cat", "legs": 3}', Data("cat", 3)),
        (Typed, '{"name": "cat", "legs": 4}', {"name": "cat", "legs": 4}),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Named, '{"value": ["cat", 4]}', Named("cat")),
        (list[Data], '{"value": [{"name": "cat"}]}', [Data("cat")]),
        (Struct | Literal["none"], '{"value": "none"}', "none"),
        (int, '{"value": 7}', 7),
        (datetime.date, '{"value": "2026-11-21"}', datetime.date(2026, 11, 21)),
        (pydantic.TypeAdapter(Model), '{"name": "cat"}', Model(name="cat")),
        (pydantic.TypeAdapter(list[Model]), '{"value": [{"name": "cat"}]}', [Model(name="cat")]),
    ],
)
def test_value_is_read_from_what_its_schema_allows(kind: Any, text: str, value: Any) -> None:
    wanted = shape(kind)
    assert jsonschema_rs.validator_for(wanted.schema, offline=True).is_valid(msgspec.json.decode(text))
    assert wanted.read(text) == value


@pytest.mark.parametrize("kind", [Struct, Model, Data, list[Struct], pydantic.TypeAdapter(list[Model])])
@pytest.mark.parametrize("text", ["", "no", "[]", '{"name": 5}', '{"value": 5}', '{"legs": 4}'])
def test_what_is_no_value_is_an_error_that_can_be_caught(kind: Any, text: str) -> None:
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        shape(kind).read(text)


def test_name_is_one_that_providers_take() -> None:
    class Größe(msgspec.Struct):
        cm: int

    assert shape(Größe).name == "Gr_e" or shape(Größe).name.isascii()
    assert shape(list[int]).name == "list"
    assert shape(pydantic.TypeAdapter(int)).name == "answer"


def test_type_without_a_schema_is_told() -> None:
    class Opaque:
        def __init__(self, secret: int) -> None:
            self.secret = secret

    with pytest.raises(TypeError, match="parse\\(\\) takes pydantic models"):
        shape(Opaque)


def test_body_is_written_from_values_and_from_dicts() -> None:
    tool = Tool("look", "Looks.", {"type": "object"})
    written = body(
        [Message("user", (TextPart("hi"),)), {"role": "user", "content": "there"}],
        {
            "model": "auto",
            "tools": [tool, {"type": "function", "function": {"name": "other"}}],
            "tool_choice": ToolChoice("tool", "look"),
            "response_format": ResponseFormat("json_object"),
            "stop": ("a", "b"),
            "temperature": None,
        },
    )
    assert [message["content"] for message in written["messages"]] == ["hi", "there"]
    assert [one["function"]["name"] for one in written["tools"]] == ["look", "other"]
    assert written["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert written["response_format"] == {"type": "json_object"}
    assert written["stop"] == ["a", "b"] and "temperature" not in written
    assert msgspec.json.encode(written)


def test_option_that_does_not_exist_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="no option 'temprature'"):
        body("hi", {"temprature": 1})
