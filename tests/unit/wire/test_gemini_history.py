"""What clients of Google's wire hand back, and what becomes of histories that other wires' clients hand back."""

from typing import Any

import msgspec
import pytest

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import TokenLogprob, ToolCall
from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
)
from cauce.domain.request import Request, ResponseFormat
from cauce.domain.signature import Signature
from cauce.domain.tool import Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.wire.gemini.decode import GeminiDecoder
from cauce.wire.gemini.parts import UNSIGNED
from cauce.wire.gemini.render import Head, render_answer
from cauce.wire.gemini.request import parse_request, render_request
from cauce.wire.gemini.schemas import json_schema
from cauce.wire.signing import seal

WIRE = "gemini"
USER: dict[str, Any] = {"role": "user", "parts": [{"text": "?"}]}
ASKED = Message("user", (TextPart("?"),))


def parsed(*contents: dict[str, Any], **body: Any) -> Request:
    return parse_request(msgspec.json.encode({"contents": [USER, *contents], **body}), "m", stream=False)


def resent(*contents: dict[str, Any], **body: Any) -> dict[str, Any]:
    return render_request(parsed(*contents, **body), "gemini-3-pro")


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def sent(*parts: Part, then: tuple[Message, ...] = ()) -> list[dict[str, Any]]:
    """The contents behind the first that an assistant's message of `parts` and `then` are sent as."""
    request = Request("m", (ASKED, Message("assistant", parts), *then))
    return render_request(request, "gemini-3-pro")["contents"][1:]


class TestHandedBack:
    @pytest.mark.parametrize(
        "part",
        [
            {"functionCall": {"id": "call_1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
            {"functionCall": {"id": "x", "name": "f", "args": {}, "new": 1}, "thoughtSignature": "c2ln", "other": 2},
            {"inlineData": {"mimeType": "image/png", "data": "AA==", "new": 1}, "thoughtSignature": "c2ln"},
            {"inlineData": {"mimeType": "application/pdf", "data": "AA==", "displayName": "a.pdf"}},
            {"fileData": {"fileUri": "https://files/1", "mimeType": "image/png"}, "mediaResolution": {"level": "LOW"}},
            {"fileData": {"fileUri": "https://files/1", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 1}},
        ],
    )
    def test_part_reaches_the_same_wire_as_it_was(self, part: dict[str, Any]) -> None:
        assert resent(model(part))["contents"][1] == model(part)

    def test_result_reaches_the_same_wire_as_it_was(self) -> None:
        result = {"functionResponse": {"name": "f", "response": {"error": "e"}, "scheduling": "SILENT"}, "new": 1}
        contents = resent(model({"functionCall": {"name": "f", "args": {}}}), {"role": "user", "parts": [result]})
        assert contents["contents"][2] == {"role": "user", "parts": [result]}

    def test_second_of_parallel_calls_goes_back_without_a_signature_as_it_came(self) -> None:
        calls = model(
            {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"},
            {"functionCall": {"name": "f", "args": {}}},
        )
        assert resent(calls)["contents"][1] == calls

    def test_images_in_a_result_are_parts_of_the_answer(self) -> None:
        image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
        pdf = {"inlineData": {"mimeType": "application/pdf", "data": "AA==", "displayName": "a.pdf"}}
        result = {"functionResponse": {"name": "f", "response": {"result": "seen"}, "parts": [image, pdf]}}
        said = parsed({"role": "user", "parts": [result]}).messages[1].parts
        assert said[0] == TextPart("seen")
        assert isinstance(said[1], ImagePart) and said[1].url == "data:image/png;base64,AA=="
        assert isinstance(said[2], DocumentPart) and said[2].name == "a.pdf"

    def test_pieces_of_a_stream_are_one_message(self) -> None:
        sealed = seal(Signature("anthropic_messages", "sig"), WIRE)
        message = parsed(
            model({"text": "Let me ", "thought": True}),
            model({"text": "see.", "thought": True}),
            model({"text": "", "thought": True, "thoughtSignature": sealed}),
            model({"text": "One"}),
            model({"text": "\n\n"}),
            model({"text": "two"}, {"functionCall": {"name": "f", "args": {}}}),
            model({"functionCall": {"name": "f", "args": {}}}),
        ).messages[1]
        thought, text, first, second = message.parts
        assert isinstance(thought, ReasoningPart) and thought.text == "Let me see."
        assert thought.signature == Signature("anthropic_messages", "sig")
        assert text == TextPart("One\n\ntwo")
        assert isinstance(first, ToolCallPart) and isinstance(second, ToolCallPart) and first.call_id != second.call_id

    def test_form_that_only_this_wire_knows_reaches_it(self) -> None:
        form = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a", "b"]}}
        assert resent(generationConfig=form)["generationConfig"] == form
        assert parsed(generationConfig=form).response_format is None

    def test_mistake_in_the_instruction_is_found_there(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parsed(systemInstruction={"parts": "x"})
        assert caught.value.field == "systemInstruction.parts"

    def test_choice_of_one_function_keeps_what_stands_beside_it(self) -> None:
        calling = {"mode": "ANY", "allowedFunctionNames": ["f"], "new": 1}
        config = {"functionCallingConfig": calling, "retrievalConfig": {"languageCode": "es"}}
        request = parsed(tools=[{"functionDeclarations": [{"name": "f"}]}], toolConfig=config)
        assert render_request(request, "m")["toolConfig"] == config
        renamed = msgspec.structs.replace(request, tool_choice=ToolChoice("tool", "g"))
        told = render_request(renamed, "m")["toolConfig"]
        assert told == {**config, "functionCallingConfig": {**calling, "allowedFunctionNames": ["g"]}}


class TestOfOtherWires:
    def test_results_out_of_order_name_the_call_they_answer(self) -> None:
        results = tuple([Message("tool", (TextPart(one),), call_id=f"call_{one}") for one in "ba"])
        said, answered = sent(ToolCallPart("call_a", "f", "{}"), ToolCallPart("call_b", "f", "{}"), then=results)
        assert [part["functionCall"]["id"] for part in said["parts"]] == ["call_a", "call_b"]
        told = [(part["functionResponse"]["id"], part["functionResponse"]["response"]) for part in answered["parts"]]
        assert told == [("call_b", {"result": "b"}), ("call_a", {"result": "a"})]

    def test_id_that_comes_again_names_the_function_called_last(self) -> None:
        result = Message("tool", (TextPart("1"),), call_id="c")
        again = Message("assistant", (ToolCallPart("c", "g", "{}"),))
        contents = sent(ToolCallPart("c", "f", "{}"), then=(result, again, result))
        assert [contents[place]["parts"][0]["functionResponse"]["name"] for place in (1, 3)] == ["f", "g"]

    def test_empty_text_beside_a_call_is_not_sent(self) -> None:
        (said,) = sent(TextPart(""), ToolCallPart("c", "f", "{}"))
        assert [list(part) for part in said["parts"]] == [["functionCall", "thoughtSignature"]]

    def test_only_the_first_of_parallel_calls_needs_a_signature(self) -> None:
        (said,) = sent(ToolCallPart("a", "f", "{}"), ToolCallPart("b", "f", "{}"))
        assert [part.get("thoughtSignature") for part in said["parts"]] == [UNSIGNED, None]

    def test_signature_of_a_call_is_found_on_the_reasoning_with_text_between(self) -> None:
        signature = Signature(WIRE, "c2ln")
        (said,) = sent(ReasoningPart("Hm.", signature), TextPart("I look."), ToolCallPart("a", "f", "{}"))
        thought, text, call = said["parts"]
        assert thought == {"text": "Hm.", "thought": True} and text == {"text": "I look."}
        assert call["thoughtSignature"] == "c2ln"

    def test_result_that_only_another_wire_knows_is_refused(self) -> None:
        found = Message("tool", (OpaquePart("anthropic_messages", {"type": "search_result"}),), call_id="c")
        with pytest.raises(Unsupported, match="search_result"):
            sent(ToolCallPart("c", "f", "{}"), then=(found,))

    def test_text_in_a_data_url_is_decoded_before_it_is_packed(self) -> None:
        request = Request("m", (Message("user", (DocumentPart("data:text/plain,Hi%20you"),)),))
        assert render_request(request, "m")["contents"][0]["parts"] == [
            {"inlineData": {"mimeType": "text/plain", "data": "SGkgeW91"}}
        ]

    def test_choice_without_tools_is_not_told(self) -> None:
        request = Request("m", (ASKED,), tool_choice=ToolChoice("none"))
        assert "toolConfig" not in render_request(request, "m")
        offered = msgspec.structs.replace(request, tools=(Tool("f"),))
        assert render_request(offered, "m")["toolConfig"] == {"functionCallingConfig": {"mode": "NONE"}}

    def test_system_message_that_only_another_wire_knows_is_refused(self) -> None:
        system = Message("system", (OpaquePart("openai_chat", {"type": "input_audio"}),))
        with pytest.raises(Unsupported, match="input_audio"):
            render_request(Request("m", (system, ASKED), response_format=ResponseFormat("text")), "m")


class TestSchemas:
    def test_properties_stand_in_the_order_that_is_asked_for(self) -> None:
        given = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}, "b": {}}, "propertyOrdering": ["b", "a"]}
        assert list(json_schema(given)["properties"]) == ["b", "a"]

    def test_counts_are_numbers_and_an_unspecified_type_is_none(self) -> None:
        assert json_schema({"type": "ARRAY", "minItems": "2"}) == {"type": "array", "minItems": 2}
        assert json_schema({"type": "TYPE_UNSPECIFIED", "title": "t"}) == {"title": "t"}


def test_unknown_fields_of_a_call_are_shown_to_clients_of_this_wire() -> None:
    part = {"functionCall": {"name": "f", "args": {"a": 1}, "new": 1}, "other": 2}
    body = {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}]}
    deltas = GeminiDecoder("up").completion(msgspec.json.encode(body))
    ready = next(one for one in deltas if isinstance(one, ToolCall) and one.mark == "ready")
    assert ready.extra == Extra(WIRE, {"other": 2, "functionCall": {"new": 1, "id": None}})
    call = ToolCallPart(ready.call_id, ready.name, ready.arguments, ready.extra)
    answer = msgspec.json.decode(render_answer(Completion((Choice((call,), "tool_calls"),), Usage()), Head("r", "m")))
    assert answer["candidates"][0]["content"]["parts"] == [part]


def test_log_probability_may_be_a_whole_number() -> None:
    told = {"chosenCandidates": [{"token": "a", "logProbability": -2}, {"token": "b", "logProbability": 10**400}]}
    body = {"candidates": [{"content": {"parts": [{"text": "ab"}]}, "finishReason": "STOP", "logprobsResult": told}]}
    deltas = GeminiDecoder("up").completion(msgspec.json.encode(body).replace(b"null", b"1" * 400))
    found = [one for delta in deltas for one in getattr(delta, "logprobs", ())]
    assert found == [TokenLogprob("a", -2.0), TokenLogprob("b", 0.0)]
