"""Google's wire in both directions."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.citation import Citation
from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import Delta, Failed, Finish, Opaque, Reasoning, Refusal, Text, TokenLogprob, ToolCall
from cauce.domain.errors import CauceError, InvalidRequest, Overloaded, ProviderFailure, Unauthorized, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from cauce.domain.request import ReasoningOptions, Request, ResponseFormat, Sampling
from cauce.domain.signature import Signature
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.engine.compose import collect
from cauce.ports.provider import Deltas
from cauce.wire.gemini.decode import GeminiDecoder
from cauce.wire.gemini.embeddings import parse_embed, parse_embed_all
from cauce.wire.gemini.errors import refused, render_error
from cauce.wire.gemini.render import GeminiProjector, Head, render_answer
from cauce.wire.gemini.request import parse_request, render_request
from cauce.wire.signing import seal

encode = msgspec.json.encode
decode = msgspec.json.decode

WIRE = "gemini"
HEAD = Head("resp_1", "m", thoughts=True)
HI = [{"role": "user", "parts": [{"text": "hi"}]}]
USAGE = {
    "promptTokenCount": 5,
    "cachedContentTokenCount": 2,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 15,
}
ASKED = Request("m", (Message("user", (TextPart("hi"),)),))


def parsed(**body: Any) -> Request:
    return parse_request(encode({"contents": HI, **body}), "m", stream=False)


def sent(request: Request, model: str = "gemini-2.5-flash") -> dict[str, Any]:
    return decode(encode(render_request(request, model)))


def event(parts: list[Any], reason: str | None = None, **more: Any) -> bytes:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return b"data: " + encode({"candidates": [candidate], **more}) + b"\r\n\r\n"


def read(*events: bytes) -> list[Delta]:
    decoder = GeminiDecoder("up")
    return [*decoder.feed(b"".join(events)), *decoder.finish()]


def whole(deltas: Sequence[Delta]) -> Completion:
    async def source() -> AsyncGenerator[Sequence[Delta], None]:
        yield deltas

    async def run() -> Completion:
        return await collect(Deltas(source()))

    return asyncio.run(run())


def shown(deltas: Sequence[Delta], head: Head = HEAD) -> list[dict[str, Any]]:
    lines = GeminiProjector(head).feed(deltas).decode().split("\r\n")
    return [decode(line[6:]) for line in lines if line.startswith("data: ")]


class TestRequests:
    def test_snake_case_and_camel_case_mean_the_same(self) -> None:
        snake = parsed(
            system_instruction={"parts": [{"text": "s"}]},
            generation_config={
                "max_output_tokens": 5,
                "top_p": 0.5,
                "response_mime_type": "application/json",
                "response_json_schema": {"type": "object", "properties": {"snake_key": {"type": "string"}}},
                "thinking_config": {"include_thoughts": True, "thinking_budget": 7},
            },
            tools=[{"function_declarations": [{"name": "f", "parameters_json_schema": {"some_key": 1}}]}],
            tool_config={"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
        )
        camel = parsed(
            systemInstruction={"parts": [{"text": "s"}]},
            generationConfig={
                "maxOutputTokens": 5,
                "topP": 0.5,
                "responseMimeType": "application/json",
                "responseJsonSchema": {"type": "object", "properties": {"snake_key": {"type": "string"}}},
                "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 7},
            },
            tools=[{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"some_key": 1}}]}],
            toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        )
        assert snake == camel
        assert camel.response_format is not None and camel.response_format.schema is not None
        assert camel.response_format.schema["properties"].keys() == {"snake_key"}
        assert camel.tools == (Tool("f", None, {"some_key": 1}),)
        assert camel.tool_choice == ToolChoice("tool", "f")
        assert camel.reasoning == ReasoningOptions(budget_tokens=7, visible=True)

    def test_results_find_the_call_they_answer_though_neither_has_an_id(self) -> None:
        call = {"functionCall": {"name": "f", "args": {"a": 1}}}
        results = [{"functionResponse": {"name": "f", "response": {"result": answer}}} for answer in ("1", "2")]
        request = parsed(
            contents=[
                *HI,
                {"role": "model", "parts": [call, call]},
                {"role": "user", "parts": [*results, {"text": "?"}]},
            ]
        )
        calls = [part.call_id for part in request.messages[1].parts if isinstance(part, ToolCallPart)]
        assert len(set(calls)) == 2
        assert [message.call_id for message in request.messages[2:4]] == calls
        assert [message.text for message in request.messages[2:]] == ["1", "2", "?"]
        assert sent(request)["contents"][1]["parts"] == [call, call]

    def test_chat_request_becomes_what_the_api_wants(self) -> None:
        request = Request(
            "m",
            (
                Message("system", (TextPart("be brief"),)),
                Message("user", (TextPart("look"), ImagePart("data:image/png;base64,AAAA"))),
                Message("assistant", (TextPart("I call"), ToolCallPart("toolu_1", "f", '{"x":1}'))),
                Message("tool", (TextPart("42"),), call_id="toolu_1"),
                Message("tool", (TextPart("no such file"),), "g", "toolu_2", failed=True),
                Message("user", (DocumentPart("data:application/pdf;base64,BBBB", "application/pdf", "a.pdf"),)),
            ),
            sampling=Sampling(temperature=0.5, top_k=3, max_tokens=9, stop=("END",), seed=1, n=2, logprobs=3),
            tools=(Tool("f", "does f", {"type": "object"}),),
            tool_choice=ToolChoice("required"),
            response_format=ResponseFormat("json_schema", "n", {"type": "object"}),
        )
        body = sent(request)
        assert body["systemInstruction"] == {"parts": [{"text": "be brief"}]}
        assert [content["role"] for content in body["contents"]] == ["user", "model", "user", "user"]
        assert body["contents"][0]["parts"][1] == {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
        assert body["contents"][1]["parts"][1] == {"functionCall": {"name": "f", "args": {"x": 1}, "id": "toolu_1"}}
        assert body["contents"][2]["parts"] == [
            {"functionResponse": {"name": "f", "response": {"result": 42}, "id": "toolu_1"}},
            {"functionResponse": {"name": "g", "response": {"error": "no such file"}, "id": "toolu_2"}},
        ]
        assert body["contents"][3]["parts"] == [{"inlineData": {"mimeType": "application/pdf", "data": "BBBB"}}]
        assert body["generationConfig"] == {
            "temperature": 0.5,
            "topK": 3,
            "maxOutputTokens": 9,
            "stopSequences": ["END"],
            "seed": 1,
            "candidateCount": 2,
            "responseLogprobs": True,
            "logprobs": 3,
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
        }
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
        assert body["tools"] == [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "does f", "parametersJsonSchema": {"type": "object"}}
                ]
            }
        ]

    @pytest.mark.parametrize(
        ("model", "options", "config"),
        [
            ("gemini-3-pro-preview", ReasoningOptions(effort="low"), {"thinkingLevel": "LOW"}),
            ("gemini-3-pro-preview", ReasoningOptions(effort="medium"), {"thinkingLevel": "HIGH"}),
            ("gemini-3.1-pro-preview", ReasoningOptions(effort="medium"), {"thinkingLevel": "MEDIUM"}),
            ("gemini-3.1-pro-preview", ReasoningOptions(enabled=False), {"thinkingLevel": "LOW"}),
            ("gemini-3.5-flash", ReasoningOptions(enabled=False), {"thinkingLevel": "MINIMAL"}),
            ("gemini-3.5-flash", ReasoningOptions(effort="max"), {"thinkingLevel": "HIGH"}),
            ("gemini-3.5-flash", ReasoningOptions(budget_tokens=2000), {"thinkingLevel": "MEDIUM"}),
            ("gemini-flash-latest", ReasoningOptions(effort="minimal"), {"thinkingLevel": "LOW"}),
            (
                "gemini-2.5-flash",
                ReasoningOptions(effort="low", visible=True),
                {"includeThoughts": True, "thinkingBudget": 1024},
            ),
            ("gemini-2.5-pro", ReasoningOptions(effort="none"), {"thinkingBudget": 128}),
            ("gemini-2.5-pro", ReasoningOptions(effort="max"), {"thinkingBudget": 32_768}),
            ("gemini-2.5-flash", ReasoningOptions(budget_tokens=32_000), {"thinkingBudget": 24_576}),
            ("gemini-2.5-flash-lite", ReasoningOptions(budget_tokens=100), {"thinkingBudget": 512}),
            ("gemini-2.5-flash-image", ReasoningOptions(effort="high"), None),
            ("gemini-2.5-flash", ReasoningOptions(effort="none"), {"thinkingBudget": 0}),
            ("gemini-2.5-flash", ReasoningOptions(budget_tokens=100), {"thinkingBudget": 100}),
            ("gemini-2.0-flash", ReasoningOptions(effort="high"), None),
        ],
    )
    def test_effort_is_told_in_the_words_of_the_model(
        self, model: str, options: ReasoningOptions, config: dict[str, Any] | None
    ) -> None:
        body = sent(msgspec.structs.replace(ASKED, reasoning=options), model)
        assert body.get("generationConfig", {}).get("thinkingConfig") == config

    def test_signature_goes_back_on_the_call_it_came_with_and_only_to_this_wire(self) -> None:
        def call(signature: Signature | None) -> Request:
            part = ToolCallPart("x", "f", "{}", signature=signature)
            return Request("m", (*ASKED.messages, Message("assistant", (part,))))

        def signed(signature: Signature | None, model: str) -> str | None:
            return sent(call(signature), model)["contents"][1]["parts"][0].get("thoughtSignature")

        assert signed(Signature(WIRE, "abc"), "gemini-2.5-flash") == "abc"
        assert signed(Signature("anthropic_messages", "abc"), "gemini-2.5-flash") is None
        assert signed(None, "gemini-3-pro-preview") == "skip_thought_signature_validator"

    def test_signature_handed_back_with_reasoning_on_another_wire_goes_to_the_call_behind_it(self) -> None:
        deltas = read(event([{"functionCall": {"name": "f"}, "thoughtSignature": "s"}], "STOP"))
        kept = next(delta for delta in deltas if isinstance(delta, Reasoning))
        assert kept.signature == Signature(WIRE, "s")
        for text in ("", "as another wire kept it"):
            parts = (ReasoningPart(text, kept.signature), ToolCallPart("x", "f", "{}"))
            contents = sent(Request("m", (*ASKED.messages, Message("assistant", parts))))["contents"]
            assert contents[1]["parts"][-1]["thoughtSignature"] == "s"
        assert shown(deltas)[0]["candidates"][0]["content"]["parts"][0]["functionCall"]["name"] == "f"

    def test_sealed_signature_of_another_wire_is_recognised_when_it_comes_back(self) -> None:
        foreign = Signature("anthropic_messages", "sig")
        part = {"text": "hm", "thought": True, "thoughtSignature": seal(foreign, WIRE)}
        request = parsed(contents=[*HI, {"role": "model", "parts": [part, {"text": "a"}]}])
        assert request.messages[1].parts[0] == ReasoningPart("hm", foreign, Extra(WIRE, {}))
        assert sent(request)["contents"][1]["parts"] == [{"text": "a"}]

    def test_tools_the_api_runs_itself_ride_along_and_those_of_others_are_refused(self) -> None:
        request = parsed(tools=[{"googleSearch": {}}, {"functionDeclarations": [{"name": "f"}]}])
        assert request.tools == (OpaqueTool(WIRE, "googleSearch", {"googleSearch": {}}), Tool("f"))
        assert {"googleSearch": {}} in sent(request)["tools"]
        foreign = msgspec.structs.replace(ASKED, tools=(OpaqueTool("openai_chat", "web_search", {}),))
        with pytest.raises(Unsupported, match="web_search"):
            render_request(foreign, "m")

    def test_one_alone_stands_for_a_list_of_one_and_text_for_a_number(self) -> None:
        loose = {
            "contents": {"parts": {"text": "hi"}},
            "system_instruction": {"parts": {"text": ""}},
            "tools": {"function_declarations": [{"name": "f"}]},
            "tool_config": {"function_calling_config": {"mode": "any"}},
            "generation_config": {"max_output_tokens": "50", "top_k": 40.0, "temperature": "0.5"},
        }
        request = parse_request(encode(loose), "m", stream=False)
        assert request.messages == ASKED.messages
        assert request.tools == (Tool("f"),) and request.tool_choice == ToolChoice("required")
        assert request.sampling == Sampling(0.5, top_k=40, max_tokens=50)

    @pytest.mark.parametrize(
        "deep",
        [
            b'"contents":[{"parts":[{"x":' + b"[" * 900 + b"]" * 900 + b"}]}]",
            b'"contents":[],"tools":[{"functionDeclarations":[{"name":"f","parameters":'
            + b'{"properties":{"a":' * 450
            + b"1"
            + b"}}" * 450
            + b"}]}]",
        ],
    )
    def test_body_that_is_nested_too_deeply_is_refused(self, deep: bytes) -> None:
        for parse in (lambda data: parse_request(data, "m", stream=False), lambda data: parse_embed(data, "m")):
            with pytest.raises(InvalidRequest):
                parse(b"{" + deep + b"}")

    def test_restricted_schema_becomes_json_schema(self) -> None:
        restricted = {
            "type": "OBJECT",
            "properties": {
                "type": {"type": "STRING", "nullable": True},
                "n": {"type": "ARRAY", "items": {"type": "NUMBER"}},
            },
            "propertyOrdering": ["type", "n"],
        }
        request = parsed(generationConfig={"responseMimeType": "application/json", "responseSchema": restricted})
        assert request.response_format is not None
        assert request.response_format.schema == {
            "type": "object",
            "properties": {"type": {"type": ["string", "null"]}, "n": {"type": "array", "items": {"type": "number"}}},
        }

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"contents": []}, "contents"),
            ({"contents": 5}, "contents"),
            ({"contents": [{"role": "robot", "parts": [{"text": "a"}]}]}, "contents[0].role"),
            ({"contents": [{"role": "user"}]}, "contents[0].parts"),
            ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents[0].parts[0].functionCall.name"),
            ({"contents": [{"parts": [{"functionResponse": {}}]}]}, "contents[0].parts[0].functionResponse.name"),
            ({"generationConfig": {"topP": "much"}}, "generationConfig.topP"),
            ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        ],
    )
    def test_mistake_names_its_field(self, body: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parsed(**body)
        assert caught.value.field == field

    texts = st.text(min_size=1, max_size=8)
    names = st.text("abcdef", min_size=1, max_size=5)
    data = st.sampled_from(["data:image/png;base64,AAAA", "data:image/jpeg;base64,/+8="])
    user = st.lists(
        st.one_of(
            texts.map(TextPart),
            data.map(ImagePart),
            st.just(DocumentPart("data:application/pdf;base64,AAAA", "application/pdf")),
            st.just(OpaquePart(WIRE, {"executableCode": {"code": "1"}})),
            st.builds(TextPart, texts, st.just(Extra(WIRE, {"thoughtSignature": "s"}))),
        ),
        min_size=1,
        max_size=3,
    ).map(lambda parts: Message("user", tuple(parts)))
    model = st.lists(
        st.one_of(
            texts.map(TextPart),
            st.builds(ReasoningPart, texts, st.builds(Signature, st.just(WIRE), names), st.just(Extra(WIRE, {}))),
            st.builds(
                ToolCallPart,
                names,
                names,
                st.dictionaries(names, st.integers(0, 9), max_size=2).map(lambda args: encode(args).decode()),
                signature=st.none() | st.builds(Signature, st.just(WIRE), names),
            ),
        ),
        min_size=1,
        max_size=3,
    ).map(lambda parts: Message("assistant", tuple(parts)))
    requests = st.builds(
        Request,
        model=st.just("m"),
        messages=st.lists(st.tuples(user, model), min_size=1, max_size=2).map(
            lambda pairs: (Message("system", (TextPart("s"),)), *[message for pair in pairs for message in pair])
        ),
        sampling=st.builds(
            Sampling,
            temperature=st.none() | st.floats(0, 2),
            top_p=st.none() | st.floats(0, 1),
            top_k=st.none() | st.integers(1, 40),
            max_tokens=st.none() | st.integers(1, 99),
            stop=st.lists(texts, max_size=2).map(tuple),
            seed=st.none() | st.integers(0, 9),
            presence_penalty=st.none() | st.floats(-2, 2),
            n=st.integers(1, 3),
            logprobs=st.none() | st.integers(0, 5),
        ),
        tools=st.lists(
            st.builds(Tool, names, st.none() | texts, st.just({"type": "object"}))
            | st.just(OpaqueTool(WIRE, "googleSearch", {"googleSearch": {}})),
            max_size=2,
        ).map(lambda tools: tuple(sorted(tools, key=lambda tool: isinstance(tool, OpaqueTool)))),
        tool_choice=st.sampled_from([None, ToolChoice("auto"), ToolChoice("required"), ToolChoice("tool", "f")]),
        response_format=st.sampled_from(
            [None, ResponseFormat("json_object"), ResponseFormat("json_schema", None, {"type": "object"})]
        ),
        reasoning=st.sampled_from([None, ReasoningOptions(budget_tokens=5, visible=True)]),
    ).filter(lambda request: bool(request.tools) or request.tool_choice != ToolChoice("auto"))
    """Without tools there is nothing to choose from, and nothing is said of it."""

    @given(requests)
    def test_request_reads_back_as_it_was_written(self, request: Request) -> None:
        body = encode(render_request(request, "gemini-2.5-flash"))
        back = parse_request(body, "m", stream=False)
        # What this wire's own clients say of tools and thinking rides along beside its meaning.
        assert msgspec.structs.replace(back, extra=None) == request
        assert decode(encode(render_request(back, "gemini-2.5-flash"))) == decode(body)


class TestAnswers:
    def test_stream_is_read_whatever_its_line_ends(self) -> None:
        events = (
            event([{"text": "hm", "thought": True}])
            + event([{"text": "Hel"}])
            + event([{"text": "lo", "thoughtSignature": "sig"}], "STOP", usageMetadata=USAGE)
        )
        for ends in (b"\r\n", b"\n", b"\r"):
            completion = whole(read(events.replace(b"\r\n", ends)))
            assert (completion.choices[0].text, completion.choices[0].reasoning) == ("Hello", "hm")
            usage = completion.usage
            assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (
                5,
                10,
                2,
                3,
            )

    def test_only_the_last_usage_counts(self) -> None:
        deltas = read(
            event([{"text": "a"}], usageMetadata={"promptTokenCount": 900, "candidatesTokenCount": 4}),
            event([{"text": "b"}], "STOP", usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 1}),
        )
        finish = deltas[-1]
        assert isinstance(finish, Finish) and finish.usage.total_tokens == 6

    def test_turn_with_calls_ends_in_tool_calls_though_it_says_stop(self) -> None:
        deltas = read(event([{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "s"}], "STOP"))
        ready = next(delta for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "ready")
        assert (ready.arguments, ready.signature) == ('{"a":1}', Signature(WIRE, "s"))
        assert isinstance(deltas[-1], Finish) and deltas[-1].reason == "tool_calls"

    def test_call_in_fragments_is_put_together_though_its_last_one_never_comes(self) -> None:
        def fragment(path: str, text: str) -> dict[str, Any]:
            partial = [{"jsonPath": path, "stringValue": text, "willContinue": True}]
            return {"functionCall": {"partialArgs": partial, "willContinue": True}}

        completion = whole(
            read(
                event([{"functionCall": {"name": "f", "willContinue": True}}]),
                event([fragment("$.list[0].name", "Ba")]),
                event([fragment("$.list[0].name", "nana"), fragment("$.list[1].name", "Fig")]),
                event([], "STOP"),
            )
        )
        (call,) = completion.choices[0].tool_calls
        assert decode(call.arguments) == {"list": [{"name": "Banana"}, {"name": "Fig"}]}

    def test_names_in_the_path_of_a_fragment_may_be_quoted(self) -> None:
        partial = [
            {"jsonPath": "$['two words'].a", "numberValue": 1},
            {"jsonPath": '$["it\\"s"][0]', "boolValue": True},
            {"jsonPath": "$.none", "nullValue": "NULL_VALUE"},
        ]
        completion = whole(read(event([{"functionCall": {"name": "f", "partialArgs": partial}}], "STOP")))
        (call,) = completion.choices[0].tool_calls
        assert decode(call.arguments) == {"two words": {"a": 1}, 'it"s': [True], "none": None}

    def test_blocked_prompt_is_an_answer_that_says_so(self) -> None:
        body = encode({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}})
        completion = whole(GeminiDecoder("up").completion(body))
        assert completion.choices[0].finish_reason == "content_filter"
        assert decode(render_answer(completion, HEAD))["promptFeedback"] == {"blockReason": "SAFETY"}
        assert "candidates" not in decode(render_answer(completion, HEAD))

    @pytest.mark.parametrize(
        ("reason", "common"),
        [("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("NEW_WORD", "stop"), (7, "stop")],
    )
    def test_reason_is_common_inside_and_its_own_word_on_this_wire(self, reason: Any, common: str) -> None:
        deltas = read(event([{"text": "a"}], reason))
        assert isinstance(deltas[-1], Finish) and deltas[-1].reason == common
        if isinstance(reason, str):
            assert shown(deltas)[-1]["candidates"][0]["finishReason"] == reason

    @pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "MISSING_THOUGHT_SIGNATURE", "OTHER"])
    def test_reason_that_means_the_model_broke_is_a_failure(self, reason: str) -> None:
        with pytest.raises(ProviderFailure, match=reason) as caught:
            read(event([], reason))
        assert caught.value.failure == "transient"

    def test_stream_without_a_finish_reason_was_cut(self) -> None:
        decoder = GeminiDecoder("up")
        assert decoder.feed(event([{"text": "a"}]))
        with pytest.raises(ProviderFailure, match="cut off"):
            decoder.finish()

    @pytest.mark.parametrize(
        "error",
        [
            b'{\n  "error": {\n    "code": 503,\n    "message": "overloaded",\n    "status": "UNAVAILABLE"\n  }\n}\n',
            b'data: {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}\n\n',
            b'[{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}]',
        ],
    )
    def test_error_in_a_stream_is_found_in_each_of_its_forms(self, error: bytes) -> None:
        decoder = GeminiDecoder("up")
        deltas = decoder.feed(event([{"text": "a"}]) + error)
        assert [delta.text for delta in deltas if isinstance(delta, Text)] == ["a"]
        with pytest.raises(ProviderFailure, match="overloaded") as caught:
            decoder.finish()
        assert caught.value.failure == "overloaded"

    def test_answer_that_is_not_over_goes_on_in_the_next_and_both_are_counted(self) -> None:
        decoder = GeminiDecoder("up")
        usage = {"promptTokenCount": 5, "candidatesTokenCount": 1}
        deltas = decoder.feed(event([{"text": "a"}], "CONTINUATION", continuationToken="t", usageMetadata=usage))
        assert decoder.finish() == [] and decoder.continuation == "t"
        decoder.resume()
        deltas += [*decoder.feed(event([{"text": "b"}], "STOP", usageMetadata=usage)), *decoder.finish()]
        completion = whole(deltas)
        assert (completion.choices[0].text, completion.usage.total_tokens) == ("ab", 12)

    def test_token_of_an_answer_that_goes_on_stands_in_its_candidate(self) -> None:
        def part(text: str, reason: str | None, **more: Any) -> bytes:
            candidate = {"content": {"parts": [{"text": text}]}, "finishReason": reason, **more}
            return b"data: " + encode({"candidates": [candidate]}) + b"\r\n\r\n"

        decoder = GeminiDecoder("up")
        decoder.feed(part("a", None, continuationToken="one") + part("b", "CONTINUATION", continuationToken="two"))
        assert decoder.finish() == [] and decoder.continuation == "two"
        decoder.resume()
        # A token on the way is a checkpoint: an answer that has ended does not go on from it.
        decoder.feed(part("c", None, continuationToken="three") + part("d", "STOP"))
        assert isinstance(decoder.finish()[-1], Finish) and decoder.continuation is None

    @pytest.mark.parametrize(
        "content",
        [
            7,
            "text",
            {"parts": 7},
            {"parts": ["text"]},
            {"parts": [{"text": 7}]},
            {"parts": [{"text": ["a"], "thought": True}]},
            {"parts": [{"functionCall": "f"}]},
        ],
    )
    def test_content_that_cannot_be_read_is_a_failure_and_not_left_out(self, content: Any) -> None:
        broken = b"data: " + encode({"candidates": [{"content": content}]}) + b"\r\n\r\n"
        with pytest.raises(ProviderFailure) as caught:
            read(event([{"text": "a"}]) + broken + event([{"text": "b"}], "STOP"))
        assert caught.value.shape

    def test_content_that_is_not_there_is_none(self) -> None:
        empty = [
            b"data: " + encode({"candidates": [one]}) + b"\r\n\r\n" for one in ({"content": {}}, {"content": None})
        ]
        completion = whole(read(event([{"text": "a"}]), *empty, event([{"text": "b"}], "STOP")))
        assert completion.choices[0].text == "ab"

    def test_answer_that_goes_on_without_saying_where_is_a_failure(self) -> None:
        with pytest.raises(ProviderFailure, match="goes on"):
            read(event([{"text": "a"}], "CONTINUATION"))

    def test_texts_of_one_answer_keep_apart_with_their_signatures(self) -> None:
        parts = [{"text": "one", "thoughtSignature": "s1"}, {"text": "two", "thoughtSignature": "s2"}]
        body = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
        completion = whole(GeminiDecoder("up").completion(encode(body)))
        assert decode(render_answer(completion, HEAD))["candidates"][0]["content"]["parts"] == parts

    def test_conversation_kept_from_a_stream_is_what_was_said(self) -> None:
        call = {"functionCall": {"name": "f", "args": {}}}
        pieces = [{"text": "Hel"}, {"text": "lo"}, call, {"text": ""}]
        kept = [{"role": "model", "parts": piece} for piece in pieces]
        said = parsed(contents=[*HI, *kept]).messages[1]
        assert [type(part) for part in said.parts] == [TextPart, ToolCallPart] and said.text == "Hello"

    def test_parts_and_what_stands_beside_them_come_back_on_this_wire(self) -> None:
        parts = [
            {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"},
            {"text": "one"},
            {"text": "two"},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        ]
        grounding = {"groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}]}
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
        body = {
            "candidates": [{**candidate, "groundingMetadata": grounding, "avgLogprobs": -0.5}],
            "usageMetadata": USAGE,
            "createTime": "now",
        }
        completion = whole(GeminiDecoder("up").completion(encode(body)))
        assert decode(render_answer(completion, HEAD)) == {**body, "modelVersion": "m", "responseId": "resp_1"}

    def test_sources_and_probabilities_are_told_to_clients_of_other_wires(self) -> None:
        chosen = {"chosenCandidates": [{"token": "a", "logProbability": -0.1}]}
        beside = {
            "groundingMetadata": {"groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}]},
            "logprobsResult": {**chosen, "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2}]}]},
        }
        candidate = {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP", **beside}
        completion = whole(GeminiDecoder("up").completion(encode({"candidates": [candidate]})))
        part = completion.choices[0].parts[0]
        assert isinstance(part, TextPart) and part.citations[0].url == "https://a.example"
        assert completion.choices[0].logprobs == (TokenLogprob("a", -0.1, top=(TokenLogprob("b", -2.0),)),)

    def test_answer_of_another_wire_is_shown_as_the_api_would(self) -> None:
        foreign = Signature("anthropic_messages", "sig")
        deltas: list[Delta] = [
            Reasoning("hm", foreign),
            Text("a"),
            Refusal("no"),
            ToolCall(0, "toolu_1", "f", '{"x":1}', "piece"),
            ToolCall(0, "toolu_1", "f", '{"x":1}', "ready"),
            Citation("https://a.example", "A"),
            Opaque("anthropic_messages", {"type": "x"}),
            Finish("tool_calls", Usage(5, 9, 2, 0, 4)),
        ]
        answers = shown(deltas)
        *parts, end = [part for answer in answers for part in answer["candidates"][0]["content"]["parts"]]
        # Readers that keep a conversation forget a turn that has an event without parts.
        assert end == {"text": ""}
        assert parts == [
            {"text": "hm", "thought": True, "thoughtSignature": seal(foreign, WIRE)},
            {"text": "a"},
            {"text": "no"},
            {"functionCall": {"name": "f", "args": {"x": 1}, "id": "toolu_1"}},
        ]
        last = answers[-1]
        assert last["candidates"][0]["finishReason"] == "STOP"
        assert last["candidates"][0]["groundingMetadata"]["groundingChunks"][0]["web"]["uri"] == "https://a.example"
        assert last["usageMetadata"] == {
            "promptTokenCount": 5,
            "candidatesTokenCount": 5,
            "totalTokenCount": 14,
            "cachedContentTokenCount": 2,
            "thoughtsTokenCount": 4,
        }
        plain = decode(render_answer(whole(deltas), HEAD))
        assert plain["candidates"][0]["content"]["parts"] == parts
        assert not any(
            "thought" in part for part in shown(deltas, Head("r", "m"))[0]["candidates"][0]["content"]["parts"]
        )

    def test_list_is_one_json_value_however_the_answer_ends(self) -> None:
        failed = Finish("error", outcome="incomplete", error=Failed("overloaded", "busy", 2.0))
        for ending in (Finish("stop"), failed):
            projector = GeminiProjector(HEAD, listed=True)
            listed = decode(projector.feed([Text("a")]) + projector.feed([Text("b")]) + projector.feed([ending]))
            assert [one["candidates"][0]["content"]["parts"][0]["text"] for one in listed[:2]] == ["a", "b"]
        assert listed[-1]["error"]["status"] == "UNAVAILABLE"
        assert listed[-1]["error"]["details"][0]["retryDelay"] == "2s"

    text = st.text(max_size=20)
    calls = st.lists(
        st.builds(
            ToolCallPart,
            st.text("abc", min_size=1, max_size=4),
            st.text("abc", min_size=1, max_size=4),
            st.dictionaries(st.text("ab", min_size=1), st.integers(0, 9), max_size=2).map(
                lambda args: encode(args).decode()
            ),
        ),
        max_size=2,
    )

    @given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), calls)
    def test_plain_answer_reads_back_as_it_was_written(
        self, text: str, thought: str, calls: list[ToolCallPart]
    ) -> None:
        parts = (ReasoningPart(thought), TextPart(text), *calls)
        choice = Choice(parts, "tool_calls" if calls else "stop")
        completion = Completion((choice,), Usage(5, 9, 2, 0, 4))
        back = whole(GeminiDecoder("up").completion(render_answer(completion, HEAD)))
        assert back.choices[0].parts == parts and back.choices[0].finish_reason == choice.finish_reason
        assert msgspec.structs.replace(back.usage, extra=None) == completion.usage

    @given(
        st.lists(
            st.one_of(
                st.text(min_size=1, max_size=8).map(Text),
                st.text(min_size=1, max_size=8).map(Reasoning),
                st.builds(Text, st.text(min_size=1, max_size=8), st.just(1)),
            ),
            min_size=1,
            max_size=8,
        ),
        st.data(),
    )
    def test_stream_reads_back_alike_however_its_bytes_are_split(
        self, deltas: list[Delta], data: st.DataObject
    ) -> None:
        reasons = ("stop", "length") if any(delta.choice for delta in deltas) else ()
        frames = GeminiProjector(HEAD).feed([*deltas, Finish("stop", Usage(1, 2), reasons)])
        cuts = sorted(data.draw(st.lists(st.integers(0, len(frames)), max_size=8)))
        decoder = GeminiDecoder("up")
        back: list[Delta] = []
        for start, end in zip([0, *cuts], [*cuts, len(frames)], strict=True):
            back += decoder.feed(frames[start:end])
        back += decoder.finish()
        again = [delta for delta in back if isinstance(delta, Text | Reasoning)]
        assert [(type(delta), delta.text, delta.choice) for delta in again] == [
            (type(delta), delta.text, delta.choice) for delta in deltas if isinstance(delta, Text | Reasoning)
        ]

    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "candidates", "content", "parts", "text", "thought", "functionCall", "name", "args", "partialArgs", "jsonPath",
                    "stringValue", "willContinue", "finishReason", "index", "usageMetadata", "promptTokenCount", "error",
                    "details", "promptFeedback", "blockReason", "groundingMetadata", "groundingChunks", "logprobsResult",
                    "chosenCandidates", "thoughtSignature", "citationMetadata", "citationSources",
                ]
            ),
            inner,
            max_size=4,
        ),
        max_leaves=12,
    )  # fmt: skip

    @given(st.lists(st.binary(max_size=40) | junk.map(lambda value: b"data: " + encode(value) + b"\n\n"), max_size=6))
    def test_bytes_of_any_kind_end_in_a_typed_error_or_an_answer(self, pieces: list[bytes]) -> None:
        decoder = GeminiDecoder("up")
        try:
            for piece in pieces:
                decoder.feed(piece)
            decoder.finish()
        except ProviderFailure as failure:
            assert failure.provider == "up"
        try:
            GeminiDecoder("up").completion(b"".join(pieces))
        except ProviderFailure as failure:
            assert failure.provider == "up"

    @given(junk)
    def test_json_of_any_shape_is_a_request_or_names_what_is_wrong(self, value: Any) -> None:
        for body in (value, {"contents": value}, {"contents": HI, "generationConfig": value, "tools": value}):
            for parse in (lambda data: parse_request(data, "m", stream=False), lambda data: parse_embed(data, "m")):
                try:
                    parse(encode(body))
                except InvalidRequest as error:
                    assert error.message


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "error", "failure", "code", "delay"),
        [
            (400, {"status": "INVALID_ARGUMENT"}, "bad_request", "invalid_request", None),
            (
                400,
                {"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]},
                "auth",
                "provider_error",
                None,
            ),
            (
                400,
                {"message": "The input token count (9) exceeds the maximum"},
                "bad_request",
                "context_length_exceeded",
                None,
            ),
            (
                400,
                {"status": "FAILED_PRECONDITION", "message": "User location is not supported for the API use."},
                "auth",
                "provider_error",
                None,
            ),
            (403, {"status": "PERMISSION_DENIED"}, "auth", "provider_error", None),
            (403, {}, "transient", "provider_error", None),
            (404, {"status": "NOT_FOUND"}, "bad_request", "model_not_found", None),
            (
                429,
                {
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}],
                },
                "rate_limited",
                "rate_limited",
                34.4,
            ),
            (
                429,
                {
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"violations": [{"quotaId": "RequestsPerDayPerProject"}]}],
                },
                "quota",
                "quota_exceeded",
                None,
            ),
            (429, {"message": "Quota exceeded, limit: 0, model: x"}, "quota", "quota_exceeded", None),
            (500, {"status": "INTERNAL"}, "transient", "provider_error", None),
            (503, {"status": "UNAVAILABLE"}, "overloaded", "overloaded", None),
            # What stands before it says 529 when it is full.
            (529, {}, "overloaded", "overloaded", None),
            (504, {"status": "DEADLINE_EXCEEDED"}, "transient", "provider_error", None),
        ],
    )
    def test_error_is_classed_by_what_it_says(
        self, status: int, error: dict[str, Any], failure: str, code: str, delay: float | None
    ) -> None:
        body = {"error": {"code": status, "message": "it broke", **error}}
        for shape in (body, [body]):
            told = refused("up", status, {}, encode(shape))
            assert (told.failure, told.code, told.retry_after) == (failure, code, delay)

    def test_error_without_json_tells_its_status(self) -> None:
        assert "HTTP 502" in refused("up", 502, {}, b"<html>").message

    @pytest.mark.parametrize(
        ("error", "word"),
        [
            (Overloaded("x"), "UNAVAILABLE"),
            (Unauthorized("x"), "UNAUTHENTICATED"),
            (InvalidRequest("x"), "INVALID_ARGUMENT"),
        ],
    )
    def test_our_errors_are_shown_in_the_api_s_words(self, error: CauceError, word: str) -> None:
        shown = render_error(error)["error"]
        assert (shown["status"], shown["code"], shown["message"]) == (word, error.status, "x")


def test_batch_whose_members_ask_differently_is_refused() -> None:
    one = {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 3}
    assert parse_embed_all(encode({"requests": [one, one]}), "m").dimensions == 3
    with pytest.raises(InvalidRequest) as caught:
        parse_embed_all(encode({"requests": [one, {**one, "outputDimensionality": 4}]}), "m")
    assert caught.value.field == "requests[1]"


def test_refusal_of_an_earlier_turn_is_text_to_this_wire() -> None:
    request = Request("m", (*ASKED.messages, Message("assistant", (RefusalPart("no"),)), *ASKED.messages))
    assert sent(request)["contents"][1] == {"role": "model", "parts": [{"text": "no"}]}
