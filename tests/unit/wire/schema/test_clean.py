"""Schemas cleaned for each kind of upstream."""

import copy
from typing import Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, Field

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.wire.schema import (
    ANTHROPIC,
    ANTHROPIC_TOOLS,
    GEMINI_JSON,
    GEMINI_RESTRICTED,
    GRAMMAR,
    OPENAI_STRICT,
    Profile,
    asked,
    clean,
)
from cauce.wire.schema.references import MAX_DEPTH

PROFILES = (OPENAI_STRICT, ANTHROPIC, GEMINI_JSON, GEMINI_RESTRICTED, GRAMMAR)
every_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)

STRING = {"type": "string"}
INTEGER = {"type": "integer"}


def thing(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """An object whose properties are all required, unless the test says which."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
    } | more


def closed(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return thing(properties, required, **more) | {"additionalProperties": False}


class Pet(BaseModel):
    name: str = Field(min_length=1, description="What it is called.")
    kind: Literal["cat", "dog"]
    weight: float | None = None


class Owner(BaseModel):
    age: int = Field(gt=17)
    pets: list[Pet]
    best: Pet = Field(description="The one that comes when called.")


NAME = {"title": "Name", "description": "What it is called.", "type": "string"}
KIND = {"title": "Kind", "type": "string", "enum": ["cat", "dog"]}
TOLD = NAME | {"description": "What it is called. (minLength: 1)"}
WEIGHT = {"title": "Weight", "anyOf": [{"type": "number"}, {"type": "null"}]}
PETS = {"title": "Pets", "type": "array", "items": {"$ref": "#/$defs/Pet"}}
BEST = {"anyOf": [{"$ref": "#/$defs/Pet"}], "description": "The one that comes when called."}
AGE = {"title": "Age", "type": "integer"}
FLAT = {"title": "Pet", "nullable": True}


def owner(age: dict[str, Any], pet: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"title": "Owner"} | thing({"age": AGE | age, "pets": PETS, "best": BEST}) | more | {"$defs": {"Pet": pet}}


def test_openai_strict_requires_and_closes_everything() -> None:
    cleaned = clean(Owner.model_json_schema(), OPENAI_STRICT)
    pet = {"title": "Pet"} | closed({"name": TOLD, "kind": KIND, "weight": WEIGHT})
    assert cleaned.schema == owner({"exclusiveMinimum": 17}, pet, additionalProperties=False)
    assert cleaned.lost == ("#Pet.name: minLength",)
    assert cleaned.faithful


def test_anthropic_takes_no_bounds() -> None:
    cleaned = clean(Owner.model_json_schema(), ANTHROPIC)
    pet = closed({"name": TOLD, "kind": KIND, "weight": WEIGHT | {"default": None}}, ["name", "kind"]) | {
        "title": "Pet"
    }
    assert cleaned.schema == owner({"description": "(exclusiveMinimum: 17)"}, pet, additionalProperties=False)
    assert cleaned.lost == ("$.age: exclusiveMinimum", "#Pet.name: minLength")
    assert cleaned.faithful


def test_gemini_is_told_the_order_and_inclusive_bounds() -> None:
    cleaned = clean(Owner.model_json_schema(), GEMINI_JSON)
    order = ["name", "kind", "weight"]
    pet = {"title": "Pet", "propertyOrdering": order} | thing({"name": TOLD, "kind": KIND, "weight": WEIGHT}, order[:2])
    assert cleaned.schema == owner({"minimum": 18}, pet, propertyOrdering=["age", "pets", "best"])
    assert cleaned.lost == ("#Pet.name: minLength",)


def test_geminis_older_schema_has_no_references_and_one_type_each() -> None:
    cleaned = clean(Owner.model_json_schema(), GEMINI_RESTRICTED)
    order = ["name", "kind", "weight"]
    weight = {"title": "Weight", "default": None, "type": "number", "nullable": True}
    properties = {"name": NAME | {"minLength": 1}, "kind": KIND, "weight": weight}
    pet = {"title": "Pet", "propertyOrdering": order} | thing(properties, order[:2])
    pets = {"title": "Pets", "type": "array", "items": pet}
    properties = {"age": AGE | {"minimum": 18}, "pets": pets, "best": pet | {"description": BEST["description"]}}
    assert cleaned.schema == {"title": "Owner", "propertyOrdering": ["age", "pets", "best"]} | thing(properties)
    assert cleaned.lost == ()


def test_grammar_of_a_local_server_keeps_what_it_can_hold_a_model_to() -> None:
    cleaned = clean(Owner.model_json_schema(), GRAMMAR)
    properties = {"name": NAME | {"minLength": 1}, "kind": KIND, "weight": WEIGHT | {"default": None}}
    pet = {"title": "Pet"} | thing(properties, ["name", "kind"])
    assert cleaned.schema == owner({"exclusiveMinimum": 17}, pet)
    assert cleaned.lost == ()


@pytest.mark.parametrize(
    ("profile", "schema", "expected", "notes"),
    [
        (OPENAI_STRICT, thing({"a": STRING}, []), closed({"a": {"type": ["string", "null"]}}, ["a"]), "$.a: null where it may be absent"),
        (OPENAI_STRICT, thing({"a": {"enum": ["x"]}}, []), closed({"a": {"anyOf": [{"type": "string", "enum": ["x"]}, {"type": "null"}]}}, ["a"]), "$.a: null where it may be absent"),
        (OPENAI_STRICT, thing({}, ["a"]), closed({"a": {"type": ["string", "number", "boolean", "null"]}}), "$.a: objects and arrays; $: additionalProperties"),
        (OPENAI_STRICT, thing({"a": {"type": "object", "additionalProperties": INTEGER}}), closed({"a": {"type": "object", "additionalProperties": False}}), "$.a: additionalProperties"),
        (OPENAI_STRICT, thing({"a": STRING | {"format": "iri"}}), closed({"a": STRING | {"description": '(format: "iri")'}}), "$.a: format"),
        (OPENAI_STRICT, thing({"a": STRING | {"pattern": "(?=a)"}}), closed({"a": STRING | {"description": '(pattern: "(?=a)")'}}), "$.a: pattern"),
        (OPENAI_STRICT, thing({"a": True}), closed({"a": {"type": ["string", "number", "boolean", "null"]}}), "$.a: objects and arrays"),
        (OPENAI_STRICT, thing({"a": STRING, "b": False}, ["a"]), closed({"a": STRING}), ""),
        (OPENAI_STRICT, thing({"a": {"oneOf": [STRING, INTEGER]}}), closed({"a": {"anyOf": [STRING, INTEGER]}}), ""),
        (OPENAI_STRICT, thing({"a": {"oneOf": [{"type": "number"}, INTEGER]}}), closed({"a": {"anyOf": [{"type": "number"}, INTEGER]}}), "$.a: oneOf"),
        (OPENAI_STRICT, {"allOf": [thing({"a": STRING}), thing({"b": INTEGER})]}, closed({"a": STRING, "b": INTEGER}), ""),
        (OPENAI_STRICT, thing({"a": {"allOf": [STRING, STRING | {"pattern": "x"}]}}), closed({"a": STRING | {"pattern": "x"}}), ""),
        (OPENAI_STRICT, thing({"a": {"not": STRING, "type": "integer"}}), closed({"a": INTEGER | {"description": '(not: {"type":"string"})'}}), "$.a: not"),
        (ANTHROPIC, thing({"a": {"type": "array", "items": STRING, "minItems": 3}}), closed({"a": {"type": "array", "items": STRING, "minItems": 1, "description": "(minItems: 3)"}}), "$.a: minItems"),
        (GEMINI_JSON, thing({"a": {"const": 7}}), thing({"a": {"enum": [7]}}), ""),
        (GEMINI_JSON, thing({"a": {"const": True}}), thing({"a": {"type": "boolean", "description": "(const: true)"}}), "$.a: const"),
        (GEMINI_JSON, {"type": "array", "items": [STRING, INTEGER], "additionalItems": False}, {"type": "array", "prefixItems": [STRING, INTEGER], "maxItems": 2}, ""),
        (GEMINI_RESTRICTED, {"type": ["string", "integer", "null"]}, {"nullable": True, "anyOf": [STRING, INTEGER]}, ""),
        (GEMINI_RESTRICTED, {"enum": ["a", None]}, {"type": "string", "enum": ["a"], "nullable": True}, ""),
        (GEMINI_RESTRICTED, {"enum": [1, 2]}, {"type": "number", "description": "(enum: [1,2])"}, "$: enum"),
        (GRAMMAR, STRING | {"pattern": "x"}, STRING | {"description": '(pattern: "x")'}, "$: pattern"),
        (GRAMMAR, STRING | {"pattern": "^x$"}, STRING | {"pattern": "^x$"}, ""),
        (GRAMMAR, {"type": "number", "minimum": 1}, {"type": "number", "description": "(minimum: 1)"}, "$: minimum"),
        (GRAMMAR, {"type": "object", "additionalProperties": INTEGER}, {"type": "object", "additionalProperties": INTEGER}, ""),
        (GRAMMAR, {"type": "string", "x-mine": 1, "$comment": "x", "examples": ["x"]}, STRING, ""),
    ],
)  # fmt: skip
def test_keyword_is_said_as_the_upstream_takes_it(
    profile: Profile, schema: dict[str, Any], expected: dict[str, Any], notes: str
) -> None:
    cleaned = clean(schema, profile)
    assert cleaned.schema == expected
    assert "; ".join([*cleaned.lost, *cleaned.nulled, *cleaned.narrowed]) == notes


def test_branches_of_a_closed_object_are_each_whole() -> None:
    schema = thing({"a": STRING, "b": STRING}, []) | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    cleaned = clean(schema, ANTHROPIC)
    both = {"a": STRING, "b": STRING}
    assert cleaned.schema == {"anyOf": [closed(both, ["a"]), closed(both, ["b"])]}


def test_property_that_one_of_several_schemas_refuses_is_left_out() -> None:
    several = {"allOf": [closed({"a": STRING}), thing({"b": INTEGER}, [])]}
    assert clean(several, ANTHROPIC).schema == closed({"a": STRING})
    numbers = {"allOf": [thing({"a": STRING}) | {"additionalProperties": INTEGER}, thing({"b": {"minimum": 1}}, [])]}
    both = {"type": "integer", "minimum": 1}
    assert clean(numbers, GRAMMAR).schema["properties"]["b"] == both


def test_root_reference_as_msgspec_writes_it_becomes_an_object() -> None:
    class Point(msgspec.Struct):
        x: int
        y: int

    cleaned = clean(msgspec.json.schema(Point), OPENAI_STRICT)
    assert cleaned.schema == {"title": "Point"} | closed({"x": INTEGER, "y": INTEGER})


NODE = thing({"value": INTEGER, "next": {"$ref": "#/$defs/Node"}}, ["value"])
LIST = thing({"head": {"$ref": "#/$defs/Node"}}, **{"$defs": {"Node": NODE}})


def test_cycle_stays_where_upstreams_take_it() -> None:
    schema = clean(LIST, GRAMMAR).schema
    assert schema == LIST


def test_cycle_is_cut_where_upstreams_take_none_and_that_is_told() -> None:
    cleaned = clean(LIST, GEMINI_JSON)
    order = {"propertyOrdering": ["value", "next"]}
    last = closed({"value": INTEGER})
    assert cleaned.schema == thing({"head": thing({"value": INTEGER, "next": thing({"value": INTEGER, "next": last}, ["value"]) | order}, ["value"]) | order})  # fmt: skip
    assert cleaned.narrowed == ("#Node: more than 2 inside each other", "#Node: additionalProperties")
    with pytest.raises(Unsupported, match="Node: more than 2"):
        asked(LIST, None, GEMINI_JSON)


def test_cycle_that_cannot_be_cut_is_unsupported() -> None:
    endless = {"$defs": {"Node": thing({"next": {"$ref": "#/$defs/Node"}})}, "$ref": "#/$defs/Node"}
    with pytest.raises(Unsupported):
        clean(endless, GEMINI_RESTRICTED)


def test_reference_to_the_root_and_by_anchor_are_followed() -> None:
    schema = thing(
        {"inner": {"$ref": "#"}, "named": {"$ref": "#it"}}, [], **{"$defs": {"X": STRING | {"$anchor": "it"}}}
    )
    cleaned = clean(schema, GRAMMAR).schema
    inside = thing({"inner": {"$ref": "#/$defs/root"}, "named": {"$ref": "#/$defs/X"}}, [])
    del inside["required"]
    assert cleaned == inside | {"$defs": {"X": STRING, "root": inside}}


def test_definitions_with_one_last_name_stay_apart() -> None:
    schema = thing(
        {"a": {"$ref": "#/$defs/X"}, "b": {"$ref": "#/definitions/X"}}, **{"$defs": {"X": STRING}, "definitions": {"X": INTEGER}}
    )  # fmt: skip
    cleaned = clean(schema, ANTHROPIC).schema
    references = [cleaned["properties"][name]["$ref"].removeprefix("#/$defs/") for name in "ab"]
    assert [cleaned["$defs"][name] for name in references] == [STRING, INTEGER]


def test_property_that_is_called_like_a_keyword_is_a_property() -> None:
    schema = thing({"default": {"$ref": "#/$defs/Node"}, "$ref": STRING, "enum": INTEGER}, **{"$defs": {"Node": NODE}})
    assert clean(schema, GRAMMAR).schema == schema


def test_upstream_with_a_lenient_way_is_asked_strictly_only_where_that_means_the_same() -> None:
    same, other = thing({"a": STRING}), thing({"a": STRING}, [])
    assert asked(same, True, OPENAI_STRICT) == (closed({"a": STRING}), True)
    assert asked(other, True, OPENAI_STRICT) == (other, False)
    assert asked(same, None, OPENAI_STRICT) == (same, None)
    assert asked(other, False, OPENAI_STRICT) == (other, False)
    assert asked(LIST, True, ANTHROPIC_TOOLS) == (LIST, False)


def test_upstream_without_one_is_asked_for_what_it_takes_or_not_at_all() -> None:
    assert asked(thing({"a": STRING}), None, ANTHROPIC) == (closed({"a": STRING}), None)
    with pytest.raises(Unsupported, match="additionalProperties") as caught:
        asked(thing({"a": {"type": "object"}}), True, ANTHROPIC)
    assert caught.value.field == "response_format.json_schema.schema"


def test_openai_needs_an_object_at_the_root() -> None:
    for schema in ({"type": "array", "items": STRING}, {"anyOf": [thing({"a": STRING})]}, {}):
        with pytest.raises(Unsupported, match="root must be an object"):
            clean(schema, OPENAI_STRICT)


@every_profile
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"},
        {"type": []},
        {"type": 5},
        {"properties": []},
        {"properties": {"a": 5}},
        {"required": "a"},
        {"required": [1]},
        {"enum": "ab"},
        {"anyOf": []},
        {"anyOf": {}},
        {"allOf": [5]},
        {"items": 5},
        {"minLength": "1", "type": "string"},
        {"pattern": 5, "type": "string"},
        {"format": [], "type": "string"},
        {"additionalProperties": 5, "type": "object"},
        {"$ref": "#/nowhere"},
        {"$ref": "#nowhere"},
        {"$ref": 5},
        {"$ref": "https://example.com/schema.json"},
        {"properties": {"a": {"$ref": "other.json#/x"}}},
        {"$defs": 5, "$ref": "#/$defs/a"},
        {"$defs": {"a": 5}, "$ref": "#/$defs/a"},
        {"$defs": []},
    ],
)
def test_what_is_no_schema_is_a_bad_request_that_names_the_field(profile: Profile, schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        clean(schema, profile, "tools[0].parameters")
    assert caught.value.field == "tools[0].parameters" and "tools[0].parameters" in caught.value.message


@every_profile
def test_client_schema_is_never_changed(profile: Profile) -> None:
    for schema in (Owner.model_json_schema(), LIST):
        before = copy.deepcopy(schema)
        clean(schema, profile)
        assert schema == before


@every_profile
def test_schema_that_is_too_deep_or_too_large_is_refused(profile: Profile) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(MAX_DEPTH):
        deep = {"type": "array", "items": deep}
    with pytest.raises(InvalidRequest, match="levels deep"):
        clean(deep, profile)
    with pytest.raises(InvalidRequest, match="values"):
        clean({"enum": list(range(30_000))}, profile)


def test_references_that_multiply_are_refused_before_they_fill_memory() -> None:
    definitions: dict[str, Any] = {"d0": STRING}
    for level in range(1, 30):
        below = {"$ref": f"#/$defs/d{level - 1}"}
        definitions[f"d{level}"] = thing({"left": below, "right": below})
    with pytest.raises(Unsupported, match="too large"):
        clean({"$ref": "#/$defs/d29", "$defs": definitions}, GEMINI_RESTRICTED)
    assert len(clean({"$ref": "#/$defs/d29", "$defs": definitions}, ANTHROPIC).schema["$defs"]) == 29


def test_chain_of_definitions_is_refused_when_it_is_too_long() -> None:
    chain: dict[str, Any] = {f"d{level}": {"$ref": f"#/$defs/d{level + 1}"} for level in range(2_000)} | {
        "d2000": STRING
    }
    for profile in PROFILES:
        with pytest.raises(Unsupported, match=r"too deeply|root must"):
            clean(thing({"a": {"$ref": "#/$defs/d0"}}, **{"$defs": chain}), profile)
