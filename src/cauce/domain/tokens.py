"""Tokens estimated from characters, for where nobody has counted."""

from cauce.domain.message import ReasoningPart, RefusalPart, TextPart, ToolCallPart
from cauce.domain.request import Request

CHARACTERS_PER_TOKEN = 4
"""A common rule of thumb for English (OpenAI, "What are tokens and how to count them")."""

_PER_MESSAGE = 4


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, roughly."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def estimate_input_tokens(request: Request) -> int:
    """Input tokens of `request`, roughly. Images do not count."""
    tokens = 0
    for message in request.messages:
        tokens += _PER_MESSAGE
        for part in message.parts:
            match part:
                case TextPart(text) | ReasoningPart(text) | RefusalPart(text):
                    tokens += estimate_tokens(text)
                case ToolCallPart(_, name, arguments):
                    tokens += estimate_tokens(name + arguments)
                case _:
                    continue
    return tokens
