"""What a call may say beside its messages, and the body it makes. The server checks what it means."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from cauce.domain.message import Message
from cauce.domain.request import ResponseFormat
from cauce.domain.tool import Tool, ToolChoice
from cauce.wire.openai_chat.messages import render_message
from cauce.wire.openai_chat.request import render_response_format
from cauce.wire.openai_chat.tools import render_tool, render_tool_choice

Messages = str | Sequence[Message | Mapping[str, Any]]
"""One message of the user, or a conversation: `Message` values, or dicts as the service API has them."""


OnDisconnect = str
"""What becomes of a stream that nobody reads any more: `continue`, `cancel`, `grace`, or `grace:120` for 120 seconds."""


class Options(TypedDict, total=False):
    """Fields of `POST /llm/message`. `timeout` is in seconds; `fallbacks` are further models to try."""

    model: str
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: str | Sequence[str]
    seed: int
    tools: Sequence[Tool | Mapping[str, Any]]
    tool_choice: str | ToolChoice | Mapping[str, Any]
    response_format: ResponseFormat | Mapping[str, Any]
    reasoning_effort: str
    fallbacks: Sequence[str]
    timeout: float
    conversation_id: str
    user: str
    task: str
    metadata: Mapping[str, Any]


def body(messages: Messages, options: Mapping[str, Any]) -> dict[str, Any]:
    """The request's body. Raises `TypeError` for an option that does not exist."""
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        known = ", ".join(sorted(Options.__annotations__))
        raise TypeError(f"there is no option {min(unknown)!r}; there are {known}")
    said: Messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    written: dict[str, Any] = {"messages": [_message(message) for message in said]}
    for name, value in options.items():
        if value is not None:
            written[name] = _written(value)
    return written


def _message(message: Message | Mapping[str, Any]) -> Any:
    return render_message(message) if isinstance(message, Message) else message


def _written(value: Any) -> Any:
    match value:
        case ResponseFormat():
            return render_response_format(value)
        case ToolChoice():
            return render_tool_choice(value)
        case list() | tuple():
            several = cast(Sequence[Any], value)
            return [render_tool(one) if isinstance(one, Tool) else one for one in several]
        case _:
            return value
