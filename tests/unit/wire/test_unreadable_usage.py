"""Usage that cannot be right: tokens of what was asked or delivered are estimated where the upstream counts none."""

import json
from typing import Any

import pytest

from cauce.domain.delta import Finish
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens
from cauce.domain.usage import Usage
from cauce.wire.anthropic_messages.decode import MessagesDecoder
from cauce.wire.decoding import Decoding
from cauce.wire.gemini.decode import GeminiDecoder
from cauce.wire.gemini.usage import render_usage
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_completions.decode import CompletionDecoder
from cauce.wire.openai_responses.decode import ResponsesDecoder

TEXT = "word " * 300
REQUEST = Request("up/m", (Message("user", (TextPart("Write three hundred words, please."),)),))
ASKED = estimate_input_tokens(REQUEST)
WRITTEN = len(TEXT) // 4


def chat(text: str, usage: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}


def completions(text: str, usage: Any) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "text": text, "finish_reason": "stop"}], "usage": usage}


def responses(text: str, usage: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    item = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": content}
    return {"id": "r1", "status": "completed", "output": [item], "usage": usage}


def messages(text: str, usage: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}] if text else []
    return {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn", "usage": usage}


def gemini(text: str, usage: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
    return {"candidates": [candidate], "usageMetadata": usage}


WIRES: dict[str, tuple[type[Any], Any, str, str]] = {
    "chat": (ChatDecoder, chat, "prompt_tokens", "completion_tokens"),
    "completions": (CompletionDecoder, completions, "prompt_tokens", "completion_tokens"),
    "responses": (ResponsesDecoder, responses, "input_tokens", "output_tokens"),
    "anthropic": (MessagesDecoder, messages, "input_tokens", "output_tokens"),
    "gemini": (GeminiDecoder, gemini, "promptTokenCount", "candidatesTokenCount"),
}


def used(wire: str, text: str, read: Any, written: Any, **more: Any) -> Usage:
    kind, answer, asked, said = WIRES[wire]
    decoder: Decoding = kind("up", estimate_input_tokens, REQUEST)
    body = json.dumps(answer(text, {asked: read, said: written, **more})).encode()
    finish = decoder.completion(body)[-1]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
    assert isinstance(finish, Finish)
    return finish.usage


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("none", [0, None, "many", -3, 1.5])
def test_figures_that_say_nothing_of_what_was_delivered_are_estimated(wire: str, none: Any) -> None:
    usage = used(wire, TEXT, none, none)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (ASKED, WRITTEN, True)
    usage = used(wire, TEXT, 12, none)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (12, WRITTEN, True)
    usage = used(wire, TEXT, none, 290)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (ASKED, 290, True)


@pytest.mark.parametrize("wire", WIRES)
def test_figures_that_may_be_right_are_believed(wire: str) -> None:
    for text, read, written in ((TEXT, 12, 290), ("", 12, 0)):
        usage = used(wire, text, read, written)
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (read, written, False)


def test_prompt_that_was_all_in_a_cache_is_none_that_was_not_counted() -> None:
    usage = used("anthropic", TEXT, 0, 290, cache_read_input_tokens=500)
    assert (usage.input_tokens, usage.cached_tokens, usage.estimated) == (500, 500, False)
    usage = used("chat", TEXT, 0, 290, prompt_tokens_details={"cached_tokens": 500})
    assert (usage.input_tokens, usage.cached_tokens, usage.estimated) == (500, 500, True)


def test_clients_of_gemini_s_wire_see_the_estimate_too() -> None:
    shown = render_usage(used("gemini", TEXT, 12, 0, trafficType="ON_DEMAND"))
    assert (shown["promptTokenCount"], shown["candidatesTokenCount"]) == (12, WRITTEN)
    assert shown["totalTokenCount"] == 12 + WRITTEN and shown["trafficType"] == "ON_DEMAND"
