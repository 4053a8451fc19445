"""Schemas on their way out: what each kind of server is sent."""

import copy
from typing import Any

import pytest

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.providers.openai_compatible.adaptation import adapt
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.providers.schemas import fit_chat, fit_generate, fit_messages, fit_responses
from cauce.wire.schema import GRAMMAR, OPENAI_STRICT

CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
OPEN = {"type": "object", "properties": {"a": {"type": "string", "minLength": 2}}, "required": ["a"]}
TOLD = {"type": "string", "description": "(minLength: 2)"}
SHUT = {"type": "object", "properties": {"a": TOLD}, "required": ["a"], "additionalProperties": False}
OPTIONAL = {"type": "object", "properties": {"a": {"type": "string"}}}
MAP = {"type": "object", "additionalProperties": {"type": "integer"}}


def chat(schema: Any, strict: bool | None = True) -> dict[str, Any]:
    described = {"name": "n", "schema": schema, **({} if strict is None else {"strict": strict})}
    function = {"name": "f", "parameters": schema, "strict": strict}
    return {
        "model": "m",
        "messages": [],
        "response_format": {"type": "json_schema", "json_schema": described},
        "tools": [{"type": "function", "function": function}, {"type": "custom", "custom": {"name": "c"}}],
    }


def sent(body: dict[str, Any]) -> tuple[Any, Any]:
    """The schema and its strictness; those of the tool must be the same."""
    described, function = body["response_format"]["json_schema"], body["tools"][0]["function"]
    assert (described["schema"], described["strict"]) == (function["parameters"], function["strict"])
    return described["schema"], described["strict"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [(CLOSED, (CLOSED, True)), (OPEN, (SHUT, True)), (OPTIONAL, (OPTIONAL, False)), (MAP, (MAP, False))],
)
def test_openai_is_asked_strictly_only_for_what_it_can_mean(schema: Any, expected: tuple[Any, bool]) -> None:
    body = chat(schema)
    before = copy.deepcopy(body)
    adapted = adapt(dict(body), DIALECTS["openai"])
    assert sent(adapted) == expected
    assert adapted["tools"][1] == before["tools"][1]
    assert body == before


@pytest.mark.parametrize("dialect", ["compatible", "vllm", "openrouter", "groq"])
def test_server_of_which_nothing_is_known_is_sent_the_clients_schema(dialect: str) -> None:
    assert sent(adapt(chat(OPEN), DIALECTS[dialect])) == (OPEN, True)


@pytest.mark.parametrize("dialect", ["ollama", "llamacpp"])
def test_grammar_of_a_local_server_has_no_pattern_that_would_break_it(dialect: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}
    body = adapt(chat(schema, None), DIALECTS[dialect])
    told = {"type": "object", "properties": {"a": {"type": "string", "description": '(pattern: "x")'}}}
    assert body["response_format"]["json_schema"]["schema"] == told


def test_responses_body_has_its_format_and_tools_flat() -> None:
    form = {"type": "json_schema", "name": "n", "schema": OPEN, "strict": True}
    tool = {"type": "function", "name": "f", "parameters": OPTIONAL, "strict": True}
    body: dict[str, Any] = {"text": {"verbosity": "low", "format": form}, "tools": [tool, {"type": "web_search"}]}
    fit_responses(body, OPENAI_STRICT)
    assert body["text"] == {"verbosity": "low", "format": form | {"schema": SHUT}}
    assert body["tools"] == [tool | {"strict": False}, {"type": "web_search"}]


def test_anthropic_is_sent_closed_objects_and_tools_as_strict_as_they_can_be() -> None:
    strict = {"name": "f", "input_schema": OPEN, "strict": True}
    free = {"name": "g", "input_schema": MAP}
    mapped = {"name": "h", "input_schema": MAP, "strict": True}
    config = {"effort": "low", "format": {"type": "json_schema", "schema": OPEN}}
    body: dict[str, Any] = {"output_config": config, "tools": [strict, free, mapped]}
    fit_messages(body)
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": SHUT}}
    assert body["tools"] == [strict | {"input_schema": SHUT}, free, mapped | {"strict": False}]


def test_gemini_is_told_the_order_and_nothing_else_is_changed() -> None:
    schema = {"type": "object", "properties": {"b": {"const": 1}, "a": {"type": "string"}}}
    body: dict[str, Any] = {"generationConfig": {"topK": 5, "responseJsonSchema": schema}, "tools": [MAP]}
    fit_generate(body)
    fitted = {
        "type": "object",
        "properties": {"b": {"enum": [1]}, "a": {"type": "string"}},
        "propertyOrdering": ["b", "a"],
    }
    assert body == {"generationConfig": {"topK": 5, "responseJsonSchema": fitted}, "tools": [MAP]}


def test_what_a_server_cannot_be_asked_for_is_unsupported_and_names_the_response_format() -> None:
    body = {"output_config": {"format": {"type": "json_schema", "schema": MAP}}}
    with pytest.raises(Unsupported) as caught:
        fit_messages(body)
    assert caught.value.field == "response_format.json_schema.schema"
    with pytest.raises(Unsupported, match="root must be an object"):
        fit_chat(chat({"type": "array"}, None), OPENAI_STRICT)


def test_schema_of_a_tool_that_is_none_names_the_tool() -> None:
    body = chat({"type": "object", "properties": 5}, True)
    del body["response_format"]
    with pytest.raises(InvalidRequest, match="the tool 'f'"):
        fit_chat(body, GRAMMAR)


@pytest.mark.parametrize(
    "body",
    [{}, {"text": 5, "output_config": 5, "generationConfig": 5, "response_format": {"type": "text"}, "tools": []}],
)
def test_body_without_schemas_is_left_as_it_is(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    fit_chat(body, OPENAI_STRICT)
    fit_responses(body, OPENAI_STRICT)
    fit_messages(body)
    fit_generate(body)
    assert body == before
