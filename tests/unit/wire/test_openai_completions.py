"""The legacy completions wire in both directions."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import Delta, Failed, Finish, Reasoning, Refusal, Text, TokenLogprob, ToolCall
from cauce.domain.errors import InvalidRequest, ProviderFailure
from cauce.domain.message import Message, ReasoningPart, TextPart
from cauce.domain.request import Prompt
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.answer import Head
from cauce.wire.openai_completions.decode import CompletionDecoder
from cauce.wire.openai_completions.render import CompletionProjector, render_completions
from cauce.wire.openai_completions.request import parse_request, render_request

encode = msgspec.json.encode
decode = msgspec.json.decode

HEAD = Head("id", "m", 5)
DONE = b"data: [DONE]\n\n"


def chunk(text: str, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None, **more.pop("choice", {})}
    return b"data: " + encode({"id": "c", "choices": [choice], **more}) + b"\n\n"


def read(*pieces: bytes) -> list[Delta]:
    decoder = CompletionDecoder("up")
    return [delta for piece in pieces for delta in decoder.feed(piece)] + decoder.finish()


def shown(projector: CompletionProjector, deltas: list[Delta]) -> list[dict[str, Any]]:
    lines = projector.feed(deltas).split(b"\n\n")
    return [decode(line[6:]) for line in lines if line.startswith(b"data: {")]


class TestRequests:
    def test_prompt_is_told_as_a_message_too(self) -> None:
        (request,) = parse_request(encode({"model": "m", "prompt": "Once", "suffix": "end."})).requests
        assert request.prompt == Prompt("Once", "end.")
        assert request.messages == (Message("user", (TextPart("Once"),)),)

    @pytest.mark.parametrize(
        "body",
        [
            {"prompt": "Once", "suffix": "end.", "max_tokens": 5, "temperature": 0.5, "stop": ["."], "user": "u"},
            {"prompt": "Once", "n": 2, "logprobs": 3, "seed": 1, "logit_bias": {"50256": -100}},
            {"prompt": "Once", "n": 1, "best_of": 3},
            {"prompt": "Once", "logprobs": 0, "echo": True},
            {"prompt": [1, 2, 3]},
            {"prompt": [1, 2, 3], "echo": True},
        ],
    )
    def test_what_a_client_sends_arrives_upstream(self, body: dict[str, Any]) -> None:
        (request,) = parse_request(encode({"model": "m", **body})).requests
        sent = render_request(request, "m", stream=False)
        assert sent == {"model": "m", **{name: value for name, value in body.items() if (name, value) != ("n", 1)}}

    def test_several_prompts_are_several_requests(self) -> None:
        asked = parse_request(encode({"prompt": ["a", "b"], "echo": True}))
        assert [request.prompt for request in asked.requests] == [Prompt("a"), Prompt("b")]
        assert asked.echoes == ("a", "b")

    @pytest.mark.parametrize(
        "body",
        [
            {"prompt": [[1], [2]]},
            {"prompt": "Once", "best_of": 2},
            {"prompt": "Once", "echo": True, "logprobs": 1},
        ],
    )
    def test_what_only_this_wires_servers_can_do_has_no_text(self, body: dict[str, Any]) -> None:
        tokens = 1 if isinstance(body["prompt"], list) else 0
        for request in parse_request(encode(body)).requests:
            assert request.prompt == Prompt("", tokens=tokens)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "prompt"),
            ({"prompt": []}, "prompt"),
            ({"prompt": 5}, "prompt"),
            ({"prompt": ["a", 5]}, "prompt[1]"),
            ({"prompt": [1, "a"]}, "prompt"),
            ({"prompt": ["a"] * 129}, "prompt"),
            ({"prompt": ["a", "b"], "stream": True}, "stream"),
            ({"prompt": "a", "n": 3, "best_of": 2}, "best_of"),
            ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
            ({"prompt": "a", "logprobs": "many"}, "logprobs"),
            ({"prompt": "a", "suffix": 1}, "suffix"),
        ],
    )
    def test_mistake_names_its_field(self, body: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse_request(encode(body))
        assert caught.value.field == field


class TestDecoding:
    def test_words_become_text_and_one_finish_with_usage_ends_them(self) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        deltas = read(
            chunk("Ho"),
            chunk("la"),
            chunk("", "length"),
            b"data: " + encode({"choices": [], "usage": usage}) + b"\n\n",
            DONE,
        )
        assert deltas[:2] == [Text("Ho"), Text("la")]
        finish = deltas[2]
        assert isinstance(finish, Finish) and finish.reason == "length" and finish.usage.total_tokens == 5

    def test_plain_answer_with_several_choices(self) -> None:
        choices = [{"index": 1, "text": "b", "finish_reason": "length"}, {"index": 0, "text": "a"}]
        deltas = CompletionDecoder("up").completion(encode({"choices": choices, "usage": None}))
        assert deltas[:2] == [Text("b", 1), Text("a")]
        finish = deltas[2]
        assert isinstance(finish, Finish) and finish.reasons == ("stop", "length") and finish.usage.estimated

    def test_log_probabilities_are_read_and_shown_as_they_came(self) -> None:
        raw = {
            "tokens": ["<s>", "Ho"],
            "token_logprobs": [None, -0.5],
            "top_logprobs": [None, {"Hi": -1.0}],
            "text_offset": [0, 3],
        }
        deltas = read(chunk("Ho", choice={"logprobs": raw}), chunk("", "stop"))
        text = deltas[0]
        assert isinstance(text, Text)
        assert text.logprobs == (TokenLogprob("Ho", -0.5, None, (TokenLogprob("Hi", -1.0),)),)
        assert shown(CompletionProjector(HEAD), deltas)[0]["choices"][0]["logprobs"] == raw

    @pytest.mark.parametrize("end", [b"", DONE])
    def test_end_without_finish_reason_is_a_failure(self, end: bytes) -> None:
        with pytest.raises(ProviderFailure, match="cut off"):
            read(chunk("half"), end)

    def test_error_inside_a_stream_is_raised_with_its_class(self) -> None:
        with pytest.raises(ProviderFailure) as caught:
            read(chunk("a"), b'data: {"error": {"message": "busy", "code": 503}}\n\n')
        assert caught.value.failure == "overloaded"

    def test_unknown_fields_and_words_are_shown_to_clients_of_this_wire(self) -> None:
        deltas = read(chunk("a", system_fingerprint="fp"), chunk("b", system_fingerprint="fp"), chunk("", "eos"))
        chunks = shown(CompletionProjector(HEAD), deltas)
        assert chunks[0]["system_fingerprint"] == chunks[-1]["system_fingerprint"] == "fp"
        assert chunks[-1]["choices"][0]["finish_reason"] == "eos"

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["index", "text", "logprobs", "tokens", "token_logprobs", "finish_reason"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    )

    @given(st.dictionaries(st.sampled_from(["choices", "usage", "error", "id"]), json_values, max_size=4))
    def test_no_shape_of_json_ends_in_anything_but_deltas_or_a_typed_error(self, value: Any) -> None:
        for attempt in (
            lambda: read(b"data: " + encode(value) + b"\n\n"),
            lambda: CompletionDecoder("up").completion(encode(value)),
        ):
            try:
                attempt()
            except ProviderFailure:
                continue

    @given(st.binary(max_size=80))
    def test_no_bytes_end_in_anything_but_deltas_or_a_typed_error(self, raw: bytes) -> None:
        for body in (raw, b"data: " + raw + b"\n\n"):
            try:
                read(body)
            except ProviderFailure:
                continue


class TestRendering:
    def test_what_has_no_place_here_is_left_out(self) -> None:
        deltas: list[Delta] = [
            Reasoning("hm"),
            Text("a"),
            ToolCall(0, "c", "f", "{}"),
            Finish("tool_calls", Usage(1, 2)),
        ]
        chunks = shown(CompletionProjector(HEAD), deltas)
        assert [(one["choices"][0]["text"], one["choices"][0]["finish_reason"]) for one in chunks] == [
            ("a", None),
            ("", "stop"),
        ]

    def test_echo_comes_before_the_answer(self) -> None:
        chunks = shown(CompletionProjector(HEAD, echo="Once"), [Text(" upon"), Finish("stop")])
        assert [one["choices"][0]["text"] for one in chunks] == ["Once", " upon", ""]
        body = decode(render_completions([Completion((Choice((TextPart(" upon"),)),), Usage())], HEAD, ["Once"]))
        assert body["choices"][0]["text"] == "Once upon"

    def test_usage_is_shown_where_it_was_asked_for(self) -> None:
        deltas: list[Delta] = [Text("a"), Finish("stop", Usage(1, 2))]
        assert all(one["choices"] for one in shown(CompletionProjector(HEAD), deltas))
        last = shown(CompletionProjector(HEAD, include_usage=True), deltas)[-1]
        assert last["choices"] == [] and last["usage"]["total_tokens"] == 3

    def test_failed_stream_ends_in_an_error_and_not_in_done(self) -> None:
        finish = Finish("error", outcome="incomplete", error=Failed("provider_error", "it broke"))
        frames = CompletionProjector(HEAD).feed([Text("a"), finish])
        assert b"[DONE]" not in frames and b'"message":"it broke"' in frames

    def test_refusal_is_shown_as_text_that_was_filtered(self) -> None:
        chunks = shown(CompletionProjector(HEAD), [Refusal("No."), Finish("content_filter")])
        assert [one["choices"][0]["finish_reason"] for one in chunks] == [None, "content_filter"]

    def test_choices_of_several_prompts_are_numbered_through(self) -> None:
        def two(first: str, second: str) -> Completion:
            parts = (Choice((ReasoningPart("hm"), TextPart(first))), Choice((TextPart(second),), "length"))
            return Completion(parts, Usage(1, 2))

        body = decode(render_completions([two("a", "b"), two("c", "d")], HEAD, ["", ""]))
        assert [(one["index"], one["text"], one["finish_reason"]) for one in body["choices"]] == [
            (0, "a", "stop"),
            (1, "b", "length"),
            (2, "c", "stop"),
            (3, "d", "length"),
        ]
        assert body["usage"]["prompt_tokens"] == 2 and body["usage"]["completion_tokens"] == 4

    def test_log_probabilities_of_other_wires_tell_where_their_tokens_are(self) -> None:
        tokens = (TokenLogprob("Ho", -0.5, None, (TokenLogprob("Hi", -1.0),)), TokenLogprob("la", -0.25))
        expected = {
            "tokens": ["Ho", "la"],
            "token_logprobs": [-0.5, -0.25],
            "top_logprobs": [{"Hi": -1.0}, None],
            "text_offset": [1, 3],
        }
        choice = Choice((TextPart("Hola"),), logprobs=tokens)
        body = decode(render_completions([Completion((choice,), Usage())], HEAD, ["¡"]))
        assert body["choices"][0]["logprobs"] == expected
        streamed: list[Delta] = [Text("Ho", logprobs=tokens[:1]), Text("la", logprobs=tokens[1:]), Finish("stop")]
        chunks = shown(CompletionProjector(HEAD, echo="¡"), streamed)
        assert [one["choices"][0]["logprobs"]["text_offset"] for one in chunks[1:3]] == [[1], [3]]

    @given(
        st.lists(st.builds(Text, st.text(min_size=1, max_size=6), st.integers(0, 1)), min_size=1, max_size=8), st.data()
    )
    def test_stream_reads_back_as_it_was_written_whatever_its_split(
        self, deltas: list[Delta], draw: st.DataObject
    ) -> None:
        reasons = ("stop", "length") if any(delta.choice for delta in deltas) else ()
        finish = Finish("stop", Usage(4, 5), reasons)
        raw = CompletionProjector(HEAD, include_usage=True).feed([*deltas, finish])
        cuts = sorted(draw.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
        got = read(*[raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)])
        assert got[:-1] == deltas
        last = got[-1]
        assert isinstance(last, Finish)
        assert (last.reason, last.reasons, last.usage.total_tokens) == ("stop", reasons, 9)
