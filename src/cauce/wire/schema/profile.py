"""What part of JSON Schema each kind of upstream takes, as data."""

from typing import Literal

import msgspec

_SHAPE = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "title", "description"}
)
_REFERENCES = frozenset({"$ref", "$defs"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_DATES = frozenset({"date-time", "date", "time"})
_STRICT_FORMATS = _DATES | {"duration", "email", "hostname", "ipv4", "ipv6", "uuid"}

Scalar = Literal["string", "number", "boolean", "null"]

_SCALARS: frozenset[Scalar] = frozenset({"string", "number", "boolean", "null"})

_BEYOND_REGULAR = r"\(\?<?[=!]|(?<!\\)\\[1-9]"
"""Look-around and back references."""

_ANCHORS_INSIDE = r"|(?<!\\)\\[bB]"


class Profile(msgspec.Struct, frozen=True):
    """What an upstream takes. What is not among `keywords` is left out, and told to the model in the description.

    `formats` are the string formats it knows (None: any), `pattern_without` is a regular expression of what its patterns may
    not hold, `anchored` patterns begin with `^` and end with `$`, `integer_bounds`: bounds hold for integers only.
    `closed`: every object must refuse further properties. `all_required`: every property must be required.
    `root_object`: the root must be an object. `inlined`: no references at all. `recursive`: references may form cycles.
    `nullable`: null is a keyword beside the type, and a type is one word. `literals` are the types of values an enum may list,
    `min_items` the values that `minItems` may have (None: any). `ordering`: the order of properties is told apart.
    """

    name: str
    keywords: frozenset[str]
    formats: frozenset[str] | None = None
    pattern_without: str | None = None
    anchored: bool = False
    integer_bounds: bool = False
    closed: bool = False
    all_required: bool = False
    root_object: bool = False
    inlined: bool = False
    recursive: bool = True
    nullable: bool = False
    literals: frozenset[Scalar] = _SCALARS
    min_items: frozenset[int] | None = None
    ordering: bool = False
    lenient: bool = False
    """It takes any schema as long as nobody asks it to be strict."""


OPENAI_STRICT = Profile(
    "openai_strict",
    _SHAPE | _REFERENCES | _BOUNDS | {"const", "pattern", "format", "multipleOf", "minItems", "maxItems"},
    formats=_STRICT_FORMATS,
    pattern_without=_BEYOND_REGULAR,
    closed=True,
    all_required=True,
    root_object=True,
    lenient=True,
)
"""OpenAI with `strict: true`. Source: OpenAI, "Structured model outputs", section "Supported schemas"."""

ANTHROPIC = Profile(
    "anthropic",
    _SHAPE | _REFERENCES | {"const", "default", "pattern", "format", "minItems"},
    formats=_STRICT_FORMATS | {"uri"},
    pattern_without=_BEYOND_REGULAR + _ANCHORS_INSIDE,
    closed=True,
    recursive=False,
    min_items=frozenset({0, 1}),
)
"""Source: Anthropic, "Structured outputs", section "JSON Schema limitations"."""

ANTHROPIC_TOOLS = msgspec.structs.replace(ANTHROPIC, name="anthropic_tools", lenient=True)
"""The same for tools, which need not be strict."""

GEMINI_JSON = Profile(
    "gemini_json",
    _SHAPE | _REFERENCES | {"format", "prefixItems", "minItems", "maxItems", "minimum", "maximum"},
    recursive=False,
    literals=frozenset({"string", "number"}),
    ordering=True,
)
"""Gemini's `responseJsonSchema` and `parametersJsonSchema`. Source: Google, "GenerationConfig" (`responseJsonSchema`).

Cycles are said to be unrolled there to a degree, and only outside required properties; we unroll them ourselves.
"""

GEMINI_RESTRICTED = Profile(
    "gemini_restricted",
    (_SHAPE - {"additionalProperties"})
    | {"nullable", "default", "format", "pattern", "minLength", "maxLength", "minItems", "maxItems"}
    | {"minProperties", "maxProperties", "minimum", "maximum"},
    formats=frozenset({"date-time"}),
    pattern_without=_BEYOND_REGULAR,
    inlined=True,
    recursive=False,
    nullable=True,
    literals=frozenset({"string"}),
    ordering=True,
)
"""Gemini's older `responseSchema` and `parameters`, a part of OpenAPI 3.0. Source: Google, "Schema"."""

GRAMMAR = Profile(
    "grammar",
    _SHAPE
    | _REFERENCES
    | _BOUNDS
    | {"const", "default", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems"},
    formats=_DATES | {"uuid"},
    pattern_without=_BEYOND_REGULAR + _ANCHORS_INSIDE,
    anchored=True,
    integer_bounds=True,
)
"""Local servers that turn a schema into a grammar. Source: llama.cpp, `grammars/README.md`, "JSON Schemas → GBNF"."""
