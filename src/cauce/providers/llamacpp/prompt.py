"""Requests made into what the worker is asked. What it cannot do is refused here, in words."""

from typing import Any

import msgspec

from cauce.domain.errors import Unsupported
from cauce.domain.message import Message
from cauce.domain.request import Request
from cauce.domain.tool import Tool
from cauce.providers.llamacpp.grammar import ANY_OBJECT, SchemaError, grammar_of
from cauce.providers.llamacpp.protocol import Generate, ModelFile, Prompt
from cauce.wire.openai_chat.messages import render_message
from cauce.wire.openai_chat.tools import render_tool

_FOREIGN = ("tools", "tool_choice", "response_format")
"""Fields that a codec leaves in `extra` when it does not understand them: leaving them out would change the answer."""

_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "additionalProperties": False}


class Wish(msgspec.Struct, frozen=True):
    """What is generated. `tool`: the answer is the arguments of a call of that tool."""

    generate: Generate
    tool: str | None = None


def prompt_of(request: Request) -> Prompt:
    """The prompt of `request`. Raises `Unsupported`."""
    if request.prompt is not None:
        if request.prompt.suffix is not None:
            raise Unsupported("suffix: models run by llamacpp continue text, they do not fill gaps", field="suffix")
        return Prompt(text=request.prompt.text)
    messages = [_message(message, index) for index, message in enumerate(request.messages)]
    tool = _called(request)
    tools = [render_tool(each) for each in request.tools] if tool is not None else []
    return Prompt(messages, tools, _options(request))


def wish_of(request: Request, number: int, model: ModelFile) -> Wish:
    """What `request` asks of `model`. Raises `Unsupported`."""
    sampling = request.sampling
    if sampling.n > 1:
        raise Unsupported("n: models run by llamacpp write one answer at a time", field="n")
    if sampling.logprobs is not None:
        raise Unsupported("logprobs: models run by llamacpp do not give log probabilities", field="logprobs")
    if request.extra is not None:
        for name in _FOREIGN:
            if name in request.extra.data:
                raise Unsupported(f"{name}: is of a kind that models run by llamacpp do not know", field=name)
    tool = _called(request)
    grammar = _grammar(request, tool)
    return Wish(Generate(number, model, prompt_of(request), sampling, grammar), tool.name if tool is not None else None)


def _message(message: Message, index: int) -> dict[str, Any]:
    """`message` as chat templates know it: content is a string, and there is no role `developer`."""
    body = render_message(message)
    content: str | list[dict[str, Any]] | None = body["content"]
    if isinstance(content, list):
        if any([part.get("type") != "text" for part in content]):
            field = f"messages[{index}].content"
            raise Unsupported(f"{field}: models run by llamacpp read text only", field=field)
        content = "".join([part["text"] for part in content])
    body["content"] = content or body.get("refusal") or ""
    if body["role"] == "developer":
        body["role"] = "system"
    for call in body.get("tool_calls", ()):
        call["function"]["arguments"] = _arguments(call["function"]["arguments"])
    return body


def _arguments(text: str) -> Any:
    """Arguments as templates take them: as an object, where they are one."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return text


def _called(request: Request) -> Tool | None:
    """The tool that must be called. Whether to call one is not left to the model: it would say so in words of its own."""
    choice = request.tool_choice
    if not request.tools or (choice is not None and choice.mode == "none"):
        return None
    named = [tool for tool in request.tools if isinstance(tool, Tool)]
    if choice is not None and choice.mode == "tool":
        named = [tool for tool in named if tool.name == choice.name]
    elif choice is None or choice.mode != "required":
        named = []
    if len(named) != 1:
        raise Unsupported(
            "tools: models run by llamacpp call a tool only when tool_choice names it; "
            "a server such as llama-server lets the model choose",
            field="tools",
        )
    return named[0]


def _grammar(request: Request, tool: Tool | None) -> str | None:
    """What the answer must follow."""
    wanted = request.response_format
    if tool is not None:
        field, schema = "tools", tool.parameters or _NO_ARGUMENTS
    elif wanted is not None and wanted.kind != "text":
        field, schema = "response_format", wanted.schema or ANY_OBJECT
    else:
        return None
    try:
        return grammar_of(schema)
    except SchemaError as error:
        raise Unsupported(
            f"{field}: models run by llamacpp cannot follow this JSON schema: {error}", field=field
        ) from error


def _options(request: Request) -> dict[str, Any]:
    """Variables that the templates of reasoning models know; others do not look at them."""
    reasoning = request.reasoning
    if reasoning is None:
        return {}
    options: dict[str, Any] = {}
    if reasoning.enabled is not None or reasoning.effort == "none":
        options["enable_thinking"] = bool(reasoning.enabled) and reasoning.effort != "none"
    if reasoning.effort is not None:
        options["reasoning_effort"] = reasoning.effort
    return options
