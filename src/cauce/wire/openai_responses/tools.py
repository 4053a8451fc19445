"""Tools and the choice among them, both ways.

A custom tool takes free text where a function takes JSON. In the domain it is a function with one string, `input`, so that
models on any wire can call it; its extra keeps what it was, and calls of it are shown as custom ones.
"""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.extra import Extra
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.wire.fields import check, rest
from cauce.wire.openai_responses.names import WIRE, own

INPUT = "input"
"""The one parameter of a custom tool."""

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()


class FunctionToolBody(msgspec.Struct):
    """A function tool. On this wire its fields stand beside the type."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomToolBody(msgspec.Struct):
    name: str
    description: str | None = None
    format: dict[str, Any] | None = None


_FUNCTION_FIELDS = frozenset({"type", *FunctionToolBody.__struct_fields__})


def parse_tools(raw: list[Any]) -> tuple[Tool | OpaqueTool, ...]:
    """Domain tools. Raises `InvalidRequest`."""
    return tuple([_parse_tool(tool, f"tools[{place}]") for place, tool in enumerate(raw)])


def _parse_tool(raw: Any, path: str) -> Tool | OpaqueTool:
    match raw:
        case {"type": "function"}:
            body = _checked(raw, FunctionToolBody, path)
            # The extra is there even when empty: without `strict` this wire means another thing than others do.
            return Tool(
                body.name, body.description, body.parameters, body.strict, Extra(WIRE, rest(raw, _FUNCTION_FIELDS))
            )
        case {"type": "custom"}:
            return _custom(_checked(raw, CustomToolBody, path), raw)
        case {"type": str(kind)}:
            return OpaqueTool(WIRE, kind, raw)
        case _:
            raise InvalidRequest(f"{path}.type: is required", field=f"{path}.type")


def _checked(raw: dict[str, Any], shape: type[Any], path: str) -> Any:
    try:
        return check({name: value for name, value in raw.items() if value is not None}, shape)
    except InvalidRequest as error:
        field = f"{path}.{error.field}" if error.field else path
        raise InvalidRequest(f"{path}.{error.message}", field=field) from error


def _custom(body: CustomToolBody, raw: dict[str, Any]) -> Tool:
    parameters = {
        "type": "object",
        "properties": {INPUT: {"type": "string", "description": _format(body.format)}},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return Tool(body.name, body.description, parameters, extra=Extra(WIRE, {"tool": raw}))


def _format(form: dict[str, Any] | None) -> str:
    """What a model that knows no grammars is told about the input."""
    if form is None or form.get("type") != "grammar":
        return "The tool's whole input, as free text."
    return (
        f"The tool's whole input, as free text that follows this {form.get('syntax', '')} grammar exactly:\n"
        f"{form.get('definition', '')}"
    )


def render_tool(tool: Tool | OpaqueTool) -> dict[str, Any]:
    """`tool`, of this wire or a function, as the wire has it."""
    if isinstance(tool, OpaqueTool):
        return tool.data
    fields = own(tool.extra)
    if "tool" in fields:
        return fields["tool"]
    if _is_custom(tool):
        return _custom_of_chat(tool)
    body: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        body["description"] = tool.description
    if tool.parameters is not None:
        body["parameters"] = tool.parameters
    if tool.strict is not None:
        body["strict"] = tool.strict
    if tool.extra is None or tool.extra.wire != WIRE:
        # Functions are strict here unless they say otherwise, and must say that they take nothing. Elsewhere they need not.
        body.setdefault("strict", False)
        body.setdefault("parameters", {"type": "object", "properties": {}})
    return {**body, **fields}


def _is_custom(tool: Tool) -> bool:
    """Whether `tool` is a custom one, of this wire or of chat's."""
    return tool.extra is not None and ("tool" in own(tool.extra) or "custom" in tool.extra.data)


def _custom_of_chat(tool: Tool) -> dict[str, Any]:
    """A custom tool of the chat wire, where a grammar stands one level deeper."""
    body: dict[str, Any] = {"type": "custom", "name": tool.name}
    if tool.description is not None:
        body["description"] = tool.description
    form = _member(_member(tool.extra.data if tool.extra is not None else {}, "custom"), "format")
    if grammar := _member(form, "grammar"):
        body["format"] = {"type": "grammar", **grammar}
    elif form:
        body["format"] = form
    return body


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    member = value.get(name)
    return cast(dict[str, Any], member) if isinstance(member, dict) else {}


def custom_names(tools: Sequence[Tool | OpaqueTool]) -> frozenset[str]:
    """The names of the custom tools among `tools`."""
    return frozenset([tool.name for tool in tools if isinstance(tool, Tool) and _is_custom(tool)])


def as_arguments(text: str) -> str:
    """The free text of a custom tool's call, as arguments of a function."""
    return _encode({INPUT: text}).decode()


def as_input(arguments: str) -> str:
    """The free text in the arguments of a custom tool's call. What is no such JSON is taken for the text itself."""
    try:
        match _decoder.decode(arguments):
            case {"input": str(text)}:
                return text
            case _:
                return arguments
    except (msgspec.MsgspecError, RecursionError):
        return arguments


def shown_tool(raw: dict[str, Any]) -> dict[str, Any]:
    """A tool of a request as its response repeats it: functions with all their fields."""
    if raw.get("type") != "function":
        return raw
    return {"description": None, "parameters": None, "strict": None, **raw}


def parse_choice(raw: str | dict[str, Any]) -> tuple[ToolChoice | None, Any]:
    """The domain's tool choice, and what it has no place for. Raises `InvalidRequest`."""
    match raw:
        case "auto" | "none" | "required":
            return ToolChoice(raw), None
        case {"type": "function" | "custom", "name": str(name)}:
            return ToolChoice("tool", name), None
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode}:
            return ToolChoice(mode), raw
        case {"type": "function" | "custom"}:
            raise InvalidRequest("tool_choice.name: is required", field="tool_choice.name")
        case {"type": str()}:
            return None, raw
        case _:
            raise InvalidRequest("tool_choice: must be auto, none, required or a tool", field="tool_choice")


def render_choice(choice: ToolChoice, custom: frozenset[str]) -> str | dict[str, Any]:
    """`choice` as the wire has it; `custom` are the names of custom tools."""
    if choice.mode != "tool":
        return choice.mode
    return {"type": "custom" if choice.name in custom else "function", "name": cast(str, choice.name)}
