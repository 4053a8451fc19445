"""The schemas in a body that is about to be sent, made into ones its server takes. The client's own are not changed.

A codec writes a schema as the client gave it; what a server takes of it is the server's matter, and so the adapter's.
"""

from typing import Any, cast

from cauce.wire.dropping import dropped
from cauce.wire.schema import ANTHROPIC, ANTHROPIC_TOOLS, GEMINI_JSON, Profile, asked

Body = dict[str, Any]


def fit_chat(body: Body, profile: Profile) -> None:
    """A body of Chat Completions. Changes `body`; raises `InvalidRequest` and `Unsupported`, as all here do."""
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and "json_schema" in wanted:
        form = cast(Body, wanted)
        body["response_format"] = {**form, "json_schema": _fitted(form["json_schema"], profile)}
    if "tools" in body:
        body["tools"] = [_function(tool, profile) for tool in body["tools"]]


def fit_responses(body: Body, profile: Profile) -> None:
    """A body of Responses. Changes `body`."""
    text = body.get("text")
    if isinstance(text, dict):
        form: Any = cast(Body, text).get("format")
        if isinstance(form, dict) and cast(Body, form).get("type") == "json_schema":
            body["text"] = {**cast(Body, text), "format": _fitted(cast(Body, form), profile)}
    if "tools" in body:
        body["tools"] = [_strict(tool, "parameters", profile, "openai_responses") for tool in body["tools"]]


def fit_messages(body: Body) -> None:
    """A body of Anthropic's Messages. Changes `body`."""
    config = body.get("output_config")
    if isinstance(config, dict):
        form: Any = cast(Body, config).get("format")
        if isinstance(form, dict) and cast(Body, form).get("type") == "json_schema":
            body["output_config"] = {**cast(Body, config), "format": _fitted(cast(Body, form), ANTHROPIC)}
    if "tools" in body:
        body["tools"] = [_strict(tool, "input_schema", ANTHROPIC_TOOLS, "anthropic_messages") for tool in body["tools"]]


def fit_generate(body: Body) -> None:
    """A body of Gemini's generateContent. Changes `body`. Parameters of functions are taken there as they are."""
    config = body.get("generationConfig")
    if isinstance(config, dict) and isinstance(schema := cast(Body, config).get("responseJsonSchema"), dict):
        fitted, _ = asked(cast(Body, schema), None, GEMINI_JSON)
        body["generationConfig"] = {**cast(Body, config), "responseJsonSchema": fitted}


def _function(tool: Body, profile: Profile) -> Body:
    """A tool of Chat Completions."""
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    return {**tool, "function": _strict(cast(Body, function), "parameters", profile, "openai_chat")}


def _fitted(form: Body, profile: Profile) -> Body:
    """A response format with a schema that `profile` takes."""
    schema, strict = asked(form.get("schema") or {}, form.get("strict"), profile)
    return {**form, "schema": schema} if strict is None else {**form, "schema": schema, "strict": strict}


def _strict(tool: Body, name: str, profile: Profile, wire: str) -> Body:
    """A tool with a schema that `profile` takes, where the tool is to be strict."""
    if tool.get("strict") is not True or not isinstance(tool.get(name), dict):
        return tool
    schema, strict = asked(tool[name], True, profile, f"the parameters of the tool {tool.get('name')!r}")
    if not strict:
        dropped(wire, "strict (of tools whose schema it cannot be strict about)")
    return {**tool, name: schema, "strict": strict}
