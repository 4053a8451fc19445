"""What the AI SDK's `DefaultChatTransport` posts: a chat's messages, and beside them what a page puts into its `body`."""

from typing import Annotated, Any

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.message import Message, TextPart
from cauce.domain.request import ReasoningOptions, Request, Sampling
from cauce.domain.tool import Tool
from cauce.wire.fields import check, decode_object
from cauce.wire.openai_chat.request import (
    Positive,
    ResponseFormatBody,
    Share,
    Temperature,
    parse_response_format,
    stop_sequences,
)
from cauce.wire.openai_chat.tools import ToolBody, ToolChoiceBody, parse_tool_choice, parse_tools
from cauce.wire.ui_messages.messages import UIMessageBody, parse_messages


class NamedToolBody(msgspec.Struct, rename={"input_schema": "inputSchema"}):
    """A tool under its name, as assistant-ui sends them. The schema of its input stands in either of the two."""

    description: str | None = None
    parameters: dict[str, Any] | None = None
    input_schema: dict[str, Any] | None = None


class ChatBody(msgspec.Struct):
    """Body of `POST /api/chat`. `id` is the chat's; `system` goes before the messages; `tools` are a list, or named."""

    id: str
    messages: list[UIMessageBody]
    trigger: str | None = None
    system: str | None = None
    model: str = ""
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: int | None = None
    max_tokens: Positive | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    response_format: ResponseFormatBody | None = None
    reasoning_effort: str | None = None
    tools: list[ToolBody] | dict[str, NamedToolBody] = []
    tool_choice: str | ToolChoiceBody | None = None
    task: str | None = None
    fallbacks: list[str] = []
    timeout: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] | None = None
    metadata: dict[str, Any] | None = None


class StopBody(msgspec.Struct):
    """Body of `POST /api/chat/{id}/stop`. Without `stream_id` it is the chat's newest answer that is stopped."""

    stream_id: str | None = None


class Posted(msgspec.Struct, frozen=True):
    """What was posted: to which chat, and what is asked."""

    chat: str
    request: Request


def parse_post(body: bytes) -> Posted:
    """The chat and the request in `body`. Unknown fields are ignored. Raises `InvalidRequest` naming the field."""
    raw = decode_object(body)
    chat = check(raw, ChatBody)
    messages = parse_messages(chat.messages)
    if chat.system:
        messages = (Message("system", (TextPart(chat.system),)), *messages)
    request = Request(
        model=chat.model,
        messages=messages,
        sampling=Sampling(
            chat.temperature, chat.top_p, chat.top_k, chat.max_tokens, stop_sequences(chat.stop), chat.seed
        ),
        tools=_tools(chat, raw),
        tool_choice=parse_tool_choice(chat.tool_choice) if chat.tool_choice is not None else None,
        response_format=parse_response_format(chat.response_format) if chat.response_format is not None else None,
        reasoning=ReasoningOptions(effort=chat.reasoning_effort) if chat.reasoning_effort else None,
        stream=True,
        user=chat.user,
        metadata=chat.metadata,
        task=chat.task,
        fallbacks=tuple(chat.fallbacks),
        timeout=chat.timeout,
    )
    return Posted(chat.id, request)


def parse_stop(body: bytes) -> str | None:
    """The id of the stream that shall be stopped, None if it is not said. Raises `InvalidRequest`."""
    return check(decode_object(body), StopBody).stream_id if body.strip() else None


def _tools(chat: ChatBody, raw: dict[str, Any]) -> tuple[Tool, ...]:
    if isinstance(chat.tools, list):
        return parse_tools(chat.tools, raw["tools"]) if chat.tools else ()
    if not all(chat.tools):
        raise InvalidRequest("tools: a tool needs a name", field="tools")
    return tuple(
        [Tool(name, tool.description, tool.parameters or tool.input_schema) for name, tool in chat.tools.items()]
    )
