"""Tools and the choice among them, to and from the domain."""

from typing import Any, cast

from cauce.domain.errors import InvalidRequest
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.wire.anthropic_messages.blocks import block_extra, own
from cauce.wire.anthropic_messages.usage import WIRE

_TOOL = frozenset({"type", "name", "description", "input_schema", "strict"})
_CHOICES = {"auto": ToolChoice("auto"), "any": ToolChoice("required"), "none": ToolChoice("none")}
_TYPES = {choice.mode: kind for kind, choice in _CHOICES.items()}


def parse_tools(raw: list[dict[str, Any]]) -> tuple[Tool | OpaqueTool, ...]:
    """Domain tools. Those that the API's servers run are opaque. Raises `InvalidRequest`."""
    return tuple([_tool(tool, f"tools[{index}]") for index, tool in enumerate(raw)])


def _tool(raw: dict[str, Any], path: str) -> Tool | OpaqueTool:
    match raw:
        case {"type": str(kind)} if kind != "custom":
            return OpaqueTool(WIRE, kind, raw)
        case {"name": str(name), "input_schema": dict()}:
            description, strict = raw.get("description"), raw.get("strict")
            return Tool(
                name,
                description if isinstance(description, str) else None,
                cast(dict[str, Any], raw["input_schema"]),
                strict if isinstance(strict, bool) else None,
                block_extra(raw, _TOOL),
            )
        case {"name": str()}:
            raise InvalidRequest(f"{path}.input_schema: must be an object", field=f"{path}.input_schema")
        case _:
            raise InvalidRequest(f"{path}.name: must be a string", field=f"{path}.name")


def render_tool(tool: Tool | OpaqueTool) -> dict[str, Any]:
    """`tool`, of this wire or a function, as it is sent upstream."""
    if isinstance(tool, OpaqueTool):
        return tool.data
    body: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        body["description"] = tool.description
    body["input_schema"] = _schema(tool.parameters)
    if tool.strict is not None:
        body["strict"] = tool.strict
    return {**body, **own(tool.extra, "block")}


def _schema(parameters: dict[str, Any] | None) -> dict[str, Any]:
    """The API insists on a schema of type object; other wires leave it out where there are no parameters."""
    if not parameters:
        return {"type": "object"}
    return parameters if "type" in parameters else {"type": "object", **parameters}


def parse_tool_choice(raw: dict[str, Any]) -> tuple[ToolChoice | None, bool | None]:
    """The choice, and whether calls may be parallel. Raises `InvalidRequest`."""
    kind = raw.get("type")
    alone = raw.get("disable_parallel_tool_use")
    parallel = not alone if isinstance(alone, bool) else None
    if kind == "tool":
        name = raw.get("name")
        if not isinstance(name, str):
            raise InvalidRequest("tool_choice.name: must be a string", field="tool_choice.name")
        return ToolChoice("tool", name), parallel
    if isinstance(kind, str) and kind in _CHOICES:
        return _CHOICES[kind], parallel
    raise InvalidRequest("tool_choice.type: must be auto, any, none or tool", field="tool_choice.type")


def render_tool_choice(choice: ToolChoice | None, parallel: bool | None) -> dict[str, Any] | None:
    """Both as one object; None where there is nothing to say."""
    if choice is None and parallel is None:
        return None
    if choice is not None and choice.mode == "tool":
        body: dict[str, Any] = {"type": "tool", "name": choice.name}
    else:
        body = {"type": _TYPES[choice.mode] if choice is not None else "auto"}
    if parallel is not None and body["type"] != "none":
        body["disable_parallel_tool_use"] = not parallel
    return body
