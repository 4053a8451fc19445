"""Requests of the chat wire: what clients send us and what we send upstream."""

from typing import Annotated, Any, Literal, cast

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.extra import Extra
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, ResponseFormat, Sampling
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.wire.dropping import known_tools
from cauce.wire.fields import check, decode_object, rest
from cauce.wire.openai_chat import custom
from cauce.wire.openai_chat.extras import WIRE, member, own
from cauce.wire.openai_chat.messages import MessageBody, PlainMessage, parse_messages, render_messages
from cauce.wire.openai_chat.reasoning import ReasoningBody, parse_options, render_options
from cauce.wire.openai_chat.tools import (
    NamedFunction,
    ToolChoiceBody,
    parse_any_tools,
    parse_functions,
    parse_tool_choice,
    render_tool,
    render_tool_choice,
)
from cauce.wire.wishes import wishes

Positive = Annotated[int, msgspec.Meta(ge=1)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class JsonSchemaBody(msgspec.Struct):
    name: str
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormatBody(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaBody | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Scalars(msgspec.Struct, kw_only=True):
    """What of a request is one value each."""

    model: str = ""
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: int | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] = 1
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    stream: bool = False
    user: str | None = None


class ChatCompletionBody(_Scalars, kw_only=True):
    """Body of `POST /v1/chat/completions`. Fields not listed here are passed through to upstreams of the same wire."""

    messages: list[MessageBody]
    tools: list[dict[str, Any]] = []
    tool_choice: str | ToolChoiceBody | None = None
    functions: list[dict[str, Any]] = []
    function_call: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormatBody | None = None
    reasoning_effort: str | None = None
    reasoning: ReasoningBody | None = None
    stream_options: StreamOptions | None = None


class _PlainBody(_Scalars, kw_only=True, forbid_unknown_fields=True):
    """What nearly every request is: texts, and values that everybody knows."""

    messages: Annotated[list[PlainMessage], msgspec.Meta(min_length=1)]


_FIELDS = frozenset(ChatCompletionBody.__struct_fields__)
_REASONING = frozenset(ReasoningBody.__struct_fields__)
_OBJECTS = {
    "response_format": ("json_schema", frozenset(JsonSchemaBody.__struct_fields__)),
    "tool_choice": ("function", frozenset(NamedFunction.__struct_fields__)),
}
"""Objects in a request, the object inside each, and what is known of that."""

_NESTED = frozenset({*_OBJECTS, "stream_options", "reasoning", "logprobs"})
"""Members of a request that are objects, or mean several things."""

_TOOLS = b'"tools"'

_STREAM_OPTIONS = frozenset(StreamOptions.__struct_fields__)


_plain = msgspec.json.Decoder(_PlainBody)


def parse_request(body: bytes) -> Request:
    """The request in `body`. Raises `InvalidRequest` naming the field."""
    if _TOOLS in body:
        return _parsed(body)
    try:
        plain = _plain.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # There is more in it, or something is wrong with it.
        return _parsed(body)
    return Request(
        plain.model,
        tuple([Message(one.role, (TextPart(one.content),)) for one in plain.messages]),
        _sampling(plain),
        stream=plain.stream,
        user=plain.user,
    )


def _parsed(body: bytes) -> Request:
    """The same for any request."""
    raw = decode_object(body)
    unknown: dict[str, Any] = {}
    nested = not raw.keys().isdisjoint(_NESTED)
    choice = _foreign(raw, unknown) if nested else None
    chat = check(raw, ChatCompletionBody)
    unknown.update(rest(raw, _FIELDS))
    if nested:
        unknown.update(_unknown_inside(raw))
    task, privacy = wishes(unknown["metadata"]) if "metadata" in unknown else (None, None)
    tools: tuple[Tool | OpaqueTool, ...] = parse_any_tools(raw["tools"]) if chat.tools else ()
    if chat.tool_choice is not None:
        choice = parse_tool_choice(chat.tool_choice)
    parallel = chat.parallel_tool_calls
    if chat.functions and not tools:
        tools, choice = parse_functions(raw)
        # Clients of the old fields can be told one call only.
        parallel = False
    return Request(
        model=chat.model,
        messages=parse_messages(chat.messages, raw["messages"]),
        sampling=_sampling(chat),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=parse_response_format(chat.response_format) if chat.response_format is not None else None,
        reasoning=parse_options(chat.reasoning_effort, chat.reasoning),
        stream=chat.stream,
        include_usage=chat.stream_options is not None and bool(chat.stream_options.include_usage),
        user=chat.user,
        task=task,
        privacy=privacy,
        extra=Extra(WIRE, unknown) if unknown else None,
    )


def _unknown_inside(raw: dict[str, Any]) -> dict[str, Any]:
    """The objects of a request that hold members nobody here knows, with those."""
    unknown: dict[str, Any] = {}
    if "stream_options" in raw and (options := rest(member(raw, "stream_options"), _STREAM_OPTIONS)):
        unknown["stream_options"] = options
    for name, (inner, known) in _OBJECTS.items():
        if name in raw and (nested := _nested(raw[name], frozenset({"type", inner}), inner, known)):
            unknown[name] = nested
    if "reasoning" in raw and rest(member(raw, "reasoning"), _REASONING):
        unknown["reasoning"] = raw["reasoning"]
    return unknown


def _sampling(chat: _Scalars) -> Sampling:
    return Sampling(
        chat.temperature,
        chat.top_p,
        chat.top_k,
        chat.max_completion_tokens or chat.max_tokens,
        stop_sequences(chat.stop),
        chat.seed,
        chat.presence_penalty,
        chat.frequency_penalty,
        chat.n,
        (chat.top_logprobs or 0) if chat.logprobs else None,
    )


def _foreign(raw: dict[str, Any], taken: dict[str, Any]) -> ToolChoice | None:
    """Move to `taken` what only servers of this wire understand: kinds of choices, formats and reasoning that are not ours.

    Returns what of a choice other wires can be told.
    """
    choice = raw.get("tool_choice")
    told: ToolChoice | None = None
    if _kind(choice) == "custom" and isinstance(
        name := member(cast(dict[str, Any], choice), "custom").get("name"), str
    ):
        del raw["tool_choice"]
        told = ToolChoice("tool", name)
    elif _kind(choice) not in (None, "function"):
        taken["tool_choice"] = raw.pop("tool_choice")
        mode = member(cast(dict[str, Any], choice), "allowed_tools").get("mode")
        told = ToolChoice(mode) if mode in ("auto", "required") else None
    if _kind(raw.get("response_format")) not in (None, "text", "json_object", "json_schema"):
        taken["response_format"] = raw.pop("response_format")
    if type(raw.get("logprobs")) is int:
        # Servers of this wire that count alternatives here, as the completions wire does.
        taken["logprobs"] = raw.pop("logprobs")
    return told


def _kind(value: Any) -> str | None:
    """The `type` of a JSON object, where it is a string."""
    kind = cast(dict[str, Any], value).get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


def stop_sequences(stop: str | list[str] | None) -> tuple[str, ...]:
    """Stop sequences, one or many, as a tuple."""
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def parse_response_format(body: ResponseFormatBody) -> ResponseFormat:
    """The domain's response format. Raises `InvalidRequest`."""
    if body.type != "json_schema":
        return ResponseFormat(body.type)
    schema = body.json_schema
    if schema is None:
        raise InvalidRequest("response_format.json_schema: is required", field="response_format.json_schema")
    return ResponseFormat("json_schema", schema.name, schema.schema, schema.strict, schema.description)


def render_request(request: Request, model: str, *, stream: bool) -> dict[str, Any]:
    """The body that asks an upstream of this wire for `model`, with all that any of them understands; a dialect leaves out what
    one does not. Streams always ask for usage. Raises `Unsupported`.
    """
    body: dict[str, Any] = {"model": model, "messages": render_messages(request.messages)}
    lay_sampling(body, request.sampling)
    if request.sampling.logprobs is not None:
        body["logprobs"] = True
        if request.sampling.logprobs:
            body["top_logprobs"] = request.sampling.logprobs
    if request.tools:
        body["tools"] = [render_tool(tool) for tool in known_tools(request.tools, WIRE)]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request, request.tool_choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.response_format is not None:
        body["response_format"] = render_response_format(request.response_format)
    if request.reasoning is not None:
        body.update(render_options(request.reasoning))
    if request.user is not None:
        body["user"] = request.user
    if request.extra is not None:
        for name, value in own(request.extra).items():
            body[name] = _merged(body.get(name), value)
    options = body.pop("stream_options", {})
    if stream:
        body["stream"] = True
        body["stream_options"] = {**options, "include_usage": True}
    return body


def _merged(known: Any, unknown: Any) -> Any:
    """Both as one: unknown members of an object stand beside those that are known."""
    if not (isinstance(known, dict) and isinstance(unknown, dict)):
        return unknown
    whole = cast(dict[str, Any], known)
    return {**whole, **{name: _merged(whole.get(name), value) for name, value in cast(dict[str, Any], unknown).items()}}


def _nested(given: Any, known: frozenset[str], inner: str, known_inside: frozenset[str]) -> dict[str, Any]:
    """The unknown members of an object in a request, and of the one that is its member `inner`."""
    if not isinstance(given, dict):
        return {}
    whole = cast(dict[str, Any], given)
    unknown = rest(whole, known)
    if deeper := rest(member(whole, inner), known_inside):
        unknown[inner] = deeper
    return unknown


def lay_sampling(body: dict[str, Any], sampling: Sampling) -> None:
    """Put what the chat and the completions wire have in common into `body`."""
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.top_k is not None:
        body["top_k"] = sampling.top_k
    if sampling.max_tokens is not None:
        body["max_tokens"] = sampling.max_tokens
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.presence_penalty is not None:
        body["presence_penalty"] = sampling.presence_penalty
    if sampling.frequency_penalty is not None:
        body["frequency_penalty"] = sampling.frequency_penalty
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.n != 1:
        body["n"] = sampling.n


def _choice(request: Request, choice: ToolChoice) -> str | dict[str, Any]:
    named = [tool for tool in request.tools if isinstance(tool, Tool) and tool.name == choice.name]
    if choice.mode == "tool" and named and custom.is_custom(named[0].extra):
        return {"type": "custom", "custom": {"name": choice.name}}
    return render_tool_choice(choice)


def render_response_format(response_format: ResponseFormat) -> dict[str, Any]:
    """`response_format` as the wire has it."""
    if response_format.kind != "json_schema":
        return {"type": response_format.kind}
    schema: dict[str, Any] = {"name": response_format.name or "answer", "schema": response_format.schema or {}}
    if response_format.strict is not None:
        schema["strict"] = response_format.strict
    if response_format.description is not None:
        schema["description"] = response_format.description
    return {"type": "json_schema", "json_schema": schema}
