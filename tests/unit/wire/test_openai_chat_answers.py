"""What answers of the chat wire hold beside text: refusals, citations, log probabilities; and the quick way through a stream."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cauce.domain.citation import Citation
from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import Delta, Finish, Reasoning, Refusal, Text, TokenLogprob, ToolCall
from cauce.domain.message import RefusalPart, TextPart
from cauce.domain.request import Sampling
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.answer import Head, render_completion
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_chat.render import ChatProjector
from cauce.wire.openai_chat.request import parse_request, render_request

encode = msgspec.json.encode
decode = msgspec.json.decode

HEAD = Head("id", "m", 5)
USER = {"role": "user", "content": "hi"}
DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **more.pop("choice", {})}
    return b"data: " + encode({"id": "c", "choices": [choice], **more}) + b"\n\n"


def read(*pieces: bytes) -> list[Delta]:
    decoder = ChatDecoder("up")
    return [delta for piece in pieces for delta in decoder.feed(piece)] + decoder.finish()


def unnamed(deltas: list[Delta]) -> list[Delta]:
    """`deltas` without the ids of calls that were made for want of one: no two answers share those."""
    return [
        msgspec.structs.replace(one, call_id="") if isinstance(one, ToolCall) and len(one.call_id) > 20 else one
        for one in deltas
    ]


def answered(message: dict[str, Any], **choice: Any) -> list[Delta]:
    return ChatDecoder("up").completion(encode({"choices": [{"message": message, "finish_reason": "stop", **choice}]}))


def shown(deltas: list[Delta]) -> list[dict[str, Any]]:
    lines = ChatProjector(HEAD).feed(deltas).split(b"\n\n")
    return [decode(line[6:])["choices"][0] for line in lines if line.startswith(b"data: {")]


def plain(*parts: Any, **choice: Any) -> dict[str, Any]:
    return decode(render_completion(Completion((Choice(parts, **choice),), Usage()), HEAD))["choices"][0]


class TestRefusals:
    def test_refusal_of_a_stream_is_told_and_its_upstreams_word_kept(self) -> None:
        deltas = read(chunk({"role": "assistant", "refusal": "No"}), chunk({"refusal": "pe."}), chunk({}, "stop"))
        assert deltas[:2] == [Refusal("No"), Refusal("pe.")]
        finish = deltas[2]
        assert isinstance(finish, Finish) and finish.reason == "content_filter"
        role, first, second, last = shown(deltas)
        assert role["delta"] == {"role": "assistant", "content": None}
        assert (first["delta"], second["delta"]) == ({"refusal": "No"}, {"refusal": "pe."})
        assert last["finish_reason"] == "stop"

    def test_refusal_of_a_plain_answer_stands_in_place_of_text(self) -> None:
        refusal, finish = answered({"role": "assistant", "content": None, "refusal": "Nope."})
        assert refusal == Refusal("Nope.") and isinstance(finish, Finish) and finish.reason == "content_filter"
        message = plain(RefusalPart("Nope."), finish_reason="content_filter")["message"]
        assert message == {"role": "assistant", "content": None, "refusal": "Nope."}

    @pytest.mark.parametrize(
        "message",
        [
            {"role": "assistant", "content": None, "refusal": "Nope."},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "Nope."}]},
        ],
    )
    def test_it_goes_back_upstream(self, message: dict[str, Any]) -> None:
        body = render_request(parse_request(encode({"messages": [USER, message]})), "m", stream=False)
        assert body["messages"][1] == {"role": "assistant", "content": None, "refusal": "Nope."}


def annotation(url: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "url_citation": {"url": url, "title": "T", "start_index": 0, "end_index": 2, **more},
    }


class TestCitations:
    def test_they_are_read_and_shown_in_one_chunk_before_the_end(self) -> None:
        first, second = annotation("https://a.example/"), annotation("https://b.example/", content="said", odd=1)
        deltas = read(
            chunk({"content": "It is so."}),
            chunk({"content": "", "annotations": [first]}),
            chunk({"annotations": [second]}),
            chunk({}, "stop"),
        )
        one, two = [delta for delta in deltas if isinstance(delta, Citation)]
        assert (one.url, one.title, one.start, one.end) == ("https://a.example/", "T", 0, 2)
        assert two.quote == "said"
        assert [choice["delta"] for choice in shown(deltas)[1:]] == [
            {"content": "It is so."},
            {"annotations": [first, second]},
            {},
        ]

    def test_plain_answers_show_them_as_they_came(self) -> None:
        given_ = [annotation("https://a.example/", odd=1)]
        text, citation, _ = answered({"role": "assistant", "content": "It is so.", "annotations": given_})
        assert isinstance(text, Text) and isinstance(citation, Citation)
        assert plain(TextPart(text.text, None, (citation,)))["message"]["annotations"] == given_

    def test_what_is_no_citation_is_carried_as_it_is(self) -> None:
        odd = [{"type": "file_citation", "file_citation": {"file_id": "f"}}]
        deltas = read(chunk({"content": "a", "annotations": odd}), chunk({}, "stop"))
        assert shown(deltas)[1]["delta"] == {"content": "a", "annotations": odd}

    def test_those_of_other_wires_tell_the_text_they_are_about(self) -> None:
        cited = Citation("https://a.example/", quote="said")
        body = {
            "type": "url_citation",
            "url_citation": {
                "url": "https://a.example/",
                "title": "https://a.example/",
                "start_index": 4,
                "end_index": 10,
                "content": "said",
            },
        }
        parts = (TextPart("One "), TextPart("thing.", None, (cited, Citation(quote="without an address"))))
        assert plain(*parts)["message"]["annotations"] == [body]
        deltas: list[Delta] = [Text("One "), Text("thing", begins=True), Text("."), cited, Finish("stop")]
        assert [one["delta"]["annotations"] for one in shown(deltas) if "annotations" in one["delta"]] == [[body]]


TOKENS = (TokenLogprob("Ho", -0.5, (72, 111), (TokenLogprob("Hi", -1.0, (72, 105)),)), TokenLogprob("la", -0.25))
WIRE_TOKENS = [
    {
        "token": "Ho",
        "logprob": -0.5,
        "bytes": [72, 111],
        "top_logprobs": [{"token": "Hi", "logprob": -1.0, "bytes": [72, 105]}],
    },
    {"token": "la", "logprob": -0.25, "bytes": [108, 97], "top_logprobs": []},
]


class TestLogProbabilities:
    @pytest.mark.parametrize(
        ("asked", "wanted"),
        [
            ({"logprobs": True}, 0),
            ({"logprobs": True, "top_logprobs": 2}, 2),
            ({"logprobs": False}, None),
            ({"logprobs": 3}, None),
            ({}, None),
        ],
    )
    def test_request_says_how_many_and_goes_upstream_alike(self, asked: dict[str, Any], wanted: int | None) -> None:
        request = parse_request(encode({"messages": [USER], **asked}))
        assert request.sampling == Sampling(logprobs=wanted)
        sent = render_request(request, "m", stream=False)
        assert {name: sent[name] for name in asked if name in sent} == {
            k: v for k, v in asked.items() if v is not False
        }

    def test_answers_are_read_and_shown_as_they_came(self) -> None:
        raw = {"content": [{**WIRE_TOKENS[0], "odd": 1}], "refusal": None}
        deltas = read(chunk({"content": "Ho"}, choice={"logprobs": raw}), chunk({}, "stop"))
        text = deltas[0]
        assert isinstance(text, Text) and text.logprobs == TOKENS[:1]
        assert shown(deltas)[1]["logprobs"] == raw

    def test_those_of_other_wires_are_shown_in_this_wires_form(self) -> None:
        choices = shown([Text("Ho", logprobs=TOKENS[:1]), Text("la", logprobs=TOKENS[1:]), Finish("stop")])
        assert [choice["logprobs"]["content"] for choice in choices[1:3]] == [WIRE_TOKENS[:1], WIRE_TOKENS[1:]]
        assert plain(TextPart("Hola"), logprobs=TOKENS)["logprobs"] == {"content": WIRE_TOKENS}

    def test_what_has_no_chance_is_told_without_infinity(self) -> None:
        token = TokenLogprob("x", float("-inf"))
        assert plain(TextPart("x"), logprobs=(token,))["logprobs"]["content"][0]["logprob"] == -9999.0

    @pytest.mark.parametrize("odd", [{}, [], 5, {"content": [1, {"token": "a"}, {"logprob": 1}]}, {"content": {}}])
    def test_odd_shapes_break_nothing(self, odd: Any) -> None:
        (text, _) = read(chunk({"content": "a"}, choice={"logprobs": odd}), chunk({}, "stop"))
        assert isinstance(text, Text) and text.logprobs == ()


class TestUsage:
    def test_upstreams_own_object_is_shown_as_it_came(self) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.5, "details": {"x": 1}}
        finish = read(chunk({"content": "a"}), chunk({}, "stop", usage=usage))[-1]
        assert isinstance(finish, Finish)
        body = decode(render_completion(Completion((Choice(),), finish.usage), HEAD))
        assert body["usage"] == usage

    def test_sum_of_several_attempts_is_not_the_last_ones_object(self) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.5}
        finish = read(chunk({"content": "a"}), chunk({}, "stop", usage=usage))[-1]
        assert isinstance(finish, Finish)
        summed = msgspec.structs.replace(finish.usage, input_tokens=5)
        body = decode(render_completion(Completion((Choice(),), summed), HEAD))
        assert (body["usage"]["prompt_tokens"], body["usage"]["total_tokens"], body["usage"]["cost"]) == (5, 7, 0.5)

    def test_deepseeks_cache_figure_is_read(self) -> None:
        usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "prompt_cache_hit_tokens": 4}
        finish = read(chunk({"content": "a"}), chunk({}, "stop", usage=usage))[-1]
        assert isinstance(finish, Finish) and finish.usage.cached_tokens == 4


piece = st.one_of(
    st.text(max_size=4).map(lambda text: {"content": text}),
    st.text(max_size=4).map(lambda text: {"reasoning_content": text}),
    st.text(max_size=4).map(lambda text: {"reasoning": text}),
    st.tuples(st.integers(0, 1), st.text(max_size=4)).map(
        lambda call: {"tool_calls": [{"index": call[0], "function": {"arguments": call[1]}}]}
    ),
    st.tuples(st.integers(0, 1), st.sampled_from(["a", "b"])).map(
        lambda call: {"tool_calls": [{"index": call[0], "id": call[1], "function": {"name": "f", "arguments": "{"}}]}
    ),
    st.just({"tool_calls": [{"function": {"name": "f", "arguments": '"arguments":"x"'}}]}),
)


OPENS = {"tool_calls": [{"index": 0, "id": "b", "function": {"name": "f", "arguments": "{"}}]}
PIECE = {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}
OPENS_AGAIN = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]}
PIECE_AGAIN = {"tool_calls": [{"index": 0, "function": {"arguments": "0"}}]}


class TestTemplates:
    @example([OPENS, PIECE, OPENS_AGAIN, PIECE_AGAIN], {})
    @given(st.lists(piece, min_size=1, max_size=10), st.sampled_from([{}, {"fp": "x"}]))
    def test_chunks_alike_are_read_as_if_each_were_read_in_full(
        self, pieces: list[dict[str, Any]], beside: dict[str, Any]
    ) -> None:
        stream = [chunk(delta, **beside) for delta in pieces]
        end = chunk({}, "stop") + DONE
        # A space inside makes every chunk differ from every template, so it is always read in full.
        full = [b'data: { "pad%d": null,' % place + one[len(b"data: {") :] for place, one in enumerate(stream)]
        assert unnamed(read(*stream, end)) == unnamed(read(*full, end))
        assert unnamed(read(b"".join([*stream, end]))) == unnamed(read(*full, end))

    @given(st.lists(piece, min_size=1, max_size=10), st.integers(1, 4))
    def test_quick_chunks_say_what_slow_ones_do(self, pieces: list[dict[str, Any]], together: int) -> None:
        deltas = read(*[chunk(delta) for delta in pieces], chunk({}, "stop"))
        projector = ChatProjector(HEAD)
        batches = [deltas[start : start + together] for start in range(0, len(deltas), together)]
        frames = b"".join([projector.feed(batch) for batch in batches])
        again = read(frames)

        def told(said: list[Delta]) -> list[tuple[Any, ...]]:
            """What the deltas say, without those that say nothing."""
            lines: list[tuple[Any, ...]] = []
            for delta in said:
                if isinstance(delta, ToolCall):
                    lines.append((delta.index, delta.call_id, delta.name, delta.arguments, delta.mark))
                elif isinstance(delta, Text | Reasoning) and delta.text:
                    lines.append((type(delta), delta.text))
            return lines

        assert told(again) == told(deltas)
