"""JSON Schemas made into grammars (GBNF, the notation of llama.cpp): what follows the grammar is JSON that follows the schema.

A grammar holds the shape: types, properties, items, lengths, alternatives, references. What it cannot hold (patterns,
most formats, bounds of numbers, `not`, `if`) is left to the model, and to whoever checks its answer. Where a schema allows
properties or items that it does not list, none are written.

llama-cpp-python has a converter of its own; what it makes lets control characters into strings, which is not JSON.
"""

import json
from collections.abc import Sequence
from typing import Any, cast

ANY_OBJECT: dict[str, Any] = {"type": "object"}

_MOST_REPEATS = 1000
"""llama.cpp refuses grammars that repeat much more often."""

_MOST_RULES = 5_000

_BASIC = r"""
space ::= | " " | "\n" [ \t]{0,20}
character ::= [^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u00" [01] [0-9a-f])
string ::= "\"" character* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer ("." [0-9]{1,15})?
boolean ::= "true" | "false"
null ::= "null"
object ::= "{" space (string ":" space value ("," space string ":" space value)*)? space "}"
array ::= "[" space (value ("," space value)*)? space "]"
value ::= object | array | string | number | boolean | null
date ::= [0-9]{4} "-" (month31 "-" (day | "30" | "31") | month30 "-" (day | "30") | "02-" day)
month31 ::= "0" [13578] | "1" [02]
month30 ::= "0" [469] | "11"
day ::= "0" [1-9] | [12] [0-9]
clock ::= ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]
time ::= clock ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [+-] clock)
uuid ::= [0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}
"""
_FORMATS = {"date": "date", "time": "time", "date-time": 'date "T" time', "uuid": "uuid"}
_CHOICES = ("$ref", "anyOf", "oneOf", "allOf", "enum", "const")

_STRUCTURE = frozenset({"properties", "items", "prefixItems", *_CHOICES})
_MEANT_FOR: dict[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
}
"""Keywords by the type they are meant for."""


class SchemaError(ValueError):
    """The schema cannot be made into a grammar."""


def grammar_of(schema: dict[str, Any]) -> str:
    """The grammar of `schema`. Raises `SchemaError`."""
    try:
        return _Grammar(schema).text()
    except RecursionError as error:
        raise SchemaError("it is nested too deeply") from error


class _Grammar:
    """Rules as they are made: one for each subschema that no basic rule fits. References share the rule they refer to."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._rules: list[str] = []
        self._named = 0
        self._referred: dict[str, str] = {}

    def text(self) -> str:
        root = self._any(self._schema)
        return "\n".join([f"root ::= {root}", *self._rules]) + _BASIC

    def _name(self) -> str:
        self._named += 1
        if self._named > _MOST_RULES:
            raise SchemaError("it is too large")
        return f"r{self._named}"

    def _rule(self, body: str, name: str | None = None) -> str:
        name = name or self._name()
        self._rules.append(f"{name} ::= {body}")
        return name

    def _any(self, schema: Any) -> str:
        """The name of the rule of `schema`."""
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise SchemaError(f"{json.dumps(schema)} is no schema that anything follows")
        known = cast(dict[str, Any], schema)
        for keyword in _CHOICES:
            if keyword in known:
                return self._choice(keyword, known)
        kind = _implied(known) if known.get("type") is None else known["type"]
        if isinstance(kind, list):
            return self._alternatives([self._any({**known, "type": each}) for each in cast(list[Any], kind)])
        match kind:
            case None:
                return "value"
            case "object":
                return self._object(known)
            case "array":
                return self._array(known)
            case "string":
                return self._string(known)
            case "number" | "integer" | "boolean" | "null":
                return str(kind)
            case _:
                raise SchemaError(f"{json.dumps(kind)} is no type")

    def _choice(self, keyword: str, schema: dict[str, Any]) -> str:
        """The rule of a schema that refers, or gives alternatives. What it asks for besides would have to hold at once."""
        if keyword in ("enum", "const"):
            # That the values fit what else is said is for whoever wrote the schema.
            values = _list(schema, "enum") if keyword == "enum" else [schema["const"]]
            return self._alternatives([_literal(value) for value in values])
        if beside := (schema.keys() & _STRUCTURE) - {keyword}:
            raise SchemaError(f"{keyword} beside {', '.join(sorted(beside))} is not supported: write them as one")
        if keyword == "$ref":
            return self._reference(schema["$ref"])
        alternatives = _list(schema, keyword)
        if keyword == "allOf" and len(alternatives) != 1:
            raise SchemaError("allOf of several schemas is not supported: write them as one")
        return self._alternatives([self._any(alternative) for alternative in alternatives])

    def _reference(self, reference: Any) -> str:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(f"the reference {json.dumps(reference)} leads to another document: write it out")
        known = self._referred.get(reference)
        if known is None:
            known = self._referred[reference] = self._name()
            self._rule(self._any(_resolve(self._schema, reference)), known)
        return known

    def _object(self, schema: dict[str, Any]) -> str:
        properties = schema.get("properties", {})
        required = _list(schema, "required")
        if not isinstance(properties, dict):
            raise SchemaError("properties must be an object")
        members = cast(dict[str, Any], properties)
        if missing := [name for name in required if name not in members]:
            raise SchemaError(f"the required property {json.dumps(missing[0])} is not among its properties")
        if members:
            return self._rule(f'"{{" space {self._members(members, required)} space "}}"')
        more = schema.get("additionalProperties", True)
        if more is False:
            return self._rule('"{" space "}"')
        member = f'string ":" space {self._any(more)}'
        return self._rule(f'"{{" space ({member} ("," space {member})*)? space "}}"')

    def _members(self, properties: dict[str, Any], required: Sequence[Any]) -> str:
        """Properties in their order. From the last one on: what may follow when one was written, and when none was."""
        following = beginning = '""'
        for name, schema in reversed(properties.items()):
            member = self._rule(f'{_literal(name)} ":" space {self._any(schema)}')
            first = f"{member} {following}"
            if name in required:
                beginning = self._rule(first)
                following = self._rule(f'"," space {first}')
            else:
                beginning = self._rule(f"{first} | {beginning}")
                following = self._rule(f'("," space {member})? {following}')
        return beginning

    def _array(self, schema: dict[str, Any]) -> str:
        least, most = self._lengths(schema, "minItems", "maxItems")
        if first := _list(schema, "prefixItems"):
            if not least <= len(first) <= (len(first) if most is None else most):
                raise SchemaError("with prefixItems, minItems and maxItems must allow just these items")
            items = ' "," space '.join([self._any(item) for item in first])
            return self._rule(f'"[" space {items} space "]"')
        item = self._any(schema.get("items", True))
        if most == 0:
            return self._rule('"[" space "]"')
        rest = f'{item} ("," space {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        return self._rule(f'"[" space {rest if least else f"({rest})?"} space "]"')

    def _string(self, schema: dict[str, Any]) -> str:
        if (known := _FORMATS.get(str(schema.get("format")))) is not None:
            return self._rule(f'"\\"" {known} "\\""')
        least, most = self._lengths(schema, "minLength", "maxLength")
        if (least, most) == (0, None):
            return "string"
        return self._rule(f'"\\"" character{{{least},{"" if most is None else most}}} "\\""')

    def _lengths(self, schema: dict[str, Any], least_name: str, most_name: str) -> tuple[int, int | None]:
        """How many there may be, at least and at most."""
        least, most = schema.get(least_name, 0), schema.get(most_name)
        if not isinstance(least, int) or not (most is None or isinstance(most, int)) or least < 0:
            raise SchemaError(f"{least_name} and {most_name} must be natural numbers")
        if most is not None and most < least:
            raise SchemaError(f"{most_name} is less than {least_name}")
        if least > _MOST_REPEATS:
            raise SchemaError(f"{least_name} may not be more than {_MOST_REPEATS}")
        return least, most if most is None or most <= _MOST_REPEATS else None

    def _alternatives(self, rules: Sequence[str]) -> str:
        if not rules:
            raise SchemaError("there is nothing to choose from")
        return self._rule(" | ".join(rules))


def _implied(schema: dict[str, Any]) -> str | None:
    """The type that keywords are meant for, where a schema names none."""
    for kind, keywords in _MEANT_FOR.items():
        if not schema.keys().isdisjoint(keywords):
            return kind
    return None


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword, [])
    if not isinstance(value, list):
        raise SchemaError(f"{keyword} must be a list")
    return cast(list[Any], value)


def _resolve(schema: Any, reference: str) -> Any:
    """What the JSON pointer in `reference` (RFC 6901) points to."""
    for token in reference[1:].split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdecimal() and int(name) < len(cast(list[Any], schema)):
            schema = cast(list[Any], schema)[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = cast(dict[str, Any], schema)[name]
        else:
            raise SchemaError(f"the reference {reference} leads nowhere")
    return schema


def _literal(value: Any) -> str:
    """`value` as JSON, as a grammar has it. JSON holds no control characters, so two escapes are enough."""
    text = json.dumps(value, ensure_ascii=False)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
