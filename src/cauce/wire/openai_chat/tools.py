"""Tools of the chat wire and how a model must choose among them, to and from the domain. The native wire takes the same."""

from typing import Any, Literal

import msgspec

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.request import Request
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.wire.fields import check, rest
from cauce.wire.openai_chat import custom
from cauce.wire.openai_chat.extras import WIRE, fields, member, own


class FunctionBody(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(msgspec.Struct):
    function: FunctionBody
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct):
    name: str


class ToolChoiceBody(msgspec.Struct):
    function: NamedFunction
    type: Literal["function"] = "function"


class FunctionsBody(msgspec.Struct):
    """The old fields: functions, not wrapped in tools, and the choice among them."""

    functions: list[FunctionBody] = []
    function_call: str | NamedFunction | None = None


class AnswerStyle(msgspec.Struct, frozen=True):
    """How a client wants calls told: `functions`, in the old field; `custom`, the names of tools whose input is free text."""

    functions: bool = False
    custom: frozenset[str] = frozenset()


MODERN = AnswerStyle()

_FUNCTION_FIELDS = frozenset(FunctionBody.__struct_fields__)
_TOOL_FIELDS = frozenset({"type", "function"})
_LEGACY = "legacy"


def style_of(request: Request) -> AnswerStyle:
    """How the client of `request` wants calls told."""
    if not request.tools:
        return MODERN
    functions = [tool for tool in request.tools if isinstance(tool, Tool)]
    names = frozenset([tool.name for tool in functions if custom.is_custom(tool.extra)])
    return AnswerStyle(any([_LEGACY in own(tool.extra) for tool in functions]), names)


def parse_tools(bodies: list[ToolBody], raw: list[dict[str, Any]]) -> tuple[Tool, ...]:
    """Domain tools of checked `bodies`; `raw` is the JSON they were read from."""
    return tuple([_tool(body.function, raw[index]) for index, body in enumerate(bodies)])


def _tool(body: FunctionBody, raw: dict[str, Any]) -> Tool:
    unknown = rest(raw, _TOOL_FIELDS)
    if function := rest(raw["function"], _FUNCTION_FIELDS):
        unknown["function"] = function
    extra = Extra(WIRE, unknown) if unknown else None
    return Tool(body.name, body.description, body.parameters, body.strict, extra)


def parse_any_tools(tools: list[dict[str, Any]]) -> tuple[Tool | OpaqueTool, ...]:
    """Domain tools of what stands in `tools`, in its order: functions, custom tools, and tools only servers of this wire know.

    Raises `InvalidRequest` naming the field.
    """
    found: list[Tool | OpaqueTool] = []
    for index, raw in enumerate(tools):
        kind = raw.get("type", "function")
        if kind == "function" or not isinstance(kind, str):
            found.append(_tool(_checked(raw, index).function, raw))
        elif kind == "custom":
            if not isinstance(member(raw, "custom").get("name"), str):
                field = f"tools[{index}].custom.name"
                raise InvalidRequest(f"{field}: must be a string", field=field)
            found.append(custom.parse_tool(raw))
        else:
            found.append(OpaqueTool(WIRE, kind, raw))
    return tuple(found)


def _checked(raw: Any, index: int) -> ToolBody:
    try:
        return check(raw, ToolBody)
    except InvalidRequest as error:
        field = f"tools[{index}].{error.field}" if error.field else f"tools[{index}]"
        said = error.message.removeprefix(f"{error.field}: ")
        raise InvalidRequest(f"{field}: {said}", field=field) from error


def parse_functions(raw: dict[str, Any]) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """Domain tools and choice of the old fields `functions` and `function_call` in `raw`. Raises `InvalidRequest`."""
    body = check(raw, FunctionsBody)
    tools = tuple(
        [
            Tool(
                function.name, function.description, function.parameters, function.strict, Extra(WIRE, {_LEGACY: True})
            )
            for function in body.functions
        ]
    )
    called = body.function_call
    if called is None:
        return tools, None
    if isinstance(called, NamedFunction):
        return tools, ToolChoice("tool", called.name)
    if called not in ("auto", "none"):
        raise InvalidRequest("function_call: must be auto, none or an object with a name", field="function_call")
    return tools, ToolChoice(called)


def render_tool(tool: Tool | OpaqueTool) -> dict[str, Any]:
    """`tool` as the wire has it. Raises `Unsupported` for a tool of another wire."""
    if isinstance(tool, OpaqueTool):
        if tool.wire != WIRE:
            raise Unsupported(f"tools of type {tool.kind} cannot be used with this model: only its own maker runs them")
        return tool.data
    if custom.is_custom(tool.extra):
        return custom.render_tool(tool)
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    kept = fields(tool.extra)
    return {"type": "function", **kept, "function": {**function, **member(kept, "function")}}


def parse_tool_choice(choice: str | ToolChoiceBody) -> ToolChoice:
    """The domain's tool choice. Raises `InvalidRequest`."""
    if isinstance(choice, ToolChoiceBody):
        return ToolChoice("tool", choice.function.name)
    if choice not in ("auto", "none", "required"):
        raise InvalidRequest("tool_choice: must be auto, none, required or a function", field="tool_choice")
    return ToolChoice(choice)


def render_tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    """`choice` as the wire has it."""
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode
