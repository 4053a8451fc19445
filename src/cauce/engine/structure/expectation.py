"""What a client expects of an answer, and how one is held against it."""

from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.request import ResponseFormat
from cauce.engine.structure.effort import MOST, depth, effort
from cauce.engine.structure.finding import candidates

FIELD = "response_format.json_schema.schema"

MOST_LEVELS = 64
"""How deep an answer may be nested that is to be checked."""

_LIKELY_LEVELS = 16
_MOST_FAULTS = 5
_LONGEST_FAULT = 300


class Expectation:
    """A JSON object, or an instance of a schema. Raises `InvalidRequest` for what is no schema, or none that can be checked."""

    def __init__(self, wanted: ResponseFormat) -> None:
        self._schema = wanted.schema if wanted.kind == "json_schema" else None
        self._object = wanted.kind == "json_object"
        self._checker = None if self._schema is None else _checker(self._schema)

    def fault(self, text: str) -> str | None:
        """Why `text` is not what is expected, in words a model can act on; None: it is."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
            return f"it is not valid JSON: {error}" if text else "it is empty"
        if self._object and not isinstance(value, dict):
            return "it is not a JSON object"
        if self._checker is None or self._schema is None:
            return None
        levels = depth(value, MOST_LEVELS)
        if levels > MOST_LEVELS or effort(self._schema, levels) > MOST:
            return f"it is nested {levels} levels deep, too deep to be checked against the schema"
        faults = [_told(error) for error in islice(self._checker.iter_errors(value), _MOST_FAULTS)]
        return "; ".join(faults) or None

    def found(self, text: str) -> str | None:
        """The part of `text` that is what is expected; None: there is none."""
        for candidate in candidates(text):
            if self.fault(candidate) is None:
                return candidate
        return None


def _checker(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    try:
        # Offline: a reference in a client's schema must not make this server ask others, or read files.
        checker = jsonschema_rs.validator_for(schema, offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise InvalidRequest(f"{FIELD}: it is not a valid JSON Schema: {_first_line(error)}", field=FIELD) from error
    if effort(schema, _LIKELY_LEVELS) > MOST:
        raise InvalidRequest(
            f"{FIELD}: it is so large, or branches so much, that no answer could be checked", field=FIELD
        )
    return checker


def _told(error: jsonschema_rs.ValidationError) -> str:
    path = "".join([f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path])
    message = error.message
    if len(message) > _LONGEST_FAULT:
        message = f"{message[: _LONGEST_FAULT // 2]} … {message[-_LONGEST_FAULT // 2 :]}"
    return f"at ${path}: {message}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:_LONGEST_FAULT]
