"""The chat wire in both directions."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import Delta, Failed, Finish, Reasoning, Status, Text, ToolCall
from cauce.domain.errors import InvalidRequest, ProviderFailure
from cauce.domain.message import ImagePart, Message, ReasoningPart, TextPart, ToolCallPart
from cauce.domain.request import Request, ResponseFormat, Sampling
from cauce.domain.tool import Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.answer import Head, render_completion
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_chat.errors import parse_error, to_failure
from cauce.wire.openai_chat.render import ChatProjector
from cauce.wire.openai_chat.request import parse_request, render_request

encode = msgspec.json.encode
HEAD = Head("id", "m", 5)


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **more.pop("choice", {})}
    return b"data: " + encode({"id": "c", "choices": [choice], **more}) + b"\n\n"


def read(*pieces: bytes) -> list[Delta]:
    decoder = ChatDecoder("up")
    deltas = [delta for piece in pieces for delta in decoder.feed(piece)]
    return deltas + decoder.finish()


def shown(projector: ChatProjector, deltas: list[Delta]) -> list[dict[str, Any]]:
    lines = projector.feed(deltas).split(b"\n\n")
    return [msgspec.json.decode(line[6:]) for line in lines if line.startswith(b"data: {")]


DONE = b"data: [DONE]\n\n"


class TestRequests:
    def test_what_a_client_sends_arrives_upstream_unchanged(self) -> None:
        body = {
            "model": "public-name",
            "messages": [
                {"role": "system", "content": "Be brief.", "cache_control": {"type": "ephemeral"}},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
            ],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 64,
            "n": 2,
            "stop": ["END"],
            "seed": 7,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "look",
                        "description": "Look.",
                        "parameters": {"type": "object"},
                        "strict": True,
                    },
                }
            ],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "parallel_tool_calls": False,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "animal", "schema": {"type": "object"}, "strict": True},
            },
            "reasoning_effort": "low",
            "user": "u1",
            "logprobs": True,
            "top_logprobs": 2,
            "some_future_field": {"deep": [1, 2]},
        }
        assert render_request(parse_request(encode(body)), "real-name", stream=False) == {**body, "model": "real-name"}

    @pytest.mark.parametrize(
        "foreign",
        [
            {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            {"response_format": {"type": "grammar", "grammar": "root ::= x"}},
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "defer": True}, "cache": 1}]},
            {"metadata": {"trace": "1"}},
        ],
    )
    def test_what_only_this_wire_knows_goes_through(self, foreign: dict[str, Any]) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **foreign}
        assert render_request(parse_request(encode(body)), "m", stream=False) == body

    def test_streams_upstream_always_ask_for_usage(self) -> None:
        request = parse_request(encode({"messages": [{"role": "user", "content": "hi"}], "stream": True}))
        assert request.stream and not request.include_usage
        body = render_request(request, "m", stream=True)
        assert body["stream"] is True and body["stream_options"] == {"include_usage": True}

    def test_null_counts_as_absent(self) -> None:
        request = parse_request(
            encode({"messages": [{"role": "user", "content": "hi"}], "temperature": None, "tools": None, "stop": None})
        )
        assert request.sampling == Sampling() and request.tools == ()

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"messages": []}, "messages"),
            ({}, "messages"),
            ({"messages": "hi"}, "messages"),
            ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role"),
            ({"messages": [{"role": "user"}]}, "messages[0].content"),
            ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
            ({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, "messages[0].content[0].type"),
            ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
            ({"messages": [{"role": "user", "content": "hi"}], "temperature": "hot"}, "temperature"),
            ({"messages": [{"role": "user", "content": "hi"}], "temperature": 9}, "temperature"),
            ({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 0}, "max_tokens"),
            ({"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function"}]}, "tools[0].function"),
            ({"messages": [{"role": "user", "content": "hi"}], "tool_choice": "maybe"}, "tool_choice"),
            (
                {"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_schema"}},
                "response_format.json_schema",
            ),
        ],
    )
    def test_mistake_names_its_field(self, body: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse_request(encode(body))
        assert caught.value.field == field
        assert field in caught.value.message

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"messages": "\xc3"}', b"nul"])
    def test_body_that_is_no_object_is_refused(self, body: bytes) -> None:
        with pytest.raises(InvalidRequest):
            parse_request(body)


class TestDecoding:
    def test_words_become_text_and_one_finish_with_usage_ends_them(self) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
        deltas = read(
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Ho"}),
            chunk({"content": "la"}),
            chunk({}, "stop"),
            b"data: " + encode({"choices": [], "usage": usage}) + b"\n\n",
            DONE,
        )
        assert [delta.text for delta in deltas if isinstance(delta, Text)] == ["Ho", "la"]
        finish = deltas[-1]
        assert isinstance(finish, Finish)
        assert finish.reason == "stop"
        assert (finish.usage.input_tokens, finish.usage.output_tokens, finish.usage.cached_tokens) == (3, 2, 1)

    def test_tool_calls_are_joined_by_index_and_repeated_whole_when_ready(self) -> None:
        def piece(index: int, arguments: str, **first: str) -> dict[str, Any]:
            function = {"arguments": arguments, **({"name": first["name"]} if first else {})}
            return {"tool_calls": [{"index": index, **({"id": first["id"]} if first else {}), "function": function}]}

        deltas = read(
            chunk(piece(0, "", id="a", name="one")),
            chunk(piece(0, '{"x"')),
            chunk(piece(1, "{}", id="b", name="two")),
            chunk(piece(0, ": 1}")),
            chunk({}, "tool_calls"),
            DONE,
        )
        ready = [delta for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "ready"]
        assert [(call.call_id, call.name, call.arguments) for call in ready] == [
            ("a", "one", '{"x": 1}'),
            ("b", "two", "{}"),
        ]
        assert isinstance(deltas[-1], Finish) and deltas[-1].reason == "tool_calls"

    def test_two_calls_under_one_index_stay_two_and_keep_what_only_this_wire_knows(self) -> None:
        def call(id: str, arguments: str) -> dict[str, Any]:
            function = {"name": f"f_{id}", "arguments": arguments, "note": id}
            return {"tool_calls": [{"index": 0, "id": id, "function": function, "extra_content": {"signature": id}}]}

        deltas = read(chunk(call("a", '{"a":1}')), chunk(call("b", '{"b":2}'), "tool_calls"), DONE)
        ready = [delta for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "ready"]
        assert [(one.call_id, one.name, one.arguments) for one in ready] == [
            ("a", "f_a", '{"a":1}'),
            ("b", "f_b", '{"b":2}'),
        ]
        shown_calls = [
            one["choices"][0]["delta"]["tool_calls"][0]
            for one in shown(ChatProjector(HEAD), deltas)
            if "tool_calls" in one["choices"][0]["delta"]
        ]
        assert [(one["index"], one["extra_content"], one["function"]["note"]) for one in shown_calls] == [
            (0, {"signature": "a"}, "a"),
            (1, {"signature": "b"}, "b"),
        ]

    def test_call_of_a_custom_tool_is_read_and_shown_again(self) -> None:
        call = {"id": "a", "type": "custom", "custom": {"name": "math", "input": "4 + 4"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        deltas = ChatDecoder("up").completion(
            encode({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
        )
        (ready,) = [delta for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "ready"]
        assert (ready.name, ready.arguments) == ("math", '{"input":"4 + 4"}')
        part = ToolCallPart(ready.call_id, ready.name, ready.arguments, ready.extra)
        shown_again = render_completion(Completion((Choice((part,)),), Usage()), HEAD)
        assert json.loads(shown_again)["choices"][0]["message"]["tool_calls"] == [call]

    def test_choice_without_a_finish_reason_was_cut(self) -> None:
        with pytest.raises(ProviderFailure, match="cut off"):
            read(chunk({"content": "a"}, choice={"index": 1}), chunk({"content": "b"}, "stop"), DONE)

    @pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
    def test_reasoning_of_either_spelling_is_reasoning(self, field: str) -> None:
        deltas = read(chunk({field: "hm"}), chunk({"content": "ok"}, "stop"))
        assert [type(delta) for delta in deltas] == [Reasoning, Text, Finish]
        assert shown(ChatProjector(HEAD), deltas)[1]["choices"][0]["delta"] == {field: "hm"}

    def test_list_typed_content_gives_text_and_reasoning(self) -> None:
        content = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
            {"type": "text", "text": "ok"},
        ]
        assert read(chunk({"content": content}), chunk({}, "stop"))[:2] == [Reasoning("hm"), Text("ok")]

    def test_usage_beside_choices_and_in_x_groq_is_read(self) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        for more in ({"usage": usage}, {"x_groq": {"id": "r", "usage": usage}}):
            finish = read(chunk({"content": "a"}), chunk({}, "stop", **more), DONE)[-1]
            assert isinstance(finish, Finish) and finish.usage.total_tokens == 2

    def test_first_chunk_without_choices_does_not_open_the_answer(self) -> None:
        decoder = ChatDecoder("azure")
        empty = b"data: " + encode({"id": "", "choices": [], "prompt_filter_results": [{"x": 1}]}) + b"\n\n"
        assert decoder.feed(empty) == []
        text = decoder.feed(chunk({"content": "a"}))[0]
        assert text.extra is not None and text.extra.data["chunk"] == {"prompt_filter_results": [{"x": 1}]}

    def test_repeated_finish_reason_gives_one_finish(self) -> None:
        deltas = read(chunk({"content": "a"}, "stop"), chunk({"role": "assistant"}, "stop"), DONE)
        assert sum(isinstance(delta, Finish) for delta in deltas) == 1

    @pytest.mark.parametrize("end", [b"", DONE])
    def test_end_without_finish_reason_is_a_failure(self, end: bytes) -> None:
        with pytest.raises(ProviderFailure, match="cut off"):
            read(chunk({"content": "half"}), end)

    def test_what_follows_done_belongs_to_nobody(self) -> None:
        decoder = ChatDecoder("up")
        decoder.feed(chunk({"content": "a"}, "stop") + DONE + chunk({"content": "b"}))
        assert decoder.done

    @pytest.mark.parametrize(
        ("error", "failure", "code"),
        [
            ({"message": "no money", "code": "insufficient_quota"}, "quota", "quota_exceeded"),
            ({"message": "busy", "type": "overloaded_error"}, "overloaded", "overloaded"),
            ({"message": "slow down", "status_code": 429}, "rate_limited", "rate_limited"),
            ({"message": "?", "code": 503}, "overloaded", "overloaded"),
            ("plain words", "transient", "provider_error"),
        ],
    )
    def test_error_inside_a_stream_is_raised_with_its_class(self, error: Any, failure: str, code: str) -> None:
        with pytest.raises(ProviderFailure) as caught:
            read(chunk({"content": "a"}), b"event: error\ndata: " + encode({"error": error}) + b"\n\n")
        assert (caught.value.failure, caught.value.code) == (failure, code)

    def test_text_that_comes_in_the_same_bytes_as_an_error_is_handed_out_before_it(self) -> None:
        decoder = ChatDecoder("up")
        error = b'data: {"error": {"message": "busy", "code": "server_is_overloaded"}}\n\n'
        deltas = decoder.feed(chunk({"content": "a"}) + error)
        assert [delta.text for delta in deltas if isinstance(delta, Text)] == ["a"] and decoder.done
        with pytest.raises(ProviderFailure, match="busy"):
            decoder.finish()

    @given(st.binary(max_size=120))
    def test_no_bytes_end_in_anything_but_deltas_or_a_typed_error(self, raw: bytes) -> None:
        for body in (raw, b"data: " + raw + b"\n\n", b'data: {"choices": ' + raw + b"}\n\n"):
            try:
                read(body)
            except ProviderFailure:
                continue

    shapes = st.fixed_dictionaries(
        {
            "choices": st.lists(
                st.fixed_dictionaries(
                    {
                        "index": st.sampled_from([0, 0, 0, 1]),
                        "delta": st.fixed_dictionaries(
                            {"content": st.sampled_from(["", "a", '"', "\\", '"content":"x"', "ñ", None])},
                            optional={"role": st.just("assistant"), "note": st.just("n")},
                        ),
                    },
                    optional={
                        "logprobs": st.sampled_from([None, {"content": []}]),
                        "finish_reason": st.sampled_from([None, None, "stop"]),
                    },
                ),
                max_size=2,
            )
        },
        optional={
            "fingerprint": st.sampled_from(["f", "g", None]),
            "usage": st.sampled_from([None, {"prompt_tokens": 1}]),
            "x_groq": st.sampled_from([{"usage": {"prompt_tokens": 2}}]),
        },
    )

    @given(st.lists(shapes, min_size=1, max_size=8))
    def test_chunks_alike_are_read_as_if_each_were_read_in_full(self, shapes: list[dict[str, Any]]) -> None:
        stream = [b"data: " + encode(shape) + b"\n\n" for shape in shapes]
        end = chunk({}, "stop") + chunk({}, "stop", choice={"index": 1}) + DONE
        # A space inside makes every chunk differ from every template, so it is always read in full.
        full = [b'data: { "pad%d": null,' % place + one[len(b"data: {") :] for place, one in enumerate(stream)]
        assert read(*stream, end) == read(*full, end)
        assert read(b"".join([*stream, end])) == read(*full, end)

    @pytest.mark.parametrize("odd", ['"a" "b"', '"a","content":"b"', '"\\ud800"', '"a', "null", '""', "7", '"a" '])
    def test_what_only_looks_like_the_chunks_around_it_is_read_in_full(self, odd: str) -> None:
        stream = [chunk({"content": text}) for text in "abcd"]
        stream[2] = stream[2].replace(b'"c"', odd.encode())
        alone: list[Any] = []
        for pieces in (stream, [b"".join(stream)]):
            decoder = ChatDecoder("up")
            found: list[Delta] = []
            try:
                for piece in [*pieces, chunk({}, "stop")]:
                    if not decoder.done:
                        found += decoder.feed(piece)
                found += decoder.finish()
            except ProviderFailure as failure:
                alone.append((found, failure.message))
            else:
                alone.append((found, None))
        assert alone[0] == alone[1]

    def test_fields_of_one_chunk_are_not_repeated_on_the_next(self) -> None:
        empty = b"data: " + encode({"choices": [], "filters": [1]}) + b"\n\n"
        deltas = read(empty, *[chunk({"content": text}) for text in "abc"], chunk({}, "stop"))
        assert [delta.extra is not None for delta in deltas] == [True, False, False, False]

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "index",
                        "delta",
                        "content",
                        "tool_calls",
                        "function",
                        "usage",
                        "x_groq",
                        "prompt_tokens_details",
                        "finish_reason",
                        "message",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )

    @given(st.dictionaries(st.sampled_from(["choices", "usage", "error", "x_groq", "id"]), json_values, max_size=4))
    def test_no_shape_of_json_ends_in_anything_but_deltas_or_a_typed_error(self, value: Any) -> None:
        for attempt in (
            lambda: read(b"data: " + encode(value) + b"\n\n"),
            lambda: ChatDecoder("up").completion(encode(value)),
        ):
            try:
                attempt()
            except ProviderFailure:
                continue


class TestRendering:
    def test_unknown_fields_ride_along_at_their_level(self) -> None:
        extra = {"choice": {"logprobs": {"content": [{"token": "a"}]}}, "system_fingerprint": "fp"}
        deltas = read(
            chunk({"content": "a", "annotations": [1]}, **extra), chunk({}, "stop", service_tier="flex"), DONE
        )
        first, second, last = shown(ChatProjector(HEAD), deltas)
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert second["system_fingerprint"] == "fp"
        assert second["choices"][0]["logprobs"] == {"content": [{"token": "a"}]}
        assert second["choices"][0]["delta"] == {"content": "a", "annotations": [1]}
        assert last["service_tier"] == "flex" and last["choices"][0]["finish_reason"] == "stop"

    def test_no_chunk_has_empty_choices_unless_usage_was_asked_for(self) -> None:
        deltas: list[Delta] = [Status("accepted"), Text("a"), Finish("stop", Usage(1, 2))]
        assert all(one["choices"] for one in shown(ChatProjector(HEAD), deltas))
        last = shown(ChatProjector(HEAD, include_usage=True), deltas)[-1]
        assert last["choices"] == [] and last["usage"]["total_tokens"] == 3

    def test_several_choices_each_have_their_role_and_reason(self) -> None:
        deltas: list[Delta] = [Text("a"), Text("b", 1), Finish("stop", reasons=("stop", "length"))]
        chunks = shown(ChatProjector(HEAD), deltas)
        assert [one["choices"][0]["index"] for one in chunks] == [0, 0, 1, 1, 0, 1]
        assert [one["choices"][0]["finish_reason"] for one in chunks[-2:]] == ["stop", "length"]

    def test_failed_stream_ends_in_an_error_and_not_in_done(self) -> None:
        finish = Finish("error", outcome="incomplete", error=Failed("provider_error", "it broke"))
        frames = ChatProjector(HEAD).feed([Text("a"), finish])
        assert b"[DONE]" not in frames and b'"message":"it broke"' in frames

    def test_foreign_finish_reason_is_shown_to_clients_of_this_wire(self) -> None:
        deltas = read(chunk({"content": "a"}, "eos"), DONE)
        assert shown(ChatProjector(HEAD), deltas)[-1]["choices"][0]["finish_reason"] == "eos"

    text = st.text(max_size=20)
    calls = st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5), text), max_size=3)

    @given(text, text, calls, st.integers(1, 9), st.integers(1, 9))
    def test_plain_completion_reads_back_as_it_was_written(
        self, content: str, reasoning: str, calls: list[tuple[str, str, str]], input_tokens: int, output_tokens: int
    ) -> None:
        parts = tuple([ToolCallPart(*call) for call in calls])
        reason = "tool_calls" if calls else "stop"
        choice = Choice((ReasoningPart(reasoning), TextPart(content), *parts), reason)
        completion = Completion((choice,), Usage(input_tokens, output_tokens))
        deltas = ChatDecoder("up").completion(render_completion(completion, HEAD))
        assert "".join([delta.text for delta in deltas if isinstance(delta, Text)]) == content
        assert "".join([delta.text for delta in deltas if isinstance(delta, Reasoning)]) == reasoning
        ready = [delta for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "ready"]
        assert [ToolCallPart(call.call_id, call.name, call.arguments) for call in ready] == list(parts)
        finish = deltas[-1]
        assert isinstance(finish, Finish) and finish.reason == reason
        assert (finish.usage.input_tokens, finish.usage.output_tokens) == (input_tokens, output_tokens)

    pieces = st.lists(
        st.one_of(
            st.text(min_size=1, max_size=8).map(Text),
            st.text(min_size=1, max_size=8).map(Reasoning),
            st.builds(Text, st.text(min_size=1, max_size=8), st.just(1)),
        ),
        min_size=1,
        max_size=8,
    )

    @given(pieces, st.data())
    def test_stream_reads_back_as_it_was_written_whatever_its_split(
        self, deltas: list[Delta], draw: st.DataObject
    ) -> None:
        reasons = ("stop", "length") if any(delta.choice for delta in deltas) else ()
        finish = Finish("stop", Usage(4, 5), reasons)
        raw = ChatProjector(HEAD, include_usage=True).feed([*deltas, finish])
        cuts = sorted(draw.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
        got = read(*[raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)])
        assert got[:-1] == deltas
        last = got[-1]
        assert isinstance(last, Finish)
        assert (last.reason, last.reasons, last.usage.total_tokens) == ("stop", reasons, 9)

    requests = st.builds(
        Request,
        model=st.just("m"),
        messages=st.lists(
            st.one_of(
                st.builds(
                    Message, st.sampled_from(["system", "developer", "user"]), st.text().map(lambda t: (TextPart(t),))
                ),
                st.builds(
                    Message,
                    st.just("user"),
                    st.tuples(st.text(min_size=1).map(TextPart), st.text(min_size=1).map(ImagePart)),
                ),
                st.builds(
                    Message,
                    st.just("assistant"),
                    st.tuples(
                        st.text(min_size=1).map(ReasoningPart),
                        st.text().map(TextPart),
                        st.builds(ToolCallPart, st.text(), st.text(), st.text()),
                    ),
                ),
                st.builds(
                    Message, st.just("tool"), st.text().map(lambda t: (TextPart(t),)), st.none(), st.text(max_size=5)
                ),
            ),
            min_size=1,
            max_size=4,
        ).map(tuple),
        sampling=st.builds(
            Sampling,
            temperature=st.none() | st.floats(0, 2),
            max_tokens=st.none() | st.integers(1, 99),
            stop=st.lists(st.text(min_size=1, max_size=3), max_size=2).map(tuple),
            n=st.integers(1, 3),
        ),
        tools=st.lists(st.builds(Tool, st.text(), st.none() | st.text()), max_size=2).map(tuple),
        tool_choice=st.sampled_from([None, ToolChoice("auto"), ToolChoice("tool", "f")]),
        response_format=st.sampled_from(
            [None, ResponseFormat("json_object"), ResponseFormat("json_schema", "n", {"type": "object"}, True)]
        ),
        user=st.none() | st.text(),
    )

    @given(requests)
    def test_request_reads_back_as_it_was_written(self, request: Request) -> None:
        assert parse_request(encode(render_request(request, "m", stream=False))) == request


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "message", "failure", "code"),
        [
            (400, "bad", "bad_request", "invalid_request"),
            (400, "This model's maximum context length is 8192 tokens", "bad_request", "context_length_exceeded"),
            (401, "no", "auth", "provider_error"),
            (402, "pay", "quota", "quota_exceeded"),
            (404, "The model `x` does not exist", "bad_request", "model_not_found"),
            (404, "not found", "transient", "provider_error"),
            (429, "slow down", "rate_limited", "rate_limited"),
            (500, "oops", "transient", "provider_error"),
            (503, "busy", "overloaded", "overloaded"),
            (529, "busy", "overloaded", "overloaded"),
        ],
    )
    def test_status_decides_where_the_body_has_no_code(
        self, status: int, message: str, failure: str, code: str
    ) -> None:
        error = parse_error({"message": message})
        assert error is not None
        got = to_failure(error, provider="up", status=status)
        assert (got.failure, got.code, got.upstream_status) == (failure, code, status)
