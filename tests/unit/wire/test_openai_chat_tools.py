"""Tools of the chat wire that are not plain functions: custom ones, those servers run themselves, and the old form."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import Delta, Finish, Text, ToolCall
from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import ImagePart, Message, OpaquePart, TextPart, ToolCallPart
from cauce.domain.request import Request
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.answer import Head, render_completion
from cauce.wire.openai_chat.custom import PARAMETERS
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_chat.render import ChatProjector
from cauce.wire.openai_chat.request import parse_request, render_request
from cauce.wire.openai_chat.tools import AnswerStyle, render_tool, style_of

encode = msgspec.json.encode
decode = msgspec.json.decode

HEAD = Head("id", "m", 5)
USER = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CUSTOM = {
    "type": "custom",
    "custom": {"name": "math", "description": "Reckon.", "format": {"type": "text"}},
}
SEARCH = {"type": "web_search_preview", "search_context_size": "low"}


def parsed(**more: Any) -> Request:
    return parse_request(encode({"messages": [USER], **more}))


def upstream(request: Request) -> dict[str, Any]:
    return render_request(request, "m", stream=False)


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return b"data: " + encode({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}) + b"\n\n"


def read(*pieces: bytes) -> list[Delta]:
    decoder = ChatDecoder("up")
    return [delta for piece in pieces for delta in decoder.feed(piece)] + decoder.finish()


def shown(deltas: list[Delta], style: AnswerStyle) -> list[dict[str, Any]]:
    lines = ChatProjector(HEAD, style=style).feed(deltas).split(b"\n\n")
    return [decode(line[6:])["choices"][0] for line in lines if line.startswith(b"data: {")]


def plain(part: ToolCallPart, style: AnswerStyle) -> dict[str, Any]:
    completion = Completion((Choice((part,), "tool_calls"),), Usage())
    return decode(render_completion(completion, HEAD, style))["choices"][0]


class TestTools:
    def test_mixed_lists_keep_their_order(self) -> None:
        request = parsed(tools=[FUNCTION, SEARCH, CUSTOM])
        assert [type(tool) for tool in request.tools] == [Tool, OpaqueTool, Tool]
        assert upstream(request)["tools"] == [FUNCTION, SEARCH, CUSTOM]

    def test_custom_tool_is_a_function_with_one_text_to_others(self) -> None:
        (tool,) = parsed(tools=[CUSTOM]).tools
        assert isinstance(tool, Tool)
        assert (tool.name, tool.description, tool.parameters) == ("math", "Reckon.", PARAMETERS)

    def test_custom_tool_of_the_responses_wire_is_shown_in_this_wires_form(self) -> None:
        grammar = {"type": "grammar", "syntax": "lark", "definition": "start: X"}
        raw = {"type": "custom", "name": "math", "format": grammar}
        tool = Tool("math", None, PARAMETERS, extra=Extra("openai_responses", {"custom": raw}))
        nested = {"type": "grammar", "grammar": {"definition": "start: X", "syntax": "lark"}}
        assert render_tool(tool) == {"type": "custom", "custom": {"name": "math", "format": nested}}

    def test_tool_of_another_wires_servers_is_refused(self) -> None:
        with pytest.raises(Unsupported, match="bash_20250124"):
            render_tool(OpaqueTool("anthropic_messages", "bash_20250124", {"type": "bash_20250124"}))

    @pytest.mark.parametrize(
        ("choice", "told"),
        [
            ({"type": "custom", "custom": {"name": "math"}}, ToolChoice("tool", "math")),
            ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, ToolChoice("required")),
            ({"type": "web_search_preview"}, None),
        ],
    )
    def test_choices_of_other_kinds_go_upstream_and_say_to_others_what_they_can(
        self, choice: dict[str, Any], told: ToolChoice | None
    ) -> None:
        request = parsed(tools=[CUSTOM], tool_choice=choice)
        assert request.tool_choice == told
        assert upstream(request)["tool_choice"] == choice

    @pytest.mark.parametrize(
        ("tools", "field"),
        [
            ([{"type": "custom", "custom": {}}], "tools[0].custom.name"),
            ([FUNCTION, {"type": "function", "function": {"parameters": {}}}], "tools[1].function.name"),
            (["f"], "tools[0]"),
        ],
    )
    def test_mistake_names_its_field(self, tools: list[Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parsed(tools=tools)
        assert caught.value.field is not None and caught.value.field.startswith(field)


class TestCallsOfCustomTools:
    STYLE = style_of(parsed(tools=[CUSTOM]))

    def test_pieces_are_shown_as_they_come_and_are_json_to_others(self) -> None:
        deltas = read(
            chunk(
                {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "math", "input": '4 "'}}]}
            ),
            chunk({"tool_calls": [{"index": 0, "custom": {"input": "+ 4"}}]}),
            chunk({}, "tool_calls"),
        )
        calls = [delta for delta in deltas if isinstance(delta, ToolCall)]
        pieces = "".join([call.arguments for call in calls if call.mark == "piece"])
        (ready,) = [call for call in calls if call.mark == "ready"]
        assert pieces == ready.arguments == '{"input":"4 \\"+ 4"}'
        _, first, second, last = shown(deltas, self.STYLE)
        assert first["delta"]["tool_calls"][0]["custom"] == {"name": "math", "input": '4 "'}
        assert second["delta"]["tool_calls"][0]["custom"] == {"input": "+ 4"}
        assert last["finish_reason"] == "tool_calls"

    def test_answer_of_another_wire_is_shown_as_a_call_of_the_custom_tool(self) -> None:
        call = ToolCallPart("c", "math", '{"input": "4 + 4"}')
        body = {"id": "c", "type": "custom", "custom": {"name": "math", "input": "4 + 4"}}
        assert plain(call, self.STYLE)["message"]["tool_calls"] == [body]
        deltas: list[Delta] = [
            ToolCall(0, "c", "math", '{"input": '),
            ToolCall(0, "c", "math", '"4 + 4"}'),
            ToolCall(0, "c", "math", '{"input": "4 + 4"}', "ready"),
            Finish("tool_calls"),
        ]
        _, streamed, _ = shown(deltas, self.STYLE)
        assert streamed["delta"]["tool_calls"] == [{"index": 0, **body}]

    def test_call_goes_back_upstream_as_it_was(self) -> None:
        call = {"id": "c", "type": "custom", "custom": {"name": "math", "input": "4 + 4"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        request = parse_request(encode({"messages": [USER, message]}))
        part = request.messages[1].parts[0]
        assert isinstance(part, ToolCallPart) and part.arguments == '{"input":"4 + 4"}'
        assert upstream(request)["messages"][1] == message

    @given(st.lists(st.text(max_size=6), min_size=1, max_size=5))
    def test_any_text_in_any_pieces_is_the_same_json(self, pieces: list[str]) -> None:
        first = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "t", "input": pieces[0]}}
        rest = [{"index": 0, "custom": {"input": piece}} for piece in pieces[1:]]
        deltas = read(*[chunk({"tool_calls": [call]}) for call in (first, *rest)], chunk({}, "tool_calls"))
        calls = [delta for delta in deltas if isinstance(delta, ToolCall)]
        joined = "".join([call.arguments for call in calls if call.mark == "piece"])
        assert decode(joined) == decode(calls[-1].arguments) == {"input": "".join(pieces)}


FUNCTIONS = [{"name": "f", "description": "d", "parameters": {"type": "object"}}]


class TestOldForm:
    def test_functions_become_tools_upstream(self) -> None:
        request = parsed(functions=FUNCTIONS, function_call={"name": "f"})
        body = upstream(request)
        assert body["tools"] == [{"type": "function", "function": FUNCTIONS[0]}]
        assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
        assert body["parallel_tool_calls"] is False
        assert "functions" not in body and "function_call" not in body

    def test_answers_are_told_in_the_old_form(self) -> None:
        style = style_of(parsed(functions=FUNCTIONS))
        choice = plain(ToolCallPart("c", "f", "{}"), style)
        assert choice["message"] == {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "f", "arguments": "{}"},
        }
        assert choice["finish_reason"] == "function_call"
        deltas: list[Delta] = [
            ToolCall(0, "c", "f", ""),
            ToolCall(0, "c", "f", "{}"),
            ToolCall(1, "d", "g", "{}"),
            ToolCall(0, "c", "f", "{}", "ready"),
            ToolCall(1, "d", "g", "{}", "ready"),
            Finish("tool_calls"),
        ]
        _, first, second, last = shown(deltas, style)
        assert first["delta"] == {"function_call": {"name": "f", "arguments": ""}}
        assert second["delta"] == {"function_call": {"arguments": "{}"}}
        assert last["finish_reason"] == "function_call"

    def test_history_of_the_old_form_is_told_with_ids(self) -> None:
        request = parse_request(
            encode(
                {
                    "messages": [
                        USER,
                        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                        {"role": "function", "name": "f", "content": "42"},
                        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{1}"}},
                        {"role": "function", "name": "f", "content": "43"},
                    ]
                }
            )
        )
        body = upstream(request)["messages"]
        calls = [message["tool_calls"][0]["id"] for message in body if "tool_calls" in message]
        answers = [message["tool_call_id"] for message in body if message["role"] == "tool"]
        assert calls == answers and len(set(calls)) == 2

    def test_answer_to_a_function_nobody_called_is_a_mistake(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse_request(encode({"messages": [USER, {"role": "function", "name": "f", "content": "42"}]}))
        assert caught.value.field == "messages[1].name"

    def test_upstreams_of_that_time_are_read(self) -> None:
        deltas = read(
            chunk({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": "{}"}}),
            chunk({}, "function_call"),
        )
        (ready,) = [delta for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "ready"]
        assert (ready.name, ready.arguments) == ("f", "{}")
        finish = deltas[-1]
        assert isinstance(finish, Finish) and finish.reason == "tool_calls"
        assert shown(deltas, AnswerStyle())[-1]["finish_reason"] == "tool_calls"


class TestContent:
    def test_documents_are_carried_both_ways(self) -> None:
        file = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}
        request = parse_request(encode({"messages": [{"role": "user", "content": [file]}]}))
        (part,) = request.messages[0].parts
        assert msgspec.structs.asdict(part) == {
            "url": "data:application/pdf;base64,AAAA",
            "media_type": "application/pdf",
            "name": "a.pdf",
            "extra": None,
        }
        assert upstream(request)["messages"][0]["content"] == [file]

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "file", "file": {"file_id": "file-1"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "file", "file": {"file_data": "https://example.org/a.pdf"}},
        ],
    )
    def test_what_only_this_wire_can_read_goes_through(self, part: dict[str, Any]) -> None:
        request = parse_request(encode({"messages": [{"role": "user", "content": [part]}]}))
        assert upstream(request)["messages"][0]["content"] == [part]

    def test_content_of_another_wire_is_refused_from_users_and_left_out_of_answers(self) -> None:
        opaque = OpaquePart("anthropic_messages", {"type": "container_upload"})
        with pytest.raises(Unsupported, match="container_upload"):
            upstream(Request("m", (Message("user", (opaque,)),)))
        body = upstream(Request("m", (Message("assistant", (opaque, TextPart("ok"))),)))
        assert body["messages"][0]["content"] == "ok"

    def test_answers_of_tools_may_hold_images(self) -> None:
        content = [
            {"type": "text", "text": "here"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ]
        request = parse_request(encode({"messages": [USER, {"role": "tool", "tool_call_id": "c", "content": content}]}))
        assert isinstance(request.messages[1].parts[1], ImagePart)
        assert upstream(request)["messages"][1]["content"] == content

    def test_tool_that_failed_without_a_word_says_so(self) -> None:
        request = Request("m", (Message("tool", (), call_id="c", failed=True),))
        assert "failed" in upstream(request)["messages"][0]["content"]

    def test_parts_of_an_earlier_answer_are_sent_without_what_stood_around_them(self) -> None:
        around = Extra("openai_chat", {"chunk": {"provider": "x"}, "delta": {"annotations": [1]}, "field": "reasoning"})
        call = ToolCallPart("c", "f", "{}", Extra("openai_chat", {"call": {"vendor": 1}, "function": {"v": 2}}))
        body = upstream(Request("m", (Message("assistant", (TextPart("ok", around), call)),)))["messages"][0]
        assert body["content"] == "ok"
        assert body["tool_calls"][0] == {
            "id": "c",
            "type": "function",
            "function": {"name": "f", "arguments": "{}", "v": 2},
            "vendor": 1,
        }

    def test_text_beside_calls_is_read_in_its_order(self) -> None:
        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
        deltas = read(chunk({"content": "a"}), chunk({"tool_calls": [call]}), chunk({}, "tool_calls"))
        assert [type(delta) for delta in deltas] == [Text, ToolCall, ToolCall, Finish]
