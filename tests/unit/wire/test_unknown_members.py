"""Members of requests that nobody here knows, at the levels that are easily forgotten; and what is sent where nothing is left."""

from typing import Any

import msgspec
import pytest

from cauce.domain.message import Message, ReasoningPart, TextPart
from cauce.domain.request import Request
from cauce.domain.tool import Tool, ToolChoice
from cauce.providers.openai_compatible.adaptation import adapt
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.wire.anthropic_messages.request import parse_request as parse_messages
from cauce.wire.anthropic_messages.request import render_request as render_messages
from cauce.wire.openai_chat.request import parse_request, render_request

encode = msgspec.json.encode

HI = {"messages": [{"role": "user", "content": "hi"}], "model": "m"}
ASKED = Message("user", (TextPart("hi"),))
SCHEMA = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        (
            "response_format",
            {"type": "json_schema", "new": 1, "json_schema": {"name": "n", "schema": SCHEMA, "new": 2}},
        ),
        ("response_format", {"type": "json_object", "new": 1}),
        ("tool_choice", {"type": "function", "new": 1, "function": {"name": "f", "new": 2}}),
    ],
)
def test_chat_keeps_members_of_objects_inside_a_request(member: str, value: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert (
        render_request(parse_request(encode({**HI, "tools": tools, member: value})), "m", stream=False)[member] == value
    )


def test_messages_keep_members_of_objects_inside_a_request() -> None:
    body = {
        "max_tokens": 5,
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "f", "new": 1},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA, "new": 2}, "new": 3},
    }
    told = render_messages(parse_messages(encode({**HI, **body}), {}), "m").body
    assert told["tool_choice"] == body["tool_choice"] and told["output_config"] == body["output_config"]


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_chat_is_told_no_choice_where_there_are_no_tools(mode: Any) -> None:
    request = Request("m", (ASKED,), tool_choice=ToolChoice(mode), parallel_tool_calls=False)
    told = adapt(render_request(request, "m", stream=False), DIALECTS["compatible"])
    assert "tool_choice" not in told and "parallel_tool_calls" not in told
    offered = msgspec.structs.replace(request, tools=(Tool("f"),))
    assert adapt(render_request(offered, "m", stream=False), DIALECTS["compatible"])["tool_choice"] == mode


def test_turn_of_which_nothing_is_left_is_not_sent() -> None:
    thought = Message("assistant", (ReasoningPart("Hm."),))
    request = Request("m", (ASKED, thought, Message("assistant", (TextPart("Hello."),)), ASKED))
    told = adapt(render_request(request, "m", stream=False), DIALECTS["openai"])
    assert [message["content"] for message in told["messages"]] == ["hi", "Hello.", "hi"]
    kept = adapt(render_request(request, "m", stream=False), DIALECTS["vllm"])
    assert kept["messages"][1]["reasoning"] == "Hm."
