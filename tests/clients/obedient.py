"""A model that does as it is told: it calls the tools it is offered and fills the schemas it is given."""

import json
import re
from typing import Any

from cauce.testing.upstream import Ask, Reply
from tests.clients.views import view

_JOKE = json.dumps({"setup": "Why?", "punchline": "Because."})


def obey(ask: Ask) -> Reply:
    """What it answers: a tool call if a tool is offered and none was just used, an instance of a schema, or words."""
    if "mbed" in ask.path:
        return Reply()
    seen = view(ask.path, ask.body)
    prompt = seen.turns[-1][1] if seen.turns else ""
    if seen.schema is not None:
        return Reply(text=json.dumps(_instance(seen.schema, prompt)))
    if seen.tools and seen.last != "tool":
        name = seen.choice or next(iter(seen.tools))
        arguments = json.dumps(_instance(seen.tools[name] or {}, prompt), ensure_ascii=False)
        return Reply(text="", tool_calls=((name, arguments),))
    return Reply(text=_JOKE if "JSON" in prompt else "As you say.")


def _instance(schema: dict[str, Any], prompt: str) -> Any:
    """A value of the schema: what the prompt quotes, the number 3, every property."""
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return _instance(schema[several][0], prompt)
    kind = schema.get("type", "object")
    match kind[0].lower() if isinstance(kind, list) else kind.lower():
        case "string":
            quoted = re.search(r"'([^']+)'", prompt)
            return quoted[1] if quoted else "words"
        case "integer" | "number":
            return 3
        case "boolean":
            return True
        case "array":
            return [_instance(schema.get("items", {"type": "string"}), prompt)]
        case _:
            return {name: _instance(one, prompt) for name, one in schema.get("properties", {}).items()}
