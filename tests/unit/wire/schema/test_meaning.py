"""What a cleaned schema allows, the client's schema allows too, unless the cleaning says otherwise."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.wire.schema import ANTHROPIC, GEMINI_JSON, GRAMMAR, OPENAI_STRICT, Profile, clean

PROFILES = (OPENAI_STRICT, ANTHROPIC, GEMINI_JSON, GRAMMAR)
"""Gemini's older schema is no JSON Schema: null is a keyword there."""

names = st.sampled_from(["a", "b", "c"])
scalars = st.sampled_from(["x", "yy", "", 0, 1, -3, 2.5, None, False])
leaves = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("string")}, optional={"minLength": st.integers(0, 2), "pattern": st.just("^x")}
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={"minimum": st.integers(-2, 2), "exclusiveMinimum": st.integers(-2, 2), "maximum": st.integers(0, 3)},
    ),
    st.builds(
        lambda kind: {"type": kind}, st.sampled_from(["boolean", "null", ["string", "null"], ["integer", "string"]])
    ),
    st.builds(lambda values: {"enum": values}, st.lists(scalars, min_size=1, max_size=3, unique_by=repr)),
    st.builds(lambda value: {"const": value}, scalars),
    st.just({"$ref": "#/$defs/D"}),
    st.just({"$ref": "#/$defs/E", "description": "beside"}),
    st.just({"$ref": "#/$defs/E", "required": ["b"]}),
    st.booleans(),
    st.just({}),
)


def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(names, inner, max_size=3)},
        optional={
            "required": st.lists(names, max_size=2, unique=True),
            "additionalProperties": st.one_of(st.booleans(), inner),
            "minProperties": st.integers(0, 2),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minItems": st.integers(0, 3),
            "maxItems": st.integers(0, 3),
        },
    )
    several = st.lists(inner, min_size=1, max_size=3)
    joined = st.one_of(
        several.map(lambda parts: {"anyOf": parts}),
        several.map(lambda parts: {"oneOf": parts}),
        several.map(lambda parts: {"allOf": parts}),
        st.builds(lambda base, parts: base | {"anyOf": parts}, objects, st.lists(objects, min_size=1, max_size=2)),
        st.builds(lambda base, parts: base | {"allOf": parts}, objects, st.lists(objects, min_size=1, max_size=2)),
    )
    return st.one_of(objects, arrays, joined)


subschemas = st.recursive(leaves, wider, max_leaves=6)
schemas = st.builds(
    lambda root, one, other: {
        **(root if isinstance(root, dict) else {"allOf": [root]}),
        "$defs": {"D": one, "E": other},
    },
    subschemas,
    subschemas,
    subschemas,
)


def instances(draw: st.DrawFn, schema: Any, definitions: dict[str, Any], depth: int = 0) -> Any:
    """A value that is likely to be an instance of a cleaned schema."""
    if depth > 6 or not isinstance(schema, dict) or not schema:
        return draw(scalars)
    if "$ref" in schema:
        return instances(draw, definitions[schema["$ref"].removeprefix("#/$defs/")], definitions, depth + 1)
    for choices in ("enum", "anyOf"):
        if choices in schema:
            chosen = draw(st.sampled_from(schema[choices]))
            return chosen if choices == "enum" else instances(draw, chosen, definitions, depth + 1)
    if "const" in schema:
        return schema["const"]
    kinds = schema.get("type", ["string", "number"])
    match draw(st.sampled_from(kinds)) if isinstance(kinds, list) else kinds:
        case "object":
            return an_object(draw, schema, definitions, depth)
        case "array":
            size = draw(st.integers(schema.get("minItems", 0), max(schema.get("minItems", 0), 2)))
            heads = schema.get("prefixItems", [])
            return [
                instances(draw, heads[place] if place < len(heads) else schema.get("items", {}), definitions, depth + 1)
                for place in range(size)
            ]
        case "string":
            return draw(st.sampled_from(["x", "xx", "", "y"]))
        case "integer" | "number":
            return draw(st.integers(-3, 4))
        case "boolean":
            return draw(st.booleans())
        case _:
            return None


def an_object(draw: st.DrawFn, schema: dict[str, Any], definitions: dict[str, Any], depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, inside in schema.get("properties", {}).items():
        if name in schema.get("required", []) or draw(st.booleans()):
            value[name] = instances(draw, inside, definitions, depth + 1)
    if draw(st.booleans()):
        value["c"] = instances(draw, schema.get("additionalProperties", {}), definitions, depth + 1)
    return value


drawn = st.composite(lambda draw, schema: instances(draw, schema, schema.get("$defs", {})))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(schema=schemas, data=st.data())
def test_instance_of_the_cleaned_schema_is_one_of_the_clients(
    profile: Profile, schema: dict[str, Any], data: Any
) -> None:
    try:
        cleaned = clean(schema, profile)
    except Unsupported:
        assume(False)
    ours = jsonschema_rs.Draft202012Validator(cleaned.schema, offline=True)
    value = data.draw(drawn(cleaned.schema))
    assume(ours.is_valid(value))
    event("kept" if not (cleaned.lost or cleaned.nulled) else "told")
    if not cleaned.lost and not cleaned.nulled:
        assert jsonschema_rs.Draft202012Validator(schema, offline=True).is_valid(value), (cleaned, value)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(schema=schemas)
def test_cleaned_schema_holds_only_what_the_profile_takes_and_stays_as_it_is_when_cleaned_again(
    profile: Profile, schema: dict[str, Any]
) -> None:
    try:
        cleaned = clean(schema, profile).schema
    except Unsupported:
        return
    for keyword in keywords(cleaned):
        assert keyword in profile.keywords | ({"propertyOrdering"} if profile.ordering else set())
    again = clean(cleaned, profile)
    assert again.schema == cleaned


def keywords(schema: Any) -> set[str]:
    found = set(schema) if isinstance(schema, dict) else set()
    if isinstance(schema, dict):
        inside = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
        inside += [*schema.get("anyOf", []), *schema.get("prefixItems", [])]
        inside += [schema[name] for name in ("items", "additionalProperties") if name in schema]
        found = found.union(*[keywords(one) for one in inside])
    return found


json = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from(["string", "object", "#/$defs/D", "#", "x"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "required",
                    "items",
                    "anyOf",
                    "allOf",
                    "oneOf",
                    "$ref",
                    "$defs",
                    "D",
                    "enum",
                    "const",
                    "additionalProperties",
                    "minItems",
                    "pattern",
                    "prefixItems",
                    "nullable",
                    "not",
                    "format",
                    "title",
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=15,
)


@pytest.mark.parametrize("profile", [*PROFILES], ids=lambda profile: profile.name)
@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(
    schema=st.dictionaries(
        st.sampled_from(["type", "properties", "anyOf", "allOf", "$ref", "$defs", "items", "enum"]), json
    )
)
def test_no_json_ends_in_anything_but_a_schema_or_a_typed_error(profile: Profile, schema: dict[str, Any]) -> None:
    try:
        clean(schema, profile)
    except (InvalidRequest, Unsupported):
        return
