"""The Anthropic wire in both directions."""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cauce.domain.citation import Citation
from cauce.domain.completion import Choice, Completion
from cauce.domain.delta import (
    Attempt,
    Delta,
    Failed,
    Finish,
    Opaque,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    ToolCall,
)
from cauce.domain.errors import (
    CauceError,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    ProviderFailure,
    Unauthorized,
    Unsupported,
)
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
from cauce.domain.model import ModelFacts
from cauce.domain.request import Prompt, ReasoningOptions, Request, ResponseFormat, Sampling
from cauce.domain.signature import Signature
from cauce.domain.tokens import estimate_input_tokens
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.engine.compose import collect
from cauce.ports.provider import Deltas
from cauce.wire.anthropic_messages.decode import MessagesDecoder
from cauce.wire.anthropic_messages.errors import refused, render_error, until_next_month
from cauce.wire.anthropic_messages.render import MessagesProjector, render_message
from cauce.wire.anthropic_messages.request import parse_count, parse_request, render_request
from cauce.wire.anthropic_messages.thinking import shows_thinking
from cauce.wire.dropping import _told
from cauce.wire.signing import unseal

encode = msgspec.json.encode
decode = msgspec.json.decode

WIRE = "anthropic_messages"
USAGE = {"input_tokens": 5, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 7}
HI = {"role": "user", "content": "hi"}


def parsed(body: dict[str, Any], **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse_request(encode({"max_tokens": 64, "messages": [HI], **body}), named)


def sent(request: Request, model: str = "m", **options: Any) -> dict[str, Any]:
    return render_request(request, model, **options).body


def user(*parts: Any) -> Message:
    return Message("user", parts or (TextPart("hi"),))


def said(text: str) -> Message:
    return Message("assistant", (TextPart(text),))


def frame(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + encode({"type": kind, **fields}) + b"\n\n"


def started(**fields: Any) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], **fields}
    return frame("message_start", message={"stop_reason": None, "stop_sequence": None, "usage": USAGE, **message})


def block(index: int, begun: dict[str, Any], *pieces: dict[str, Any]) -> bytes:
    deltas = [frame("content_block_delta", index=index, delta=piece) for piece in pieces]
    stop = frame("content_block_stop", index=index)
    return b"".join([frame("content_block_start", index=index, content_block=begun), *deltas, stop])


def text_block(index: int, *texts: str) -> bytes:
    return block(index, {"type": "text", "text": ""}, *[{"type": "text_delta", "text": text} for text in texts])


def ended(reason: str = "end_turn", usage: dict[str, Any] | None = None, **fields: Any) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None, **fields}
    return frame("message_delta", delta=delta, usage=usage or {"output_tokens": 7}) + frame("message_stop")


def read(*pieces: bytes) -> list[Delta]:
    decoder = MessagesDecoder("up")
    deltas = [delta for piece in pieces for delta in decoder.feed(piece)]
    return deltas + decoder.finish()


def collected(deltas: Sequence[Delta]) -> Completion:
    async def source() -> AsyncGenerator[Sequence[Delta], None]:
        yield deltas

    return asyncio.run(collect(Deltas(source())))


def events(frames: bytes) -> list[dict[str, Any]]:
    """The events in `frames`; their names must be their types."""
    found: list[dict[str, Any]] = []
    for one in frames.split(b"\n\n")[:-1]:
        name, data = one.split(b"\n")
        value = decode(data.removeprefix(b"data: "))
        assert name == b"event: " + value["type"].encode()
        found.append(value)
    return found


def shown(deltas: Sequence[Delta], **options: Any) -> list[dict[str, Any]]:
    return events(MessagesProjector("msg_x", "public", **options).feed(deltas))


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [one["type"].removeprefix("content_block_") for one in found]


def failure_of(status: int, error: dict[str, Any], **headers: str) -> ProviderFailure:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refused("up", status, named, encode({"type": "error", "error": error}))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of what was dropped, with nothing told before."""
    _told.clear()
    caplog.set_level(logging.WARNING, "cauce.wire")
    return caplog


FULL: dict[str, Any] = {
    "model": "m",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
                    "title": "paper",
                    "citations": {"enabled": True},
                    "context": "about",
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "España"}},
                {"type": "document", "source": {"type": "content", "content": "whole"}},
                {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]},
                {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZGF0YQ=="},
                {"type": "text", "text": "I look.", "citations": [{"type": "char_location", "cited_text": "x"}]},
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
                {
                    "type": "tool_use",
                    "id": "t1",
                    "name": "look",
                    "input": {"x": [1, None]},
                    "caller": {"type": "direct"},
                },
                {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": "a cat",
                    "cache_control": {"type": "ephemeral"},
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [
                        {"type": "text", "text": "broken", "cache_control": {"type": "ephemeral"}},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "AAAA"}},
                        {"type": "tool_reference", "tool_name": "x"},
                    ],
                    "is_error": True,
                },
                {"type": "text", "text": "And now?"},
            ],
        },
        {"role": "system", "content": "From here on in Spanish."},
        {"role": "user", "content": "hi"},
    ],
    "stop_sequences": ["END"],
    "tools": [
        {
            "name": "look",
            "description": "Look.",
            "input_schema": {"type": "object", "properties": {"x": {}}},
            "strict": True,
            "cache_control": {"type": "ephemeral"},
            "eager_input_streaming": True,
        },
        {"type": "web_search_20260209", "name": "web_search", "max_uses": 2},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "metadata": {"user_id": "u1"},
    "cache_control": {"type": "ephemeral"},
    "container": "c1",
    "mcp_servers": [{"type": "url", "url": "https://example.org"}],
    "service_tier": "auto",
    "some_future_field": {"deep": [1, 2]},
}


class TestRequestsFromClients:
    def test_what_a_client_sends_arrives_upstream_unchanged(self) -> None:
        request = parse_request(encode({**FULL, "model": "public"}), {"anthropic-beta": "a-1,b-2"})
        rendered = render_request(request, "m")
        assert rendered.body == FULL
        assert rendered.headers == {"anthropic-version": "2026-10-21", "anthropic-beta": "a-1,b-2"}

    def test_system_message_among_the_messages_stays_there(self) -> None:
        first = [{"role": "system", "content": "Be brief."}, HI]
        body = sent(parsed({"messages": first}))
        assert body["messages"] == first and "system" not in body

    def test_each_part_has_its_place_in_the_domain(self) -> None:
        request = parsed({**FULL})
        first, question, answer, one, two, rest, later, last = request.messages
        assert (first.role, later.role, last.text) == ("system", "system", "hi")
        assert [type(part) for part in question.parts[:5]] == [
            ImagePart,
            ImagePart,
            OpaquePart,
            DocumentPart,
            DocumentPart,
        ]
        assert question.parts[0] == ImagePart("data:image/png;base64,AAAA")
        assert answer.parts[0] == ReasoningPart("hm", Signature(WIRE, "c2ln"))
        assert answer.parts[1] == ReasoningPart("", Signature(WIRE, "ZGF0YQ==", "redacted_thinking"))
        assert isinstance(answer.parts[2], TextPart) and answer.parts[2].citations[0].quote == "x"
        assert answer.parts[5] == ToolCallPart(
            "t1", "look", '{"x":[1,null]}', Extra(WIRE, {"block": {"caller": {"type": "direct"}}})
        )
        assert (one.role, one.call_id, one.text, one.failed) == ("tool", "t1", "a cat", False)
        assert (two.call_id, two.failed, rest.text) == ("t2", True, "And now?")
        assert request.reasoning == ReasoningOptions("low", None, True, True)
        assert request.response_format == ResponseFormat("json_schema", schema={"type": "object"})
        assert request.parallel_tool_calls is False and request.user == "u1"
        assert isinstance(request.tools[1], OpaqueTool) and request.tools[1].kind == "web_search_20260209"

    @pytest.mark.parametrize(
        ("choice", "mode"),
        [("auto", ToolChoice("auto")), ("any", ToolChoice("required")), ("none", ToolChoice("none"))],
    )
    def test_tool_choice_is_read_and_written(self, choice: str, mode: ToolChoice) -> None:
        body = {"tool_choice": {"type": choice}, "tools": [{"name": "f", "input_schema": {"type": "object"}}]}
        request = parsed(body)
        assert request.tool_choice == mode
        assert sent(request)["tool_choice"] == {"type": choice}

    def test_named_tool_is_forced(self) -> None:
        body = {
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": False},
            "tools": [{"type": "custom", "name": "f", "input_schema": {"type": "object"}}],
        }
        request = parsed(body)
        assert request.tool_choice == ToolChoice("tool", "f") and request.parallel_tool_calls is True
        assert sent(request)["tool_choice"] == body["tool_choice"]

    def test_format_of_the_time_of_trial_is_understood(self) -> None:
        request = parsed({"output_format": {"type": "json_schema", "schema": {"type": "object"}}})
        assert sent(request)["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
        assert "output_format" not in sent(request)

    def test_null_counts_as_absent(self) -> None:
        request = parsed({"temperature": None, "tools": None, "system": None, "thinking": None, "metadata": None})
        assert (request.tools, request.extra, len(request.messages)) == ((), Extra(WIRE, {}), 1)

    @pytest.mark.parametrize(
        ("thinking", "wanted"),
        [
            ({"type": "enabled", "budget_tokens": 2048}, True),
            ({"type": "adaptive"}, True),
            ({"type": "between_tools"}, True),
            ({"type": "adaptive", "display": "omitted"}, False),
            ({"type": "disabled"}, False),
            (None, False),
        ],
    )
    def test_reasoning_is_shown_to_those_who_asked_for_it(self, thinking: Any, wanted: bool) -> None:
        assert shows_thinking(parsed({"thinking": thinking, "output_config": {"effort": "high"}})) is wanted

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"messages": []}, "messages"),
            ({"messages": "hi"}, "messages"),
            ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role"),
            ({"messages": [{"role": "user"}]}, "messages[0].content"),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
            ({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, "messages[0].content[0].type"),
            ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
            (
                {"messages": [HI, {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f"}]}]},
                "messages[1].content[0].input",
            ),
            (
                {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
                "messages[0].content[0].tool_use_id",
            ),
            (
                {
                    "messages": [
                        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": 5}]}
                    ]
                },
                "messages[0].content[0].content",
            ),
            (
                {
                    "messages": [
                        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [5]}]}
                    ]
                },
                "messages[0].content[0].content[0]",
            ),
            ({"system": [{"type": "text"}]}, "system[0].text"),
            ({"max_tokens": None}, "max_tokens"),
            ({"max_tokens": -1}, "max_tokens"),
            ({"temperature": 1.5}, "temperature"),
            ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
            ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
            ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
            ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
            ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
            ({"thinking": "a lot"}, "thinking"),
        ],
    )
    def test_mistake_names_its_field(self, body: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parsed(body)
        assert caught.value.field == field and field in caught.value.message

    def test_zero_tokens_are_a_wish_of_their_own(self) -> None:
        assert sent(parsed({"max_tokens": 0}))["max_tokens"] == 0

    def test_counting_needs_no_bound(self) -> None:
        request = parse_count(encode({"messages": [HI], "system": "s", "thinking": {"type": "enabled"}}), {})
        assert [message.role for message in request.messages] == ["system", "user"]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000])
    def test_body_that_is_no_object_is_refused(self, body: bytes) -> None:
        with pytest.raises(InvalidRequest):
            parse_request(body, {})


words = st.text('añ€😀 \n"\\', min_size=1, max_size=6).map(lambda text: f"w{text}w")
marks = st.fixed_dictionaries({}, optional={"cache_control": st.just({"type": "ephemeral"})})
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(words, values, max_size=2)


def blocks(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(st.fixed_dictionaries({"type": st.just(kind), **fields}), marks).map(
        lambda two: {**two[0], **two[1]}
    )


image_sources = st.one_of(
    st.just({"type": "base64", "media_type": "image/png", "data": "AAAA"}),
    st.just({"type": "url", "url": "https://example.org/a.png"}),
    st.just({"type": "file", "file_id": "f"}),
)
document_sources = st.one_of(
    st.just({"type": "base64", "media_type": "application/pdf", "data": "AAAA"}),
    words.map(lambda text: {"type": "text", "media_type": "text/plain", "data": text}),
    st.just({"type": "content", "content": "c"}),
)
given_blocks = st.one_of(
    blocks("text", text=words),
    blocks("image", source=image_sources),
    blocks("document", source=document_sources, title=words),
    blocks("search_result", source=words, content=st.just([])),
)
answered_blocks = st.one_of(
    blocks("text", text=words, citations=st.just([{"type": "page_location", "cited_text": "c"}])),
    blocks("text", text=words),
    blocks("thinking", thinking=words, signature=words),
    blocks("redacted_thinking", data=words),
    blocks("server_tool_use", id=words, name=words, input=objects),
    blocks("tool_use", id=st.just("t_1"), name=words, input=objects),
)
results = st.tuples(
    blocks("tool_result", tool_use_id=st.just("t_1")),
    st.fixed_dictionaries({}, optional={"content": words | st.lists(given_blocks, min_size=1, max_size=2)}),
).map(lambda two: {**two[0], **two[1]})
users = words | st.tuples(st.lists(results, max_size=2), st.lists(given_blocks, min_size=1, max_size=2)).map(
    lambda two: [*two[0], *two[1]]
)
turns = st.lists(st.tuples(users, st.lists(answered_blocks, min_size=1, max_size=3)), max_size=2)
conversations = st.tuples(turns, users).map(
    lambda two: [
        *[
            message
            for asked, answered in two[0]
            for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answered})
        ],
        {"role": "user", "content": two[1]},
    ]
)
tools = st.lists(
    st.one_of(
        st.tuples(
            st.fixed_dictionaries({"name": words, "input_schema": objects.map(lambda one: {"type": "object", **one})}),
            st.fixed_dictionaries({}, optional={"description": words, "strict": st.booleans()}),
            marks,
        ).map(lambda three: {**three[0], **three[1], **three[2]}),
        st.just({"type": "bash_20250124", "name": "bash"}),
    ),
    min_size=1,
    max_size=2,
)
choices = st.one_of(
    st.just({"type": "none"}),
    st.tuples(st.sampled_from(["auto", "any"]), st.booleans()).map(
        lambda two: {"type": two[0], "disable_parallel_tool_use": two[1]}
    ),
    st.just({"type": "tool", "name": "f"}),
)
requests = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.integers(0, 9), "messages": conversations},
    optional={
        "system": words | st.lists(blocks("text", text=words), min_size=1, max_size=2),
        "temperature": st.sampled_from([0.0, 0.5]),
        "top_p": st.sampled_from([0.1, 0.9]),
        "top_k": st.integers(1, 9),
        "stop_sequences": st.lists(words, min_size=1, max_size=2),
        "metadata": st.fixed_dictionaries({}, optional={"user_id": words, "other": words}),
        "thinking": st.sampled_from([{"type": "disabled"}, {"type": "disabled", "x": 1}]),
        "output_config": st.fixed_dictionaries({"format": st.just({"type": "json_schema", "schema": {}})}),
        "stream": st.booleans(),
        "cache_control": st.just({"type": "ephemeral"}),
        "future": values,
    },
)


class TestRequestsRoundTrip:
    @given(requests, st.none() | st.tuples(tools, choices))
    def test_request_survives_being_written_and_read(self, body: dict[str, Any], more: Any) -> None:
        if more is not None:
            body = {**body, "tools": more[0], "tool_choice": more[1]}
        request = parse_request(encode(body), {"anthropic-beta": "b"})
        written = render_request(request, "m", stream=request.stream)
        assert parse_request(encode(written.body), {"anthropic-beta": written.headers["anthropic-beta"]}) == request

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "text", "source", "id", "input", "content", "role", "data", "name", "x"]),
                inner
                | st.sampled_from(
                    ["text", "image", "document", "tool_use", "tool_result", "thinking", "base64", "url"]
                ),
                max_size=4,
            )
        ),
        max_leaves=12,
    )

    @given(
        st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": json_values}),
            max_size=3,
        ),
        st.dictionaries(st.sampled_from(["system", "tools", "tool_choice", "thinking", "output_config"]), json_values),
    )
    def test_whatever_a_client_writes_is_sent_or_refused_in_words(self, messages: Any, more: dict[str, Any]) -> None:
        for parse in (parse_request, parse_count):
            try:
                request = parse(encode({"messages": messages, "max_tokens": 5, **more}), {})
                encode(render_request(request, "m").body)
            except CauceError as error:
                assert error.status == 400


class TestRequestsFromOtherWires:
    def test_system_messages_that_come_first_are_the_system_prompt(self) -> None:
        first = Message("system", (TextPart("Be brief."),))
        second = Message("developer", (TextPart("Be kind."),))
        body = sent(Request("", (first, second, user())))
        assert body["system"] == [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
        assert sent(Request("", (first, user())))["system"] == "Be brief."
        assert "system" not in sent(Request("", (user(),)))

    def test_later_system_message_is_told_by_the_user(self) -> None:
        later = Message("developer", (TextPart("Be kind."),))
        body = sent(Request("", (user(), said("hello"), later, user())))
        assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "user"]
        assert body["messages"][2]["content"] == "<system>\nBe kind.\n</system>"

    def test_results_of_tools_and_what_the_user_says_next_are_one_message(self) -> None:
        calls = Message("assistant", (ToolCallPart("a", "f", '{"x": 1}'), ToolCallPart("b", "g", "")))
        results = [Message("tool", (TextPart(text),), call_id=id) for id, text in (("a", "1"), ("b", ""))]
        body = sent(Request("", (user(), calls, *results, user(TextPart("and?")))))
        assert body["messages"][1:] == [
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "b", "name": "g", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                    {"type": "tool_result", "tool_use_id": "b"},
                    {"type": "text", "text": "and?"},
                ],
            },
        ]

    @pytest.mark.parametrize("arguments", ["{", "[1]", "5", '"text"', '{"a": 1e999}', "[" * 100_000])
    def test_arguments_that_are_no_object_are_shown_to_the_model_as_they_are(self, arguments: str) -> None:
        calls = Message("assistant", (ToolCallPart("a", "f", arguments),))
        body = sent(Request("", (user(), calls, Message("tool", (TextPart("error"),), call_id="a", failed=True))))
        assert body["messages"][1]["content"][0]["input"] == {"invalid_arguments": arguments}
        assert body["messages"][2]["content"][0]["is_error"] is True

    def test_ids_of_calls_are_made_of_letters_and_stay_different(self) -> None:
        ids = ("call.1", "call:1", "ok-1_A", "")
        calls = Message("assistant", tuple([ToolCallPart(id, "f", "{}") for id in ids]))
        results = [Message("tool", (TextPart("x"),), call_id=id) for id in ids]
        body = sent(Request("", (user(), calls, *results)))
        called = [one["id"] for one in body["messages"][1]["content"]]
        assert called == [one["tool_use_id"] for one in body["messages"][2]["content"]]
        assert len(set(called)) == 4 and "ok-1_A" in called
        assert all(id.replace("_", "").replace("-", "").isalnum() or id == "_" for id in called)

    def test_images_and_documents_become_sources(self) -> None:
        parts = (
            ImagePart("data:image/png;base64,AAAA", "low"),
            ImagePart("https://example.org/a.png"),
            DocumentPart("data:application/pdf;base64,AAAA", "application/pdf", "paper.pdf"),
            DocumentPart("data:text/csv,a%2Cb"),
            DocumentPart("https://example.org/a.pdf"),
        )
        content = sent(Request("", (user(*parts),)))["messages"][0]["content"]
        assert [one["source"] for one in content] == [
            {"type": "base64", "media_type": "image/png", "data": "AAAA"},
            {"type": "url", "url": "https://example.org/a.png"},
            {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
            {"type": "text", "media_type": "text/plain", "data": "a,b"},
            {"type": "url", "url": "https://example.org/a.pdf"},
        ]
        assert content[2]["title"] == "paper.pdf"

    @pytest.mark.parametrize(
        "part",
        [
            ImagePart("data:image/tiff;base64,AAAA"),
            ImagePart("gs://bucket/a.png"),
            DocumentPart("data:application/zip;base64,AAAA"),
            OpaquePart("openai_chat", {"type": "input_audio"}),
        ],
    )
    def test_content_this_wire_does_not_take_is_refused(self, part: Any) -> None:
        with pytest.raises(Unsupported):
            sent(Request("", (user(part),)))

    @pytest.mark.parametrize("url", ["data:image/png;base64", "data:text/plain;base64,/w=="])
    def test_broken_data_url_is_the_clients_mistake(self, url: str) -> None:
        with pytest.raises(InvalidRequest):
            sent(Request("", (user(DocumentPart(url)),)))

    def test_reasoning_goes_back_to_its_maker_only(self) -> None:
        own = ReasoningPart("hm", Signature(WIRE, "sig"))
        hidden = ReasoningPart("", Signature(WIRE, "data", "redacted_thinking"))
        foreign = (ReasoningPart("hm", Signature("gemini", "x")), ReasoningPart("hm"))
        answer = Message("assistant", (own, hidden, *foreign, RefusalPart("no"), OpaquePart("openai_responses", {})))
        assert sent(Request("", (user(), answer, user())))["messages"][1]["content"] == [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "data"},
            {"type": "text", "text": "no"},
        ]

    def test_empty_text_which_the_api_refuses_is_left_out(self) -> None:
        body = sent(Request("", (user(), said(" \n"), user(TextPart(""), TextPart("b")))))
        assert body["messages"] == [HI, {"role": "user", "content": "b"}]
        with pytest.raises(InvalidRequest):
            sent(Request("", (user(TextPart(" ")),)))

    def test_tools_always_have_a_schema_of_type_object(self) -> None:
        request = Request("", (user(),), tools=(Tool("f"), Tool("g", parameters={"properties": {}}, strict=False)))
        assert sent(request)["tools"] == [
            {"name": "f", "input_schema": {"type": "object"}},
            {"name": "g", "input_schema": {"type": "object", "properties": {}}, "strict": False},
        ]
        assert "tool_choice" not in sent(request)
        alone = msgspec.structs.replace(request, parallel_tool_calls=False)
        assert sent(alone)["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
        assert "tool_choice" not in sent(Request("", (user(),), parallel_tool_calls=False))

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (Request("", (user(),), Sampling(n=2)), "n"),
            (Request("", (user(),), Sampling(logprobs=0)), "logprobs"),
            (Request("", (user(),), response_format=ResponseFormat("json_object")), "response_format"),
            (Request("", (user(),), response_format=ResponseFormat("json_schema", "n")), "response_format"),
            (Request("", (user(),), tools=(OpaqueTool("openai_responses", "web_search", {}),)), "tools"),
            (Request("", (user(),), prompt=Prompt("hi", "there")), "suffix"),
            (Request("", (Message("system", (ImagePart("https://example.org/a.png"),)), user())), "messages"),
        ],
    )
    def test_what_would_change_the_answer_is_refused_by_name(self, request_: Request, field: str) -> None:
        with pytest.raises(Unsupported) as caught:
            sent(request_)
        assert caught.value.field == field

    def test_schema_is_refused_where_the_model_is_known_not_to_follow_one(self) -> None:
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        request = Request("", (user(),), response_format=ResponseFormat("json_schema", "n", schema))
        assert sent(request)["output_config"]["format"] == {"type": "json_schema", "schema": schema}
        with pytest.raises(Unsupported):
            sent(request, facts=ModelFacts(json_schema=False))

    def test_what_does_not_matter_is_dropped_and_told_once(self, told: pytest.LogCaptureFixture) -> None:
        request = Request("", (user(),), Sampling(seed=1, presence_penalty=0.5, stop=(" ", "END")), user="u")
        for _ in range(2):
            body = sent(request)
        assert body["stop_sequences"] == ["END"] and body["metadata"] == {"user_id": "u"}
        assert "seed" not in body
        assert sum("seed" in record.message for record in told.records) == 1

    def test_bound_on_output_is_always_there(self) -> None:
        assert sent(Request("", (user(),)))["max_tokens"] == 4096
        assert sent(Request("", (user(),)), facts=ModelFacts(max_output=64_000))["max_tokens"] == 64_000
        assert sent(Request("", (user(),), Sampling(max_tokens=5)))["max_tokens"] == 5

    def test_last_message_of_the_assistant_is_gone_on_from_where_the_model_does_that(self) -> None:
        request = Request("", (user(), said("The answer is \n")))
        assert sent(request)["messages"][-1] == {"role": "assistant", "content": "The answer is"}
        with pytest.raises(Unsupported, match="end the conversation"):
            sent(request, facts=ModelFacts(prefill=False))

    def test_paused_turn_is_gone_on_from_by_every_model(self) -> None:
        paused = {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "n", "input": {}}]}
        request = parsed({"messages": [HI, paused]})
        assert sent(request, facts=ModelFacts(prefill=False))["messages"][1] == paused


class TestReasoningForModels:
    @pytest.mark.parametrize(
        ("model", "effort", "expected"),
        [
            ("claude-haiku-4-5", "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
            (
                "us.anthropic.claude-opus-4-5-20251101-v1:0",
                "xhigh",
                {"thinking": {"type": "enabled", "budget_tokens": 24576}, "output_config": {"effort": "high"}},
            ),
            ("claude-sonnet-4-6", "xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
            ("claude-opus-4-7", "minimal", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
            ("claude-opus-5-5", "max", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
            ("claude-opus-5", "none", {"thinking": {"type": "disabled"}}),
            ("claude-fable-5", "none", {"output_config": {"effort": "low"}}),
            ("claude-haiku-4-5", "none", {}),
            ("claude-3-5-haiku-20241022", "high", {}),
            ("glm-5", "medium", {"thinking": {"type": "enabled", "budget_tokens": 8192}}),
        ],
    )
    def test_effort_is_said_in_the_models_own_way(self, model: str, effort: str, expected: dict[str, Any]) -> None:
        body = sent(Request("", (user(),), reasoning=ReasoningOptions(effort)), model)
        assert {name: body[name] for name in ("thinking", "output_config") if name in body} == expected
        assert body["max_tokens"] == 4096 + expected.get("thinking", {}).get("budget_tokens", 0)

    def test_budget_is_kept_below_the_bound_on_output_or_given_up(self) -> None:
        asked = ReasoningOptions(budget_tokens=5000, visible=True)
        body = sent(Request("", (user(),), Sampling(max_tokens=3000), reasoning=asked))
        assert body["thinking"] == {"type": "enabled", "budget_tokens": 2999, "display": "summarized"}
        assert "thinking" not in sent(Request("", (user(),), Sampling(max_tokens=1024), reasoning=asked))

    def test_budget_is_an_effort_for_models_that_have_no_budgets(self) -> None:
        body = sent(Request("", (user(),), reasoning=ReasoningOptions(budget_tokens=5000)), "claude-opus-4-7")
        assert body["thinking"] == {"type": "adaptive"} and body["output_config"] == {"effort": "medium"}

    def test_forced_tool_goes_before_thinking(self) -> None:
        request = Request("", (user(),), tools=(Tool("f"),), tool_choice=ToolChoice("required"))
        request = msgspec.structs.replace(request, reasoning=ReasoningOptions("high"))
        body = sent(request, "claude-haiku-4-5")
        assert "thinking" not in body and body["tool_choice"] == {"type": "any"}


class TestVersions:
    def version(self, request: Request, model: str = "m", **options: Any) -> tuple[str, dict[str, Any]]:
        rendered = render_request(request, model, **options)
        kept = {name: rendered.body[name] for name in ("temperature", "top_p", "top_k") if name in rendered.body}
        return rendered.headers["anthropic-version"], kept

    @pytest.mark.parametrize(
        ("model", "sampling", "expected"),
        [
            ("claude-haiku-4-5", Sampling(), ("2026-10-21", {})),
            ("claude-haiku-4-5", Sampling(temperature=0.2), ("2023-06-01", {"temperature": 0.2})),
            ("claude-haiku-4-5", Sampling(temperature=1, top_p=1), ("2026-10-21", {})),
            ("claude-haiku-4-5", Sampling(temperature=0.2, top_p=0.9), ("2023-06-01", {"temperature": 0.2})),
            ("claude-haiku-4-5", Sampling(top_p=0.9), ("2023-06-01", {"top_p": 0.9})),
            ("claude-haiku-4-5", Sampling(temperature=1.7), ("2026-10-21", {})),
            ("claude-opus-4-7", Sampling(temperature=0.2, top_k=5), ("2026-10-21", {})),
            ("claude-sonnet-5-5", Sampling(temperature=0.2), ("2026-10-21", {})),
            ("claude-3-haiku", Sampling(0.2, 0.9, 5), ("2023-06-01", {"temperature": 0.2, "top_p": 0.9, "top_k": 5})),
        ],
    )
    def test_version_is_the_newest_that_knows_what_is_sent(
        self, model: str, sampling: Sampling, expected: tuple[str, dict[str, Any]]
    ) -> None:
        assert self.version(Request("", (user(),), sampling), model) == expected

    def test_dropped_temperature_is_told_once(self, told: pytest.LogCaptureFixture) -> None:
        for _ in range(2):
            self.version(Request("", (user(),), Sampling(temperature=0.2)), "claude-opus-4-7")
        assert [record.message for record in told.records if "temperature" in record.message] != []
        assert sum("temperature" in record.message for record in told.records) == 1

    def test_configured_version_is_always_sent(self) -> None:
        warm = Request("", (user(),), Sampling(temperature=0.2))
        assert self.version(warm, api_version="2026-10-21") == ("2026-10-21", {})
        assert self.version(warm, api_version="2023-06-01") == ("2023-06-01", {"temperature": 0.2})
        assert self.version(Request("", (user(),)), api_version="2023-06-01") == ("2023-06-01", {})

    def test_thinking_models_take_no_temperature(self) -> None:
        request = Request("", (user(),), Sampling(temperature=0.2), reasoning=ReasoningOptions("low"))
        assert self.version(request, "claude-haiku-4-5") == ("2026-10-21", {})

    @pytest.mark.parametrize(
        "message",
        [
            {"role": "assistant", "content": [{"type": "document", "source": {"type": "url", "url": "https://x.org"}}]},
            {"role": "user", "content": [{"type": "text", "text": "x", "citations": [{"type": "page_location"}]}]},
        ],
    )
    def test_what_only_the_older_version_knows_is_sent_under_it(self, message: dict[str, Any]) -> None:
        request = parsed({"messages": [HI, message, HI]})
        assert self.version(request)[0] == "2023-06-01"
        with pytest.raises(Unsupported, match="api_version"):
            self.version(request, api_version="2026-10-21")


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
block_kinds = st.sampled_from(
    [
        *("text", "thinking", "redacted_thinking", "tool_use", "compaction", "new", "text_delta", "thinking_delta"),
        *("signature_delta", "citations_delta", "input_json_delta", "compaction_delta", "new_delta"),
    ]
)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
shapes = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(anything, st.sampled_from(["", "a", '{"x":1}', "}"]))
        for name in ("text", "thinking", "signature", "data", "partial_json", "citation", "citations", "input", "id")
    },
)
pieces = st.tuples(st.one_of(anything, block_kinds), shapes).map(lambda two: {"type": two[0], **two[1]})
odd_events = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
                *("message_delta", "message_stop", "error", "ping", "new_event"),
            ]
        )
    },
    optional={
        "index": anything | st.integers(0, 2),
        "delta": anything | pieces,
        "content_block": anything | pieces,
        "message": anything | st.fixed_dictionaries({"usage": anything, "content": anything}),
        "usage": anything | st.dictionaries(st.sampled_from(list(USAGE)), anything),
        "error": anything,
    },
)


PIECE = frame("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"})
ANOTHER = frame("content_block_start", index=0, content_block={"type": "thinking"})
TEXTS = st.sampled_from(["", "a", '"', "\\", '"text":"x"', "ñ"])
PLACES = st.integers(0, 1)
happening = st.one_of(
    st.tuples(PLACES, TEXTS).map(
        lambda said: frame("content_block_delta", index=said[0], delta={"type": "text_delta", "text": said[1]})
    ),
    st.tuples(PLACES, st.sampled_from(["text", "thinking", "tool_use"])).map(
        lambda new: frame("content_block_start", index=new[0], content_block={"type": new[1], "id": "t", "name": "f"})
    ),
    PLACES.map(lambda place: frame("content_block_stop", index=place)),
    PLACES.map(
        lambda place: frame("content_block_delta", index=place, delta={"type": "thinking_delta", "thinking": "b"})
    ),
    st.sampled_from([frame("ping"), frame("error", error={"type": "overloaded_error", "message": "busy"})]),
    st.just(b'event: content_block_delta\ndata: {"index":0,"delta":{"type":"text_delta","text":"c"}}\n\n'),
)


def told_of(pieces: Sequence[bytes]) -> tuple[list[Delta], str | None]:
    """What is read of `pieces`, and the error that ends them."""
    decoder = MessagesDecoder("up")
    deltas: list[Delta] = []
    try:
        for piece in pieces:
            if not decoder.done:
                deltas += decoder.feed(piece)
        return deltas + decoder.finish(), None
    except ProviderFailure as failure:
        return deltas, failure.message


class TestDecoding:
    def test_words_become_text_and_one_finish_with_usage_ends_them(self) -> None:
        deltas = read(started(), frame("ping"), text_block(0, "Ho", "la"), ended())
        assert [delta.text for delta in deltas if isinstance(delta, Text)] == ["Ho", "la"]
        assert isinstance(deltas[-1], Finish) and deltas[-1].reason == "stop"
        usage = deltas[-1].usage
        assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.output_tokens) == (10, 3, 2, 7)

    def test_usage_of_the_end_overwrites_that_of_the_start_field_by_field(self) -> None:
        later = {"input_tokens": 100, "cache_read_input_tokens": None, "output_tokens": 9}
        details = {"output_tokens_details": {"thinking_tokens": 4}, "server_tool_use": {"web_search_requests": 1}}
        finish = read(started(), text_block(0, "a"), ended(usage={**later, **details}))[-1]
        assert isinstance(finish, Finish) and finish.usage.extra is not None
        assert (finish.usage.input_tokens, finish.usage.output_tokens, finish.usage.reasoning_tokens) == (105, 9, 4)
        assert finish.usage.extra.data["server_tool_use"] == {"web_search_requests": 1}

    def test_usage_that_was_not_reported_is_estimated(self) -> None:
        request = Request("", (user(TextPart("x" * 40)),))
        decoder = MessagesDecoder("up", estimate_input_tokens, request)
        start = frame("message_start", message={"content": []})
        decoder.feed(start + text_block(0, "12345678") + frame("message_stop"))
        finish = decoder.finish()[-1]
        assert isinstance(finish, Finish)
        assert finish.usage == Usage(estimate_input_tokens(request), 2, estimated=True)

    @example([PIECE, PIECE, PIECE, ANOTHER, PIECE])
    @given(st.lists(happening, max_size=12))
    def test_pieces_alike_are_read_as_if_each_were_read_in_full(self, happenings: list[bytes]) -> None:
        stream = [started(), *happenings, ended()]
        # A member of its own makes every piece differ from every other, so it is always read in full.
        piece = b'{"type":"content_block_delta"'
        full = [one.replace(piece, b'{"pad%d":null,' % place + piece[1:]) for place, one in enumerate(stream)]
        assert told_of(stream) == told_of([b"".join(stream)]) == told_of(full)

    def test_nothing_is_handed_out_before_a_block_says_something(self) -> None:
        decoder = MessagesDecoder("up")
        begun = frame("content_block_start", index=0, content_block={"type": "text", "text": ""})
        assert decoder.feed(started() + frame("ping") + begun) == []
        overloaded = frame("error", error={"type": "overloaded_error", "message": "Overloaded"})
        with pytest.raises(ProviderFailure) as caught:
            decoder.feed(overloaded)
        assert (caught.value.failure, caught.value.code) == ("overloaded", "overloaded")

    def test_words_before_an_error_in_the_same_bytes_are_not_lost(self) -> None:
        decoder = MessagesDecoder("up")
        error = frame("error", error={"type": "api_error", "message": "oops"})
        deltas = decoder.feed(started() + text_block(0, "half") + error + ended())
        assert [delta.text for delta in deltas if isinstance(delta, Text)] == ["half"]
        assert decoder.done
        with pytest.raises(ProviderFailure, match="oops"):
            decoder.finish()

    def test_blocks_that_follow_their_like_begin_anew(self) -> None:
        deltas = read(started(), text_block(0, "a", "b"), text_block(1, "c"), text_block(2), ended())
        assert [(delta.text, delta.begins) for delta in deltas if isinstance(delta, Text)] == [
            ("a", False),
            ("b", False),
            ("c", True),
            ("", True),
        ]
        assert len(collected(deltas).choices[0].parts) == 3

    def test_thinking_is_reasoning_and_ends_with_its_signature(self) -> None:
        thinking = block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "hm"},
            {"type": "signature_delta", "signature": "c2ln"},
        )
        hidden = block(1, {"type": "redacted_thinking", "data": "ZGF0YQ"})
        parts = collected(read(started(), thinking, hidden, text_block(2, "ok"), ended())).choices[0].parts
        assert isinstance(parts[0], ReasoningPart) and isinstance(parts[1], ReasoningPart)
        assert (parts[0].text, parts[0].signature) == ("hm", Signature(WIRE, "c2ln"))
        assert (parts[1].text, parts[1].signature) == ("", Signature(WIRE, "ZGF0YQ", "redacted_thinking"))

    @pytest.mark.parametrize(
        ("begun", "pieces", "arguments"),
        [
            ({}, ["", '{"x"', ": 1}"], '{"x": 1}'),
            ({}, [], "{}"),
            ({}, [""], "{}"),
            ({"x": 1}, [], '{"x":1}'),
        ],
    )
    def test_tool_calls_come_in_pieces_and_whole(self, begun: Any, pieces: list[str], arguments: str) -> None:
        call = {"type": "tool_use", "id": "t", "name": "f", "input": begun}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        read_deltas = read(started(), text_block(0, "a"), block(1, call, *deltas), ended("tool_use"))
        calls = [delta for delta in read_deltas if isinstance(delta, ToolCall)]
        assert "".join(call.arguments for call in calls[:-1]) == arguments
        assert {call.mark for call in calls[:-1]} == {"piece"}
        assert (calls[-1].call_id, calls[-1].name, calls[-1].arguments, calls[-1].mark) == (
            "t",
            "f",
            arguments,
            "ready",
        )
        assert isinstance(read_deltas[-1], Finish) and read_deltas[-1].reason == "tool_calls"

    def test_block_that_never_stopped_ends_with_the_message(self) -> None:
        call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        whole = frame("content_block_start", index=0, content_block=call)
        ready = read(started(), whole, ended("tool_use"))[-2]
        assert isinstance(ready, ToolCall) and (ready.mark, ready.arguments) == ("ready", "{}")

    def test_what_the_start_said_is_carried_by_the_first_delta_alone(self) -> None:
        deltas = read(started(container={"id": "c"}), text_block(0, "a", "b"), text_block(1, "c"), ended())
        carrying = [delta for delta in deltas if delta.extra is not None and "message" in delta.extra.data]
        assert carrying == [deltas[0]] and deltas[0].extra is not None
        assert deltas[0].extra.data["message"] == {"container": {"id": "c"}, "usage": USAGE}

    def test_parallel_calls_are_numbered_among_calls(self) -> None:
        calls = [block(index, {"type": "tool_use", "id": f"t{index}", "name": "f", "input": {}}) for index in (1, 2)]
        deltas = read(started(), text_block(0, "a"), *calls, ended("tool_use"))
        ready = [delta for delta in deltas if isinstance(delta, ToolCall) and delta.mark == "ready"]
        assert [(call.index, call.call_id) for call in ready] == [(0, "t1"), (1, "t2")]

    def test_citations_follow_their_text_even_where_they_came_first(self) -> None:
        cited = {"type": "web_search_result_location", "url": "https://x.org", "title": "X", "cited_text": "q"}
        pieces = ({"type": "citations_delta", "citation": cited}, {"type": "text_delta", "text": "said"})
        deltas = read(started(), block(0, {"type": "text", "text": "", "citations": []}, *pieces), ended())
        part = collected(deltas).choices[0].parts[0]
        assert isinstance(part, TextPart) and part.text == "said"
        assert part.citations == (Citation("https://x.org", "X", "q", extra=Extra(WIRE, cited)),)

    def test_block_unknown_here_is_carried_whole(self) -> None:
        search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"query":', '"q"}')]
        compacted = ({"type": "compaction", "content": None}, {"type": "compaction_delta", "content": "sum"})
        deltas = read(started(), block(0, search, *pieces), block(1, *compacted), text_block(2, "a"), ended())
        opaque = [delta.data for delta in deltas if isinstance(delta, Opaque)]
        assert opaque == [{**search, "input": {"query": "q"}}, {"type": "compaction", "content": "sum"}]

    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("pause_turn", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_calls"),
            ("refusal", "content_filter"),
            ("a_word_of_tomorrow", "stop"),
        ],
    )
    def test_every_stop_reason_is_understood_and_shown_again(self, word: str, reason: str) -> None:
        deltas = read(started(), text_block(0, "a"), ended(word, stop_details={"type": "x"}))
        assert isinstance(deltas[-1], Finish) and deltas[-1].reason == reason
        last = shown(deltas)[-2]
        assert last["delta"] == {"stop_reason": word, "stop_sequence": None, "stop_details": {"type": "x"}}

    def test_answer_without_a_block_is_an_answer(self) -> None:
        deltas = read(started(container={"id": "c"}), ended("refusal"))
        assert len(deltas) == 1
        found = shown(deltas)
        assert kinds(found) == ["message_start", "message_delta", "message_stop"]
        assert found[0]["message"]["container"] == {"id": "c"}

    def test_second_message_start_and_all_after_the_end_are_ignored(self) -> None:
        again = started(usage={"input_tokens": 999, "output_tokens": 1})
        deltas = read(
            started(), again, text_block(0, "a"), ended() + started() + text_block(0, "b") + ended("max_tokens")
        )
        assert [delta.text for delta in deltas if isinstance(delta, Text)] == ["a"]
        assert isinstance(deltas[-1], Finish) and deltas[-1].usage.input_tokens == 10

    @pytest.mark.parametrize("last", [b"", frame("message_delta", delta={"stop_reason": "end_turn"}, usage={})])
    def test_end_without_message_stop_is_a_failure(self, last: bytes) -> None:
        with pytest.raises(ProviderFailure, match="cut off"):
            read(started(), text_block(0, "half"), last)

    def test_last_event_without_its_blank_line_counts(self) -> None:
        assert isinstance(read(started(), text_block(0, "a"), ended().rstrip(b"\n"))[-1], Finish)

    def test_servers_that_leave_out_starts_and_names_are_read(self) -> None:
        bare = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}},
            {"type": "message_stop"},
        ]
        deltas = read(*[b"data: " + encode(one) + b"\n\n" for one in bare])
        assert [delta.text for delta in deltas if isinstance(delta, Text | Reasoning)] == ["hm", "a"]

    def test_event_that_only_its_name_tells_is_read(self) -> None:
        with pytest.raises(ProviderFailure, match="oops"):
            read(b'event: error\ndata: {"error": {"message": "oops"}}\n\n')

    @pytest.mark.parametrize(
        "body", [b"{}", b'{"type":"error","error":{"message":"no"}}', b'{"content": {}}', b"[]", b""]
    )
    def test_plain_answer_that_is_none_is_a_failure(self, body: bytes) -> None:
        with pytest.raises(ProviderFailure):
            MessagesDecoder("up").completion(body)

    EVERYTHING = b"".join(
        [
            started(container=None),
            block(
                0, {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "ñ😀"}
            ),
            block(1, {"type": "server_tool_use", "id": "s", "name": "n", "input": {}}),
            frame("ping"),
            text_block(2, "España", " \u2028 😀"),
            block(
                3,
                {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                {"type": "input_json_delta", "partial_json": '{"x": "ñ"}'},
            ),
            ended("tool_use"),
        ]
    )

    @given(st.lists(st.integers(0, len(EVERYTHING)), max_size=8), st.sampled_from([b"\n", b"\r\n", b"\r"]))
    def test_any_split_of_the_bytes_decodes_alike(self, cuts: list[int], line_end: bytes) -> None:
        whole = self.EVERYTHING.replace(b"\n", line_end)
        places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
        pieces = [whole[start:end] for start, end in itertools.pairwise(places)]
        assert read(*pieces) == read(self.EVERYTHING)

    @given(st.binary(max_size=120))
    def test_no_bytes_end_in_anything_but_deltas_or_a_typed_error(self, raw: bytes) -> None:
        for body in (raw, b"data: " + raw + b"\n\n", b'data: {"type":"content_block_delta","delta":' + raw + b"}\n\n"):
            try:
                read(body)
            except ProviderFailure:
                continue

    @given(st.lists(odd_events, max_size=8), st.lists(anything | pieces, max_size=3))
    def test_odd_answers_become_what_every_client_can_be_shown_or_a_typed_error(
        self, odd: list[Any], content: list[Any]
    ) -> None:
        decoder = MessagesDecoder("up")
        body = b"".join([b"data: " + encode(one) + b"\n\n" for one in odd])
        for decoded in (lambda: read(body), lambda: decoder.completion(encode({"content": content, "usage": content}))):
            try:
                deltas = decoded()
            except ProviderFailure:
                continue
            MessagesProjector("id", "m").feed(deltas)
            render_message(collected(deltas), "id", "m")


answers = st.fixed_dictionaries(
    {
        "content": st.lists(
            st.one_of(
                answered_blocks,
                blocks("text", text=words, citations=st.none() | st.just([])),
                blocks("web_search_tool_result", tool_use_id=words, content=st.lists(objects, max_size=1)),
                blocks("compaction", content=words | st.none()),
                blocks("fallback", **{"from": objects}),
                blocks("text", text=st.just("")),
            ),
            max_size=4,
        ),
        "stop_reason": st.sampled_from(
            ["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"]
        ),
        "stop_sequence": st.none() | words,
        "usage": st.just(USAGE) | st.just({**USAGE, "service_tier": "standard", "iterations": [{"x": 1}]}),
    },
    optional={"container": st.none() | objects, "context_management": objects, "stop_details": st.none() | objects},
)


class TestAnswersRoundTrip:
    @given(answers)
    def test_answer_is_shown_as_it_was_read_plain_and_streamed(self, body: dict[str, Any]) -> None:
        message = {"id": "msg_x", "type": "message", "role": "assistant", "model": "public", **body}
        deltas = MessagesDecoder("up").completion(encode(message))
        assert decode(render_message(collected(deltas), "msg_x", "public")) == message
        streamed = read(MessagesProjector("msg_x", "public").feed(deltas))
        assert decode(render_message(collected(streamed), "msg_x", "public")) == message

    def test_pieces_and_fields_of_tomorrow_pass(self) -> None:
        tomorrow = {"type": "glow_delta", "glow": 1}
        call = {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "direct"}}
        whole = (
            started(container={"id": "c"})
            + block(0, {"type": "text", "text": "", "hue": 1}, {"type": "text_delta", "text": "a"}, tomorrow)
            + block(1, {"type": "thinking", "thinking": "", "signature": ""}, tomorrow)
            + block(2, call, tomorrow, {"type": "input_json_delta", "partial_json": "{}"})
            + block(3, {"type": "aura", "strength": 5}, tomorrow)
            + frame("message_delta", delta={}, usage={"output_tokens": 8}, context_management={"applied_edits": []})
            + ended("tool_use", container={"id": "c", "left": 1})
        )
        given_events = [one for one in events(whole) if one != {"type": "ping"}]
        found = [one for one in shown(read(whole)) if one != {"type": "ping"}]
        assert [one for one in found if "delta" in one and one["delta"] == tomorrow] == [
            one for one in given_events if "delta" in one and one["delta"] == tomorrow
        ]
        assert found[1]["content_block"]["hue"] == 1
        assert [one["content_block"] for one in found if "content_block" in one][2:] == [
            call,
            {"type": "aura", "strength": 5},
        ]
        assert found[0]["message"]["container"] == {"id": "c"}
        assert found[-2]["delta"]["container"] == {"id": "c", "left": 1}
        assert found[-2]["context_management"] == {"applied_edits": []}
        plain = decode(render_message(collected(read(whole)), "id", "m"))
        assert (plain["container"], plain["context_management"]) == ({"id": "c", "left": 1}, {"applied_edits": []})

    def test_word_of_the_upstream_gives_way_to_an_ending_of_ours(self) -> None:
        *_, finish = read(started(), text_block(0, "a"), ended("end_turn"))
        assert isinstance(finish, Finish)
        found = shown([Text("a"), msgspec.structs.replace(finish, reason="length")])
        assert found[-2]["delta"]["stop_reason"] == "max_tokens"


class TestStreamsForClients:
    def test_events_come_in_the_order_agents_expect(self) -> None:
        deltas = [
            Status("accepted"),
            Attempt(1, "up", "m", "primary"),
            Text("Ho"),
            Text("la"),
            ToolCall(0, "t", "f", ""),
            ToolCall(0, "t", "f", '{"x":1}'),
            ToolCall(0, "t", "f", '{"x":1}', "ready"),
            Finish("tool_calls", Usage(9, 4, 2, 1)),
        ]
        found = shown(deltas, input_tokens=12)
        assert kinds(found) == [
            *("message_start", "start", "ping", "delta", "delta", "stop"),
            *("start", "delta", "delta", "stop", "message_delta", "message_stop"),
        ]
        assert found[0]["message"] == {
            "id": "msg_x",
            "type": "message",
            "role": "assistant",
            "model": "public",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 12,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 1,
            },
        }
        assert found[1] == {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        assert found[3]["delta"] == {"type": "text_delta", "text": "Ho"}
        assert found[6]["content_block"] == {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        assert found[8]["delta"] == {"type": "input_json_delta", "partial_json": '{"x":1}'}
        assert [one["index"] for one in found if "index" in one] == [0, 0, 0, 0, 1, 1, 1, 1]
        assert found[-2] == {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {
                "input_tokens": 6,
                "cache_creation_input_tokens": 1,
                "cache_read_input_tokens": 2,
                "output_tokens": 4,
            },
        }

    def test_nothing_is_sent_before_there_is_content(self) -> None:
        projector = MessagesProjector("id", "m")
        assert projector.feed([Status("accepted"), Attempt(1, "up", "m", "primary"), Text(""), Reasoning("hm")]) == b""

    def test_calls_whose_pieces_are_mixed_stay_whole(self) -> None:
        deltas = [
            ToolCall(0, "a", "f", '{"x"'),
            ToolCall(1, "b", "", ""),
            ToolCall(1, "b", "g", "{}"),
            ToolCall(0, "a", "f", ":1}"),
            ToolCall(0, "a", "f", '{"x":1}', "ready"),
            ToolCall(1, "b", "g", "{}", "ready"),
            Finish("tool_calls"),
        ]
        found = shown(deltas)
        joined = {
            index: "".join(
                one["delta"]["partial_json"]
                for one in found
                if one.get("index") == index and one["type"].endswith("delta")
            )
            for index in (0, 1)
        }
        assert joined == {0: '{"x":1}', 1: "{}"}
        assert sorted(one["index"] for one in found if one["type"] == "content_block_stop") == [0, 1]
        assert [one["content_block"]["name"] for one in found if "content_block" in one] == ["f", "g"]

    def test_complete_call_ends_before_the_next_block_begins(self) -> None:
        deltas = [
            ToolCall(0, "a", "f", "{}"),
            ToolCall(1, "b", "g", "{}"),
            Text("and"),
            ToolCall(0, "a", "f", "{}", "ready"),
        ]
        found = shown([*deltas, ToolCall(1, "b", "g", "{}", "ready"), Finish("tool_calls")])
        order = [(kind, one["index"]) for kind, one in zip(kinds(found), found, strict=True) if "index" in one]
        assert [one for one in order if one[0] != "delta"] == [
            *(("start", 0), ("stop", 0), ("start", 1), ("stop", 1), ("start", 2), ("stop", 2)),
        ]

    def test_reasoning_of_others_is_shown_to_those_who_asked(self) -> None:
        signature = Signature("gemini", "c2ln", "id")
        deltas = [Reasoning("hm"), Reasoning("", signature), Text("ok"), Finish("stop")]
        assert "thinking" not in str(shown(deltas))
        found = shown(deltas, thinking=True)
        assert found[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
        assert found[3]["delta"] == {"type": "thinking_delta", "thinking": "hm"}
        assert unseal(found[4]["delta"]["signature"], WIRE) == signature

    def test_signature_of_a_call_comes_back_with_the_block(self) -> None:
        signature = Signature("gemini", "c2ln")
        call = ToolCallPart("t", "f", "{}", signature=signature)
        deltas = [
            ToolCall(0, "t", "f", "{}", signature=signature),
            ToolCall(0, "t", "f", "{}", "ready", signature=signature),
        ]
        streamed = shown([*deltas, Finish("tool_calls")])[1]["content_block"]
        plain = decode(render_message(Completion((Choice((call,), "tool_calls"),), Usage()), "id", "m"))["content"][0]
        assert streamed == plain
        (_, answer) = parsed({"messages": [HI, {"role": "assistant", "content": [plain]}]}).messages
        assert answer.parts == (call,)
        assert "signature" not in str(sent(Request("", (user(), answer, user()))))

    def test_source_of_another_wire_is_shown_and_recognised(self) -> None:
        citation = Citation("https://x.org", "X", "q", 0, 4)
        found = shown([Text("said"), citation, Finish("stop")])
        raw = found[4]["delta"]["citation"]
        assert (raw["type"], raw["url"], raw["cited_text"]) == ("web_search_result_location", "https://x.org", "q")
        back = parsed(
            {"messages": [HI, {"role": "assistant", "content": [{"type": "text", "text": "said", "citations": [raw]}]}]}
        )
        part = back.messages[1].parts[0]
        assert isinstance(part, TextPart) and part.citations == (Citation("https://x.org", "X", "q"),)
        assert "citations" not in str(sent(msgspec.structs.replace(back, messages=(*back.messages, user()))))

    def test_refusal_in_words_is_a_refusal(self) -> None:
        found = shown([Refusal("I will "), Refusal("not."), Finish("stop")])
        assert "".join(one["delta"]["text"] for one in found if one["type"] == "content_block_delta") == "I will not."
        assert found[-2]["delta"]["stop_reason"] == "refusal"
        plain = decode(render_message(Completion((Choice((RefusalPart("no"),)),), Usage()), "id", "m"))
        assert (plain["content"], plain["stop_reason"]) == ([{"type": "text", "text": "no"}], "refusal")

    @pytest.mark.parametrize(
        ("last", "kind"),
        [
            (Finish("error", outcome="incomplete", error=Failed("overloaded", "busy", 2.0)), "overloaded_error"),
            (Finish("error", outcome="failed", error=Failed("timeout", "late")), "timeout_error"),
            (Finish("cancelled", outcome="cancelled"), "api_error"),
            (Restart(1, "again"), "api_error"),
        ],
    )
    def test_answer_that_broke_ends_in_an_error_and_never_cleanly(self, last: Delta, kind: str) -> None:
        projector = MessagesProjector("id", "m")
        found = events(projector.feed([Text("half"), last, Text("more"), Finish("stop")]))
        assert found[-1]["type"] == "error" and found[-1]["error"]["type"] == kind
        assert kinds(found) == ["message_start", "start", "ping", "delta", "error"]
        assert projector.feed([Text("more"), Finish("stop")]) == b""

    def test_lines_stay_whole_for_clients_that_split_at_odd_characters(self) -> None:
        frames = MessagesProjector("id", "m").feed([Text("a\u2028b\u0085c"), Text("\u2029")])
        assert len(frames.decode().splitlines()) == frames.count(b"\n")


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "error", "failure", "code"),
        [
            (400, {"type": "invalid_request_error", "message": "bad"}, "bad_request", "invalid_request"),
            (400, {"message": "prompt is too long: 9 tokens > 5 maximum"}, "bad_request", "context_length_exceeded"),
            (
                400,
                {"message": "input length and `max_tokens` exceed context limit: 9 + 5 > 10"},
                "bad_request",
                "context_length_exceeded",
            ),
            (400, {"message": "Your credit balance is too low to access the API."}, "quota", "quota_exceeded"),
            (400, {"message": "You have reached your specified API usage limits."}, "quota", "quota_exceeded"),
            (400, {"message": "This workspace has reached its spend limit."}, "quota", "quota_exceeded"),
            (400, {"message": "Output blocked by content filtering policy"}, "content_filter", "invalid_request"),
            (401, {"type": "authentication_error", "message": "invalid x-api-key"}, "auth", "provider_error"),
            (402, {"type": "billing_error", "message": "pay"}, "quota", "quota_exceeded"),
            (403, {"type": "permission_error", "message": "no"}, "auth", "provider_error"),
            (403, {"type": "forbidden", "message": "Request not allowed"}, "transient", "provider_error"),
            (404, {"type": "not_found_error", "message": "model: x"}, "bad_request", "model_not_found"),
            (404, {"message": "The model x does not exist"}, "bad_request", "model_not_found"),
            (404, {"type": "not_found_error", "message": "Not Found"}, "transient", "provider_error"),
            (413, {"type": "request_too_large", "message": "32 MB"}, "bad_request", "payload_too_large"),
            (429, {"type": "rate_limit_error", "message": "slow"}, "rate_limited", "rate_limited"),
            (500, {"type": "api_error", "message": "oops"}, "transient", "provider_error"),
            (503, {"type": "api_error", "message": "oops"}, "overloaded", "overloaded"),
            (504, {"type": "timeout_error", "message": "late"}, "transient", "provider_error"),
            (529, {"type": "overloaded_error", "message": "Overloaded"}, "overloaded", "overloaded"),
            (418, {"type": "teapot"}, "transient", "provider_error"),
        ],
    )
    def test_refusal_has_its_class(self, status: int, error: dict[str, Any], failure: str, code: str) -> None:
        caught = failure_of(status, error)
        assert (caught.failure, caught.code, caught.upstream_status) == (failure, code, status)

    def test_monthly_cap_holds_until_the_first_of_the_next_month(self) -> None:
        error = {"type": "rate_limit_error", "message": "m", "details": {"error_code": "enforced_spend_limit_reached"}}
        capped = failure_of(429, error, date="Mon, 30 Nov 2026 23:59:00 GMT")
        assert (capped.failure, capped.retry_after) == ("quota", 60.0)
        assert failure_of(429, error).retry_after is None
        assert failure_of(429, error, retry_after="5").retry_after == 5.0

    @pytest.mark.parametrize(
        ("date", "seconds"),
        [
            ("Thu, 31 Dec 2026 23:00:00 GMT", 3600.0),
            ("Mon, 01 Feb 2027 00:00:00 GMT", 28 * 86400.0),
            ("no date", None),
            (None, None),
        ],
    )
    def test_months_end_where_they_end(self, date: str | None, seconds: float | None) -> None:
        assert until_next_month(date) == seconds

    def test_word_of_the_upstream_on_retrying_is_kept(self) -> None:
        caught = failure_of(401, {"message": "no"}, x_should_retry="false", retry_after="7")
        assert (caught.should_retry, caught.retry_after) == (False, 7.0)

    @pytest.mark.parametrize(
        "body", [b"", b"<html>busy</html>", b"[1]", b'"x"', b'{"error": 5}', b"\xff", b"[" * 100_000]
    )
    def test_refusal_in_no_known_shape_is_classed_by_its_status(self, body: bytes) -> None:
        assert refused("up", 529, {}, body).failure == "overloaded"

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (InvalidRequest("no", field="x"), "invalid_request_error"),
            (Unauthorized("no"), "authentication_error"),
            (Forbidden("no"), "permission_error"),
            (ModelNotFound("no"), "not_found_error"),
            (PayloadTooLarge("no"), "request_too_large"),
            (Overloaded("no"), "overloaded_error"),
            (ProviderFailure("no", failure="rate_limited", provider="up"), "rate_limit_error"),
            (ProviderFailure("no", failure="quota", provider="up"), "rate_limit_error"),
            (ProviderFailure("no", failure="transient", provider="up"), "api_error"),
        ],
    )
    def test_error_is_shown_in_the_apis_words(self, error: CauceError, kind: str) -> None:
        body = render_error(error, "req_1")
        assert body == {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "req_1"}
