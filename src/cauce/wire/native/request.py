"""What clients of the native wire send: read by the server, written by clients."""

import re
from typing import Annotated, Any

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.request import ReasoningOptions, Request, Sampling
from cauce.wire.fields import check, decode_object
from cauce.wire.openai_chat.messages import MessageBody, parse_messages, render_message
from cauce.wire.openai_chat.request import (
    Positive,
    ResponseFormatBody,
    Share,
    Temperature,
    parse_response_format,
    render_response_format,
    stop_sequences,
)
from cauce.wire.openai_chat.tools import (
    ToolBody,
    ToolChoiceBody,
    parse_tool_choice,
    parse_tools,
    render_tool,
    render_tool_choice,
)

SHORTEST = 0.1
"""Seconds that a request must give itself at least."""

LONGEST = 86_400
"""Seconds that it may."""

_ID = r"[^\x00-\x20/\x7f]{1,200}"
_is_id = re.compile(_ID).fullmatch
ConversationId = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^({_ID})?$"})]
"""A name that can stand in an address: see `conversation_id`."""

_PLAIN = ("model", "stream", "conversation_id", "user", "task", "timeout")
_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "seed")


class MessageRequestBody(msgspec.Struct):
    """Body of `POST /llm/message` and `POST /chat/stream/{id}`.

    Without `model` the default answers. `fallbacks` are further models to try for this call, `timeout` its bound in seconds.
    """

    messages: list[MessageBody]
    model: str = ""
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: int | None = None
    max_tokens: Positive | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    stream: bool = False
    conversation_id: ConversationId | None = None
    user: str | None = None
    response_format: ResponseFormatBody | None = None
    reasoning_effort: str | None = None
    tools: list[ToolBody] = []
    tool_choice: str | ToolChoiceBody | None = None
    task: str | None = None
    fallbacks: list[str] = []
    timeout: Annotated[float, msgspec.Meta(ge=SHORTEST, le=LONGEST)] | None = None
    metadata: dict[str, Any] | None = None


def parse_request(body: bytes) -> Request:
    """The request in `body`. Unknown fields are ignored. Raises `InvalidRequest` naming the field."""
    raw = decode_object(body)
    message = check(raw, MessageRequestBody)
    return Request(
        model=message.model,
        messages=parse_messages(message.messages, raw["messages"]),
        sampling=Sampling(
            message.temperature,
            message.top_p,
            message.top_k,
            message.max_tokens,
            stop_sequences(message.stop),
            message.seed,
        ),
        tools=parse_tools(message.tools, raw["tools"]) if message.tools else (),
        tool_choice=parse_tool_choice(message.tool_choice) if message.tool_choice is not None else None,
        response_format=parse_response_format(message.response_format) if message.response_format is not None else None,
        reasoning=ReasoningOptions(effort=message.reasoning_effort) if message.reasoning_effort else None,
        stream=message.stream,
        user=message.user,
        metadata=message.metadata,
        task=message.task,
        conversation_id=conversation_id(message.conversation_id) if message.conversation_id else None,
        fallbacks=tuple(message.fallbacks),
        timeout=message.timeout,
    )


def conversation_id(text: str, field: str = "conversation_id") -> str:
    """`text`, which is said in `field`, if a conversation can be called that. Raises `InvalidRequest`."""
    if _is_id(text) is None:
        raise InvalidRequest(f"{field}: has 1 to 200 characters, none of them blank, control or a slash", field=field)
    return text


def render_request(request: Request) -> dict[str, Any]:
    """The body that asks a Cauce for `request`. What is not set is left out."""
    body: dict[str, Any] = {"messages": [render_message(message) for message in request.messages]}
    for name in _PLAIN:
        value = getattr(request, name)
        if value:
            body[name] = value
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    for name in _SAMPLING:
        value = getattr(request.sampling, name)
        if value is not None:
            body[name] = value
    if request.sampling.stop:
        body["stop"] = list(request.sampling.stop)
    if request.fallbacks:
        body["fallbacks"] = list(request.fallbacks)
    if request.metadata is not None:
        body["metadata"] = request.metadata
    if request.tools:
        body["tools"] = [render_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = render_tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = render_response_format(request.response_format)
    return body
