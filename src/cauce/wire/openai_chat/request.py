"""Requests of the chat wire: what clients send us and what we send upstream."""

from typing import Annotated, Any, Literal, cast

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.extra import Extra
from cauce.domain.request import ReasoningOptions, Request, ResponseFormat, Sampling
from cauce.wire.fields import check, decode_object, rest
from cauce.wire.openai_chat.messages import (
    WIRE,
    MessageBody,
    ToolBody,
    ToolChoiceBody,
    parse_messages,
    parse_tool_choice,
    parse_tools,
    render_message,
    render_tool,
    render_tool_choice,
)

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


class ChatCompletionBody(msgspec.Struct):
    """Body of `POST /v1/chat/completions`. Fields not listed here are passed through to upstreams of the same wire."""

    messages: list[MessageBody]
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
    tools: list[ToolBody] = []
    tool_choice: str | ToolChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormatBody | None = None
    reasoning_effort: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None


_FIELDS = frozenset(ChatCompletionBody.__struct_fields__)


def parse_request(body: bytes) -> Request:
    """The request in `body`. Raises `InvalidRequest` naming the field."""
    raw = decode_object(body)
    unknown = _foreign(raw)
    chat = check(raw, ChatCompletionBody)
    unknown.update(rest(raw, _FIELDS))
    return Request(
        model=chat.model,
        messages=parse_messages(chat.messages, raw["messages"]),
        sampling=Sampling(
            chat.temperature,
            chat.top_p,
            chat.top_k,
            chat.max_completion_tokens or chat.max_tokens,
            stop_sequences(chat.stop),
            chat.seed,
            chat.presence_penalty,
            chat.frequency_penalty,
            chat.n,
        ),
        tools=parse_tools(chat.tools, raw["tools"]) if chat.tools else (),
        tool_choice=parse_tool_choice(chat.tool_choice) if chat.tool_choice is not None else None,
        parallel_tool_calls=chat.parallel_tool_calls,
        response_format=parse_response_format(chat.response_format) if chat.response_format is not None else None,
        reasoning=ReasoningOptions(effort=chat.reasoning_effort) if chat.reasoning_effort else None,
        stream=chat.stream,
        include_usage=chat.stream_options is not None and bool(chat.stream_options.include_usage),
        user=chat.user,
        extra=Extra(WIRE, unknown) if unknown else None,
    )


def _foreign(raw: dict[str, Any]) -> dict[str, Any]:
    """Take out of `raw` what only servers of this wire understand: kinds of tools, choices and formats that are not ours."""
    taken: dict[str, Any] = {}
    tools: Any = raw.get("tools")
    if isinstance(tools, list) and any([_kind(tool) not in (None, "function") for tool in cast(list[Any], tools)]):
        taken["tools"] = raw.pop("tools")
    if _kind(raw.get("tool_choice")) not in (None, "function"):
        taken["tool_choice"] = raw.pop("tool_choice")
    if _kind(raw.get("response_format")) not in (None, "text", "json_object", "json_schema"):
        taken["response_format"] = raw.pop("response_format")
    return taken


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
    """The body that asks an upstream of this wire for `model`. Streams always ask for usage."""
    sampling = request.sampling
    body: dict[str, Any] = {"model": model, "messages": [render_message(message) for message in request.messages]}
    for name in ("temperature", "top_p", "top_k", "max_tokens", "seed", "presence_penalty", "frequency_penalty"):
        value = getattr(sampling, name)
        if value is not None:
            body[name] = value
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.n != 1:
        body["n"] = sampling.n
    if request.tools:
        body["tools"] = [render_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = render_tool_choice(request.tool_choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.response_format is not None:
        body["response_format"] = render_response_format(request.response_format)
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if request.user is not None:
        body["user"] = request.user
    if request.extra is not None and request.extra.wire == WIRE:
        body.update(request.extra.data)
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


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
