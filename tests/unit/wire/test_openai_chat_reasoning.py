"""Reasoning on the chat wire: its text, its signatures, and how much of it is asked for."""

from typing import Any

import msgspec
import pytest

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import Delta, Finish, Reasoning, Text, ToolCall
from cauce.domain.message import Message, ReasoningPart, TextPart
from cauce.domain.request import ReasoningOptions, Request
from cauce.domain.signature import Signature
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.answer import Head, render_completion
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_chat.render import ChatProjector
from cauce.wire.openai_chat.request import parse_request, render_request

encode = msgspec.json.encode
decode = msgspec.json.decode

HEAD = Head("id", "m", 5)
FOREIGN = Signature("anthropic_messages", "c2lnbmVk")
USER = {"role": "user", "content": "hi"}


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return b"data: " + encode({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}) + b"\n\n"


def read(*pieces: bytes) -> list[Delta]:
    decoder = ChatDecoder("up")
    return [delta for piece in pieces for delta in decoder.feed(piece)] + decoder.finish()


def shown(deltas: list[Delta]) -> list[dict[str, Any]]:
    lines = ChatProjector(HEAD).feed(deltas).split(b"\n\n")
    return [decode(line[6:])["choices"][0]["delta"] for line in lines if line.startswith(b"data: {")]


def messages(*bodies: dict[str, Any]) -> tuple[Message, ...]:
    return parse_request(encode({"messages": list(bodies)})).messages


def sent(*parts: ReasoningPart | TextPart) -> dict[str, Any]:
    request = Request("m", (Message("user", (TextPart("hi"),)), Message("assistant", parts)))
    return render_request(request, "m", stream=False)["messages"][1]


class TestSignaturesOfOtherWires:
    def test_stream_shows_one_entry_with_the_text_and_the_sealed_signature(self) -> None:
        deltas = [Reasoning("think "), Reasoning("hard"), Reasoning("", FOREIGN), Text("ok"), Finish("stop")]
        role, first, second, proof, text, _ = shown(deltas)
        assert role["content"] is None
        assert [first, second, text] == [
            {"reasoning_content": "think "},
            {"reasoning_content": "hard"},
            {"content": "ok"},
        ]
        (entry,) = proof["reasoning_details"]
        assert (entry["type"], entry["text"], entry["index"]) == ("reasoning.text", "think hard", 0)
        assert FOREIGN.data not in entry["signature"]

    def test_plain_answer_shows_the_same_entry_and_it_comes_back_as_the_same_part(self) -> None:
        part = ReasoningPart("think hard", FOREIGN)
        completion = Completion((Choice((part, TextPart("ok"))),), Usage())
        message = decode(render_completion(completion, HEAD))["choices"][0]["message"]
        streamed = shown([Reasoning("think "), Reasoning("hard", FOREIGN), Finish("stop")])[2]
        assert message["reasoning_details"] == streamed["reasoning_details"]
        assert messages(USER, message)[1].parts == (part, TextPart("ok"))

    def test_reasoning_without_words_is_an_encrypted_entry(self) -> None:
        completion = Completion((Choice((ReasoningPart("", FOREIGN), TextPart("ok"))),), Usage())
        message = decode(render_completion(completion, HEAD))["choices"][0]["message"]
        assert [entry["type"] for entry in message["reasoning_details"]] == ["reasoning.encrypted"]
        assert messages(USER, message)[1].parts[0] == ReasoningPart("", FOREIGN)

    def test_several_blocks_keep_their_order(self) -> None:
        second = Signature("gemini", "eA==")
        deltas = [Reasoning("a", FOREIGN), Reasoning("b", second, begins=True), Finish("stop")]
        entries = [entry for delta in shown(deltas) for entry in delta.get("reasoning_details", ())]
        assert [(entry["text"], entry["index"]) for entry in entries] == [("a", 0), ("b", 1)]

    def test_no_upstream_of_this_wire_is_sent_one(self) -> None:
        message = sent(ReasoningPart("think", FOREIGN), TextPart("ok"))
        assert message == {"role": "assistant", "reasoning_content": "think", "content": "ok"}


TEXT = {"type": "reasoning.text", "text": "hm", "signature": "s1", "format": "anthropic-claude-v1", "index": 0}
SUMMARY = {"type": "reasoning.summary", "summary": "hm", "format": "openai-responses-v1", "index": 0}
ENCRYPTED = {"type": "reasoning.encrypted", "data": "e1", "id": "rs_1", "format": "openai-responses-v1", "index": 0}


class TestDetailsOfThisWire:
    def test_streamed_entries_are_shown_as_they_came_and_their_signature_is_known(self) -> None:
        piece = {"type": "reasoning.text", "text": "hm", "format": "anthropic-claude-v1", "index": 0}
        last = {"type": "reasoning.text", "signature": "s1", "format": "anthropic-claude-v1", "index": 0}
        deltas = read(
            chunk({"reasoning": "hm", "reasoning_details": [piece]}),
            chunk({"content": "", "reasoning": None, "reasoning_details": [last]}),
            chunk({"content": "ok", "reasoning_details": []}, "stop"),
        )
        proof = deltas[1]
        assert isinstance(proof, Reasoning) and proof.signature is not None and proof.signature.wire == "openai_chat"
        assert shown(deltas)[1:4] == [
            {"reasoning": "hm", "reasoning_details": [piece]},
            {"reasoning_details": [last]},
            {"content": "ok"},
        ]

    @pytest.mark.parametrize("details", [[TEXT], [SUMMARY, ENCRYPTED], [ENCRYPTED], [SUMMARY]])
    def test_plain_entries_come_back_from_a_client_and_go_upstream_unchanged(self, details: list[Any]) -> None:
        message = {"role": "assistant", "content": "ok", "reasoning": "hm", "reasoning_details": details}
        body = render_request(parse_request(encode({"messages": [USER, message]})), "m", stream=False)
        assert body["messages"][1]["reasoning_details"] == details

    @pytest.mark.parametrize("details", [[TEXT], [SUMMARY, ENCRYPTED]])
    def test_they_survive_a_client_of_another_wire(self, details: list[Any]) -> None:
        message = {"role": "assistant", "content": "ok", "reasoning": "hm", "reasoning_details": details}
        deltas = ChatDecoder("up").completion(encode({"choices": [{"message": message, "finish_reason": "stop"}]}))
        (thought,) = [delta for delta in deltas if isinstance(delta, Reasoning)]
        assert thought.text == "hm"
        # What such a client hands back: the text and the signature, without what only this wire knows beside them.
        assert sent(ReasoningPart("hm", thought.signature))["reasoning_details"] == details

    def test_pieces_that_a_client_kept_apart_are_one_block_again(self) -> None:
        pieces = [
            {"type": "reasoning.text", "text": "think ", "index": 0},
            {"type": "reasoning.text", "text": "hard", "index": 0},
            {"type": "reasoning.text", "text": "", "signature": "s1", "index": 0},
        ]
        message = {"role": "assistant", "content": "ok", "reasoning_details": pieces}
        thought, _ = messages(USER, message)[1].parts
        assert isinstance(thought, ReasoningPart) and thought.text == "think hard" and thought.signature is not None

    def test_entries_of_unknown_types_go_upstream_unchanged(self) -> None:
        odd = [{"type": "reasoning.server_tool_call", "tool_name": "t", "arguments": "{}", "result": "r"}]
        message = {"role": "assistant", "content": "ok", "reasoning_details": odd}
        body = render_request(parse_request(encode({"messages": [USER, message]})), "m", stream=False)
        assert body["messages"][1]["reasoning_details"] == odd

    def test_signature_of_list_typed_thinking_is_kept(self) -> None:
        content = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "s9"}]
        thought = read(chunk({"content": content}), chunk({"content": "ok"}, "stop"))[0]
        assert isinstance(thought, Reasoning) and thought.signature is not None
        (entry,) = sent(ReasoningPart("hm", thought.signature))["reasoning_details"]
        assert (entry["text"], entry["signature"]) == ("hm", "s9")

    @pytest.mark.parametrize("odd", [{}, [1], "x", [{"type": 5, "signature": 7}], [{"type": "reasoning.text"}]])
    def test_entries_of_an_unknown_shape_break_nothing(self, odd: Any) -> None:
        deltas = read(chunk({"reasoning_details": odd, "content": "a"}), chunk({}, "stop"))
        assert "".join([delta.text for delta in deltas if isinstance(delta, Text)]) == "a"


GOOGLE = {"google": {"thought_signature": "c2ln"}}


class TestSignaturesOfCalls:
    def call(self, **more: Any) -> dict[str, Any]:
        return {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, **more}

    def test_googles_own_form_is_read_from_upstreams_and_shown_to_clients(self) -> None:
        piece = {"index": 0, **self.call(extra_content=GOOGLE)}
        deltas = read(chunk({"tool_calls": [piece]}), chunk({}, "tool_calls"))
        first, ready = [delta for delta in deltas if isinstance(delta, ToolCall)]
        assert first.signature == ready.signature == Signature("gemini", "c2ln")
        assert shown(deltas)[1]["tool_calls"] == [piece]

    def test_it_comes_back_from_clients_and_goes_upstream(self) -> None:
        message = {"role": "assistant", "content": None, "tool_calls": [self.call(extra_content=GOOGLE)]}
        request = parse_request(encode({"messages": [USER, message]}))
        part = request.messages[1].parts[0]
        assert getattr(part, "signature", None) == Signature("gemini", "c2ln")
        assert render_request(request, "m", stream=False)["messages"][1] == message

    def test_other_wires_are_sealed_in_the_same_place(self) -> None:
        signature = Signature("openai_responses", "x", "fc_1")
        deltas: list[Delta] = [
            ToolCall(0, "c", "f", "{}", signature=signature),
            ToolCall(0, "c", "f", "{}", "ready", signature=signature),
            Finish("tool_calls"),
        ]
        call = shown(deltas)[1]["tool_calls"][0]
        del call["index"]
        again = messages(USER, {"role": "assistant", "content": None, "tool_calls": [call]})[1].parts[0]
        assert getattr(again, "signature", None) == signature
        request = Request("m", (Message("assistant", (again,)),))
        assert "extra_content" not in render_request(request, "m", stream=False)["messages"][0]["tool_calls"][0]

    def test_what_else_stands_beside_it_is_kept(self) -> None:
        content = {"google": {"thought_signature": "c2ln", "other": 1}, "vendor": {"a": 2}}
        message = {"role": "assistant", "content": None, "tool_calls": [self.call(extra_content=content)]}
        request = parse_request(encode({"messages": [USER, message]}))
        assert render_request(request, "m", stream=False)["messages"][1] == message


class TestOptions:
    @pytest.mark.parametrize(
        ("asked", "options"),
        [
            ({"reasoning_effort": "low"}, ReasoningOptions("low")),
            ({"reasoning": {"effort": "high"}}, ReasoningOptions("high")),
            ({"reasoning": {"max_tokens": 2000, "exclude": True}}, ReasoningOptions(None, 2000, None, False)),
            ({"reasoning": {"enabled": False}}, ReasoningOptions(enabled=False)),
            ({"reasoning": {"exclude": False}, "reasoning_effort": "low"}, ReasoningOptions("low", visible=True)),
        ],
    )
    def test_both_forms_are_read_and_go_upstream_again(self, asked: dict[str, Any], options: ReasoningOptions) -> None:
        request = parse_request(encode({"messages": [USER], **asked}))
        assert request.reasoning == options
        again = parse_request(encode(render_request(request, "m", stream=False)))
        assert again.reasoning == options

    def test_what_else_is_asked_of_reasoning_goes_through(self) -> None:
        asked = {"effort": "high", "summary": "auto"}
        body = render_request(parse_request(encode({"messages": [USER], "reasoning": asked})), "m", stream=False)
        assert body["reasoning"] == asked
