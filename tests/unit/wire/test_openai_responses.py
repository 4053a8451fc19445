"""The Responses wire in both directions."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.citation import Citation
from cauce.domain.completion import Completion
from cauce.domain.delta import (
    Delta,
    Failed,
    Finish,
    Opaque,
    Reasoning,
    Refusal,
    Status,
    Text,
    TokenLogprob,
    ToolCall,
)
from cauce.domain.errors import Conflict, InvalidRequest, ProviderFailure, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from cauce.domain.request import Prompt, ReasoningOptions, Request, ResponseFormat, Sampling
from cauce.domain.signature import Signature
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.engine.compose import collect
from cauce.ports.provider import Deltas
from cauce.wire.fields import decode_object
from cauce.wire.openai_responses.decode import ResponsesDecoder
from cauce.wire.openai_responses.listing import listed, page
from cauce.wire.openai_responses.names import WIRE, made_id
from cauce.wire.openai_responses.render import ResponsesProjector
from cauce.wire.openai_responses.replay import Recorder, replay
from cauce.wire.openai_responses.request import parse_request, render_request
from cauce.wire.openai_responses.response import Head, echo, render_response
from cauce.wire.openai_responses.tools import as_arguments, as_input, custom_names
from cauce.wire.signing import unseal

encode = msgspec.json.encode
HEAD = Head("resp_1", 5, echo({}, "m"))
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'},
}


def asked(**fields: Any) -> Request:
    return parse_request(encode({"model": "m", "input": "hi", **fields}))


def sent(request: Request, *, stream: bool = False) -> dict[str, Any]:
    return render_request(request, request.model, stream=stream)


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\n".encode() + b"data: " + encode({"type": kind, **fields}) + b"\n\n"


def read(*pieces: bytes) -> list[Delta]:
    decoder = ResponsesDecoder("up")
    deltas = [delta for piece in pieces for delta in decoder.feed(piece)]
    return deltas + decoder.finish()


def whole(*deltas: Delta) -> Completion:
    async def source() -> AsyncGenerator[Sequence[Delta], None]:
        yield deltas

    return asyncio.run(collect(Deltas(source())))


def plain(body: dict[str, Any]) -> Completion:
    return whole(*ResponsesDecoder("up").completion(encode(body)))


def events(frames: bytes) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for frame in frames.split(b"\n\n")[:-1]:
        name, _, data = frame.partition(b"\n")
        value = msgspec.json.decode(data.removeprefix(b"data: "))
        assert name == b"event: " + value["type"].encode()
        told.append(value)
    return told


def shown(*deltas: Delta, head: Head = HEAD) -> list[dict[str, Any]]:
    projector = ResponsesProjector(head)
    told = events(b"".join([projector.feed([delta]) for delta in deltas]))
    assert [one["sequence_number"] for one in told] == list(range(len(told)))
    return told


def final(*deltas: Delta, head: Head = HEAD) -> dict[str, Any]:
    return shown(*deltas, head=head)[-1]["response"]


def message(*texts: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in texts]
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": content, **fields}


def response(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "resp_up", "object": "response", "status": "completed", "output": list(output), **fields}


def completed(*output: dict[str, Any], **fields: Any) -> bytes:
    return event("response.completed", response=response(*output, **fields))


# What this wire can say, as the codec keeps it.

TEXTS = st.text(max_size=20)
SOME = st.text(min_size=1, max_size=20)
WORDS = st.text("abcdefgh_", min_size=1, max_size=8)
FIELDS = st.fixed_dictionaries(
    {}, optional={"id": WORDS.map("x_".__add__), "status": st.just("completed"), "future": st.integers()}
)
KEPT = st.one_of(st.none(), st.builds(lambda value: Extra(WIRE, {"part": {"later": value}}), st.integers()))
URLS = WORDS.map("https://example.org/".__add__)
INPUTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(TextPart, TEXTS, KEPT),
    st.builds(ImagePart, URLS, st.sampled_from([None, "low"]), KEPT),
    st.builds(DocumentPart, URLS, name=st.one_of(st.none(), WORDS), extra=KEPT),
    st.builds(DocumentPart, WORDS.map("data:application/pdf;base64,".__add__), name=WORDS),
    st.builds(lambda value: OpaquePart(WIRE, {"part": {"type": "input_audio", "data": value}}), TEXTS),
)


def extra(fields: dict[str, Any], **more: Any) -> Extra | None:
    data = {**({"item": fields} if fields else {}), **more}
    return Extra(WIRE, data) if data else None


@st.composite
def thoughts(draw: st.DrawFn) -> ReasoningPart:
    fields = {**draw(FIELDS), "id": draw(WORDS)}
    parts: list[list[Any]] = []
    text = ""
    for kind in ["summary_text"] * draw(st.integers(0, 2)) + ["reasoning_text"] * draw(st.integers(0, 2)):
        parts.append([len(text), kind])
        text += draw(TEXTS)
    signature = draw(st.one_of(st.none(), st.builds(Signature, st.just(WIRE), WORDS, st.just(fields["id"]))))
    return ReasoningPart(text, signature, extra(fields, **({"parts": parts} if parts else {})))


@st.composite
def said(draw: st.DrawFn) -> list[Part]:
    count = draw(st.integers(1, 3))
    return [
        draw(
            st.one_of(
                st.builds(TextPart, TEXTS, KEPT, st.lists(st.builds(_citation, URLS), max_size=2).map(tuple)),
                st.builds(RefusalPart, TEXTS, KEPT),
                st.builds(lambda value: OpaquePart(WIRE, {"part": {"type": "odd", "data": value}}), TEXTS),
            )
        )
        for _ in range(count)
    ]


def _citation(url: str) -> Citation:
    raw = {"type": "url_citation", "url": url, "title": "T", "start_index": 0, "end_index": 2}
    return Citation(url=url, title="T", start=0, end=2, extra=Extra(WIRE, {"annotation": raw}))


def beginning(part: Part, fields: dict[str, Any]) -> Part:
    if isinstance(part, OpaquePart):
        return OpaquePart(WIRE, {**part.data, "of": fields})
    kept = getattr(part, "extra", None)
    return msgspec.structs.replace(part, extra=Extra(WIRE, {**(kept.data if kept else {}), "item": fields}))


@st.composite
def turns(draw: st.DrawFn, number: int) -> list[Message]:
    """A message of a user or the system, an assistant's turn after it, and results of tools."""
    role = draw(st.sampled_from(["user", "system", "developer"]))
    inputs = tuple(draw(st.lists(INPUTS, min_size=1, max_size=3)))
    messages = [Message(role, inputs, extra=extra(draw(FIELDS)))]
    parts: list[Part] = []
    for place in range(draw(st.integers(0, 3))):
        match draw(st.sampled_from(["message", "reasoning", "call", "custom", "item"])):
            case "message":
                content, fields = draw(said()), draw(FIELDS)
                if fields or parts:
                    content[0] = beginning(content[0], fields)
                parts.extend(content)
            case "reasoning":
                parts.append(draw(thoughts()))
            case "call":
                parts.append(ToolCallPart(f"call_{number}_{place}", draw(WORDS), draw(TEXTS), extra(draw(FIELDS))))
            case "custom":
                fields = {"type": "custom_tool_call", **draw(FIELDS)}
                call = f"free_{number}_{place}"
                parts.append(ToolCallPart(call, draw(WORDS), as_arguments(draw(TEXTS)), extra(fields)))
                result = extra({"type": "custom_tool_call_output", **draw(FIELDS)})
                messages.append(Message("tool", (TextPart(draw(TEXTS)),), call_id=call, extra=result))
            case _:
                parts.append(OpaquePart(WIRE, {"item": {"type": "web_search_call", "id": draw(WORDS)}}))
    if parts:
        messages.insert(1, Message("assistant", tuple(parts)))
        results = draw(st.integers(0, 2))
        for place in range(results):
            content = tuple(draw(st.lists(INPUTS, min_size=1, max_size=2)))
            messages.append(Message("tool", content, call_id=f"call_{number}_{place}", extra=extra(draw(FIELDS))))
    return messages


@st.composite
def requests(draw: st.DrawFn) -> Request:
    messages = [one for number in range(draw(st.integers(1, 3))) for one in draw(turns(number))]
    if draw(st.booleans()):
        instructions = Extra(WIRE, {"instructions": True})
        messages.insert(0, Message("system", (TextPart(draw(TEXTS)),), extra=instructions))
    metadata = draw(st.one_of(st.none(), st.dictionaries(WORDS, TEXTS, max_size=2)))
    unknown: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "store": st.booleans(),
                "truncation": st.just("auto"),
                "service_tier": st.just("flex"),
                "prompt_cache_key": WORDS,
                "include": st.just(["reasoning.encrypted_content"]),
                "text": st.just({"verbosity": "low"}),
                "future": st.lists(st.integers(), max_size=2),
            },
        )
    )
    if metadata is not None:
        unknown["metadata"] = metadata
    reasoning = draw(
        st.one_of(
            st.none(), st.builds(ReasoningOptions, effort=st.sampled_from([None, "low", "max"]), visible=st.none())
        )
    )
    if reasoning is not None and draw(st.booleans()):
        reasoning = ReasoningOptions(effort=reasoning.effort, visible=True)
        unknown["reasoning"] = {"summary": "detailed"}
    if reasoning == ReasoningOptions():
        reasoning = None
    function = st.builds(
        Tool,
        WORDS,
        st.one_of(st.none(), TEXTS),
        st.one_of(st.none(), st.just({"type": "object", "properties": {}})),
        st.sampled_from([None, True, False]),
        st.builds(lambda data: Extra(WIRE, data), st.fixed_dictionaries({}, optional={"defer_loading": st.just(True)})),
    )
    hosted = st.just(OpaqueTool(WIRE, "web_search", {"type": "web_search", "search_context_size": "low"}))
    patch = parse_request(encode({"input": "hi", "tools": [PATCH]})).tools[0]
    tools = tuple(draw(st.lists(st.one_of(function, hosted, st.just(patch)), max_size=3)))
    return Request(
        draw(WORDS),
        tuple(messages),
        Sampling(
            temperature=draw(st.one_of(st.none(), st.floats(0, 2))),
            top_p=draw(st.one_of(st.none(), st.floats(0, 1))),
            max_tokens=draw(st.one_of(st.none(), st.integers(1, 9999))),
            logprobs=draw(st.one_of(st.none(), st.integers(0, 20))),
        ),
        tools,
        draw(st.sampled_from([None, ToolChoice("auto"), ToolChoice("required"), ToolChoice("tool", "apply_patch")])),
        draw(st.sampled_from([None, True, False])),
        draw(
            st.sampled_from(
                [
                    None,
                    ResponseFormat("text"),
                    ResponseFormat("json_object"),
                    ResponseFormat("json_schema", "n", {"type": "object"}, True, "d"),
                ]
            )
        ),
        reasoning,
        stream=draw(st.booleans()),
        user=draw(st.one_of(st.none(), WORDS)),
        metadata=metadata,
        extra=Extra(WIRE, unknown),
    )


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
KINDS = [
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "item_reference",
    "input_text",
    "input_image",
    "input_file",
    "output_text",
    "refusal",
    "summary_text",
    "reasoning_text",
    "function",
    "custom",
    "web_search",
    "allowed_tools",
    "json_schema",
    "json_object",
    "text",
    "grammar",
]
MEMBERS = [
    "id",
    "role",
    "content",
    "call_id",
    "name",
    "arguments",
    "input",
    "output",
    "summary",
    "encrypted_content",
    "text",
    "refusal",
    "annotations",
    "logprobs",
    "image_url",
    "detail",
    "file_data",
    "file_url",
    "filename",
    "description",
    "parameters",
    "strict",
    "format",
    "schema",
    "mode",
    "tools",
    "effort",
    "status",
]
ODD_OBJECTS = st.builds(
    lambda kind, members: {**kind, **members},
    st.one_of(st.just({}), st.sampled_from(KINDS).map(lambda kind: {"type": kind})),
    st.dictionaries(
        st.sampled_from(MEMBERS), st.one_of(JSON, st.sampled_from(["user", "assistant", "auto"])), max_size=5
    ),
)


class TestRequests:
    @given(requests())
    def test_request_that_is_rendered_is_read_back_as_it_was(self, request: Request) -> None:
        assert parse_request(encode(render_request(request, request.model, stream=request.stream))) == request

    def test_what_a_client_sends_arrives_upstream_unchanged(self) -> None:
        body = {
            "model": "public-name",
            "instructions": "Be brief.",
            "input": [
                {"role": "developer", "content": "In Spanish."},
                {
                    "type": "message",
                    "role": "user",
                    "id": "msg_u",
                    "content": [
                        {"type": "input_text", "text": "What?", "prompt_cache_breakpoint": {"mode": "explicit"}},
                        {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"},
                        {"type": "input_image", "file_id": "file_1", "detail": "auto"},
                        {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"},
                    ],
                },
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}],
                    "encrypted_content": "gAAA",
                },
                {
                    "type": "message",
                    "role": "assistant",
                    "id": "msg_1",
                    "status": "completed",
                    "phase": "commentary",
                    "content": [{"type": "output_text", "text": "I look."}, {"type": "refusal", "refusal": "No."}],
                },
                {
                    "type": "message",
                    "role": "assistant",
                    "id": "msg_2",
                    "content": [{"type": "output_text", "text": "Now."}],
                },
                {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": '{"x": 1}'},
                {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c2", "name": "apply_patch", "input": "*** x"},
                {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
                {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
                {
                    "type": "custom_tool_call_output",
                    "call_id": "c2",
                    "output": [{"type": "input_text", "text": "done"}, {"type": "input_image", "image_url": "data:,"}],
                },
            ],
            "tools": [
                {"type": "function", "name": "look", "description": "Look.", "parameters": {"type": "object"}},
                PATCH,
                {"type": "web_search", "search_context_size": "low"},
            ],
            "tool_choice": {"type": "custom", "name": "apply_patch"},
            "parallel_tool_calls": False,
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}, "verbosity": "low"},
            "reasoning": {"effort": "high", "summary": "concise", "context": "all_turns"},
            "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
            "top_logprobs": 3,
            "max_output_tokens": 64,
            "temperature": 0.5,
            "top_p": 0.9,
            "metadata": {"a": "b"},
            "user": "u1",
            "store": False,
            "truncation": "auto",
            "prompt_cache_key": "k",
            "some_future_field": {"deep": [1, 2]},
        }
        assert render_request(parse_request(encode(body)), "real-name", stream=False) == {**body, "model": "real-name"}

    @pytest.mark.parametrize(
        "choice",
        [
            {"type": "web_search"},
            {"type": "mcp", "server_label": "x"},
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
        ],
    )
    def test_choices_only_this_wire_knows_go_through(self, choice: dict[str, Any]) -> None:
        assert sent(asked(tool_choice=choice))["tool_choice"] == choice

    def test_turn_of_the_assistant_is_one_message_to_other_wires(self) -> None:
        items = [
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "id": "rs", "summary": []},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
            {"type": "function_call_output", "call_id": "b", "output": "2"},
            {"role": "assistant", "content": "done"},
        ]
        messages = asked(input=items).messages
        assert [one.role for one in messages] == ["user", "assistant", "tool", "tool", "assistant"]
        assert [type(part) for part in messages[1].parts] == [ReasoningPart, ToolCallPart, ToolCallPart]

    def test_nothing_is_stored_upstream_for_clients_of_other_wires(self) -> None:
        request = Request("m", (Message("user", (TextPart("hi"),)),), reasoning=ReasoningOptions(effort="low"))
        body = sent(request)
        assert body["store"] is False and body["include"] == ["reasoning.encrypted_content"]
        assert "store" not in sent(asked()) and "include" not in sent(asked(reasoning={"effort": "low"}))
        assert "include" not in sent(msgspec.structs.replace(request, reasoning=None))

    def test_functions_of_other_wires_stay_lenient(self) -> None:
        request = Request("m", (Message("user", (TextPart("hi"),)),), tools=(Tool("f"),))
        nothing = {"type": "object", "properties": {}}
        assert sent(request)["tools"] == [{"type": "function", "name": "f", "parameters": nothing, "strict": False}]

    def test_history_of_another_wire_becomes_items(self) -> None:
        thought = ReasoningPart("hm", Signature("anthropic_messages", "sig"))
        said = (thought, TextPart("a"), TextPart("b"), ToolCallPart("c1", "f", "{}"))
        messages = (
            Message("system", (TextPart("Be brief."),)),
            Message("user", (TextPart("look"), ImagePart("data:image/png;base64,AA"))),
            Message("assistant", said),
            Message("tool", (TextPart("ok"),), call_id="c1", failed=True),
            Message("tool", (), call_id="c2", failed=True),
        )
        assert sent(Request("m", messages))["input"] == [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA"},
                ],
            },
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "ok"},
            {"type": "function_call_output", "call_id": "c2", "output": "The tool failed and said nothing."},
        ]

    def test_ids_of_ours_are_not_sent_upstream(self) -> None:
        made = made_id("message", "resp_1", 0)
        items = [
            {"role": "user", "content": "hi"},
            {"type": "message", "role": "assistant", "id": made, "content": "x"},
            {"type": "reasoning", "id": made_id("reasoning", "resp_1", 1), "summary": [], "encrypted_content": "own"},
        ]
        body = sent(asked(input=items))["input"]
        assert [one.get("id") for one in body] == [None, None, None]
        assert body[2]["encrypted_content"] == "own"

    @pytest.mark.parametrize(
        ("options", "effort"),
        [
            (ReasoningOptions(budget_tokens=1024), "low"),
            (ReasoningOptions(budget_tokens=8000), "medium"),
            (ReasoningOptions(budget_tokens=32000), "high"),
            (ReasoningOptions(effort="max", budget_tokens=1), "max"),
            (ReasoningOptions(budget_tokens=1024, enabled=False), None),
        ],
    )
    def test_thinking_budgets_become_efforts(self, options: ReasoningOptions, effort: str | None) -> None:
        body = sent(Request("m", (Message("user", (TextPart("hi"),)),), reasoning=options))
        assert body.get("reasoning", {}).get("effort") == effort

    def test_reasoning_that_is_to_be_seen_is_summarised(self) -> None:
        request = Request("m", (Message("user", (TextPart("hi"),)),), reasoning=ReasoningOptions(visible=True))
        assert sent(request)["reasoning"] == {"summary": "auto"}

    @pytest.mark.parametrize(
        "request_",
        [
            Request("m", (), Sampling(n=2)),
            Request("m", (), Sampling(stop=("END",))),
            Request("m", (), prompt=Prompt("a", "b")),
            Request("m", (), tools=(OpaqueTool("gemini", "google_search", {}),)),
            Request("m", (Message("user", (OpaquePart("openai_chat", {"type": "input_audio"}),)),)),
        ],
    )
    def test_what_cannot_be_left_out_is_refused(self, request_: Request) -> None:
        with pytest.raises(Unsupported):
            sent(request_)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "input"),
            ({"input": ""}, "input"),
            ({"input": []}, "input"),
            ({"input": 5}, "input"),
            ({"input": ["hi"]}, "input[0]"),
            ({"input": [{"role": "king", "content": "hi"}]}, "input[0].role"),
            ({"input": [{"role": "user"}]}, "input[0].content"),
            ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
            ({"input": [{"role": "user", "content": [{"text": "hi"}]}]}, "input[0].content[0].type"),
            ({"input": [{"role": "user", "content": ["hi"]}]}, "input[0].content[0].type"),
            ({"input": [{"content": "hi"}]}, "input[0].type"),
            ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
            ({"input": [{"id": "msg_1"}]}, "input[0]"),
            ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
            ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
            ({"input": [{"type": "reasoning", "summary": ["x"]}]}, "input[0].summary[0]"),
            ({"input": "hi", "temperature": 9}, "temperature"),
            ({"input": "hi", "max_output_tokens": 0}, "max_output_tokens"),
            ({"input": "hi", "tools": [{"name": "f"}]}, "tools[0].type"),
            ({"input": "hi", "tools": [{"type": "function"}]}, "tools[0].name"),
            ({"input": "hi", "tools": [{"type": "function", "name": "f", "strict": 3}]}, "tools[0].strict"),
            ({"input": "hi", "tool_choice": "perhaps"}, "tool_choice"),
            ({"input": "hi", "tool_choice": {"type": "function"}}, "tool_choice.name"),
            ({"input": "hi", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
            ({"input": "hi", "background": True, "store": False}, "background"),
            ({"input": "hi", "conversation": "conv_1"}, "conversation"),
            ({"input": "hi", "prompt": {"id": "pmpt_1"}}, "prompt"),
        ],
    )
    def test_mistakes_name_their_field(self, body: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            parse_request(encode(body))
        assert caught.value.field == field
        assert field in caught.value.message

    @given(JSON)
    def test_any_json_is_read_or_refused(self, value: Any) -> None:
        for field in ("input", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "instructions"):
            self.read_or_refused({"input": "hi", field: value})

    @given(st.lists(ODD_OBJECTS, min_size=1, max_size=3), st.lists(ODD_OBJECTS, max_size=2), ODD_OBJECTS)
    def test_known_objects_with_odd_members_are_read_or_refused(
        self, items: list[Any], tools: list[Any], other: dict[str, Any]
    ) -> None:
        self.read_or_refused({"input": items})
        self.read_or_refused({"input": [{"role": "user", "content": items}]})
        self.read_or_refused({"input": [{"role": "assistant", "content": items}]})
        self.read_or_refused({"input": [{"type": "function_call_output", "call_id": "c", "output": items}]})
        self.read_or_refused({"input": "hi", "tools": tools, "tool_choice": other})
        self.read_or_refused({"input": "hi", "text": {"format": other}, "reasoning": other})

    def read_or_refused(self, body: dict[str, Any]) -> None:
        try:
            request = parse_request(encode(body))
        except InvalidRequest:
            return
        assert render_request(request, "m", stream=False)["model"] == "m"
        assert echo(decode_object(encode(body)), "m")["model"] == "m"


class TestCustomTools:
    def test_custom_tool_is_a_function_with_one_text_to_other_wires(self) -> None:
        (tool,) = asked(tools=[PATCH]).tools
        assert isinstance(tool, Tool) and tool.parameters is not None
        assert (tool.name, tool.description) == ("apply_patch", "Edit files.")
        assert tool.parameters["required"] == ["input"]
        assert 'start: "x"' in tool.parameters["properties"]["input"]["description"]

    def test_custom_tool_of_the_chat_wire_is_one_here(self) -> None:
        form = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}}
        tool = Tool("f", "d", {"type": "object"}, extra=Extra("openai_chat", {"custom": {"name": "f", "format": form}}))
        request = Request("m", (Message("assistant", (ToolCallPart("c", "f", '{"input":"aa"}'),)),), tools=(tool,))
        body = sent(request)
        flat = {"type": "grammar", "syntax": "regex", "definition": "a+"}
        assert body["tools"] == [{"type": "custom", "name": "f", "description": "d", "format": flat}]
        assert body["input"] == [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "aa"}]

    @given(TEXTS)
    def test_free_text_survives_being_arguments(self, text: str) -> None:
        assert as_input(as_arguments(text)) == text

    @pytest.mark.parametrize("arguments", ["*** Begin Patch", '{"input": 5}', "[1]", '{"other": "x"}', "[" * 10_000])
    def test_arguments_that_are_no_such_json_are_the_text(self, arguments: str) -> None:
        assert as_input(arguments) == arguments

    def test_call_by_a_model_of_another_wire_is_shown_as_custom(self) -> None:
        head = Head("resp_1", 5, echo({"tools": [PATCH]}, "m"), custom_names(asked(tools=[PATCH]).tools))
        pieces = [ToolCall(0, "c1", "apply_patch", piece) for piece in ('{"inp', 'ut":"*** ', 'x"}')]
        deltas = [*pieces, ToolCall(0, "c1", "apply_patch", '{"input":"*** x"}', "ready"), Finish("tool_calls")]
        told = shown(*deltas, head=head)
        assert [one["type"].removeprefix("response.") for one in told][2:] == [
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
            "completed",
        ]
        assert told[3]["delta"] == told[4]["input"] == "*** x"
        (item,) = told[-1]["response"]["output"]
        assert {**item, "id": ""} == {
            "id": "",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "c1",
            "name": "apply_patch",
            "input": "*** x",
        }
        assert json.loads(render_response(whole(*deltas), head))["output"] == [item]

    def test_pieces_of_a_custom_call_are_json_to_other_wires_and_text_to_this_one(self) -> None:
        item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "f", "input": ""}
        done = {**item, "input": 'say "hi"\n', "status": "completed"}
        deltas = read(
            event("response.output_item.added", output_index=0, item=item),
            event("response.custom_tool_call_input.delta", output_index=0, delta='say "h'),
            event("response.custom_tool_call_input.delta", output_index=0, delta='i"\n'),
            event("response.output_item.done", output_index=0, item=done),
            completed(done),
        )
        pieces = [one for one in deltas if isinstance(one, ToolCall) and one.mark == "piece"]
        assert json.loads("".join([one.arguments for one in pieces])) == {"input": 'say "hi"\n'}
        told = shown(*deltas)
        assert [one["delta"] for one in told if "input.delta" in one["type"]] == ['say "h', 'i"\n']
        assert told[-1]["response"]["output"] == [done]


class TestSignatures:
    def test_signature_of_another_wire_comes_back_recognised(self) -> None:
        signature = Signature("anthropic_messages", "EqQB")
        (item,) = final(Reasoning("hm"), Reasoning("", signature), Finish("stop"))["output"]
        (turn,) = asked(input=[item]).messages
        (part,) = turn.parts
        assert isinstance(part, ReasoningPart)
        assert (part.text, part.signature) == ("hm", signature)
        assert sent(asked(input=[item, {"role": "user", "content": "go on"}]))["input"] == [
            {"role": "user", "content": "go on"}
        ]

    def test_reasoning_without_words_is_still_shown(self) -> None:
        signature = Signature("anthropic_messages", "redacted")
        (item,) = final(Reasoning("", signature), Finish("stop"))["output"]
        assert item["summary"] == [] and unseal(item["encrypted_content"], WIRE) == signature
        assert json.loads(render_response(whole(Reasoning("", signature), Finish("stop")), HEAD))["output"] == [item]

    def test_signature_of_a_call_travels_with_it(self) -> None:
        signature = Signature("gemini", "c2ln")
        call = ToolCall(0, "c1", "f", "{}", signature=signature)
        deltas = (call, msgspec.structs.replace(call, mark="ready"), Finish("tool_calls"))
        output = final(*deltas)["output"]
        assert [one["type"] for one in output] == ["reasoning", "function_call"]
        assert json.loads(render_response(whole(*deltas), HEAD))["output"] == output
        (turn,) = asked(input=output).messages
        (part,) = turn.parts
        assert isinstance(part, ToolCallPart) and part.signature == signature
        assert [one["type"] for one in sent(asked(input=output))["input"]] == ["function_call"]

    def test_signature_whose_call_is_not_sent_back_stays_where_it_is(self) -> None:
        call = ToolCall(0, "c1", "f", "{}", "ready", signature=Signature("gemini", "c2ln"))
        proof, _ = final(call, Finish("tool_calls"))["output"]
        (turn,) = asked(input=[proof]).messages
        assert isinstance(turn.parts[0], ReasoningPart)

    def test_encrypted_reasoning_of_this_wire_is_shown_bare(self) -> None:
        item = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
        deltas = read(completed(item))
        assert [one.signature for one in deltas if isinstance(one, Reasoning) and one.signature] == [
            Signature(WIRE, "gAAA", "rs_1")
        ]
        assert final(*deltas)["output"] == [item]


# A stream with one of everything that this codec reads, and its final output.

LOGPROB = {
    "token": "a",
    "bytes": [97],
    "logprob": -0.5,
    "top_logprobs": [{"token": "b", "bytes": [98], "logprob": -1.0}],
}
CITED = {"type": "url_citation", "url": "https://example.org", "title": "T", "start_index": 0, "end_index": 1}
OUTPUT: list[dict[str, Any]] = [
    {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Uno. ñ"}, {"type": "summary_text", "text": "Dos."}],
        "encrypted_content": "gAAA",
    },
    {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": None}},
    {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "phase": "final_answer",
        "content": [
            {"type": "output_text", "text": "añb", "annotations": [CITED], "logprobs": [LOGPROB]},
            {"type": "output_text", "text": "second", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "No more."},
        ],
    },
    {
        "id": "fc_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "c1",
        "name": "f",
        "arguments": '{"x":1}',
    },
    {"id": "ctc_1", "type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "free"},
    {"id": "rs_2", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "raw"}]},
]
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 15,
}


def everything() -> bytes:
    """The stream of `OUTPUT`, as a provider sends it."""
    out = [event("response.created", response=response(status="in_progress"))]
    out.append(event("response.in_progress", response=response(status="in_progress")))

    def item(index: int, **begun: Any) -> None:
        out.append(event("response.output_item.added", output_index=index, item={**OUTPUT[index], **begun}))

    def told(kind: str, index: int, **fields: Any) -> None:
        fields = {"item_id": OUTPUT[index]["id"], "output_index": index, **fields}
        out.append(event(f"response.{kind}", **fields))

    def done(index: int) -> None:
        out.append(event("response.output_item.done", output_index=index, item=OUTPUT[index]))

    item(0, summary=[], encrypted_content="early")
    for place, pieces in enumerate((["Uno. ", "ñ"], ["Dos."])):
        told("reasoning_summary_part.added", 0, summary_index=place, part={"type": "summary_text", "text": ""})
        for piece in pieces:
            told("reasoning_summary_text.delta", 0, summary_index=place, delta=piece)
        told("reasoning_summary_text.done", 0, summary_index=place, text="".join(pieces))
        part = {"type": "summary_text", "text": "".join(pieces)}
        told("reasoning_summary_part.done", 0, summary_index=place, part=part)
    done(0)
    item(1, status="in_progress")
    told("web_search_call.searching", 1)
    done(1)
    item(2, status="in_progress", content=[])
    parts = OUTPUT[2]["content"]
    for place, pieces in enumerate((["añ", "b"], ["second"])):
        part = {**parts[place], "text": "", "annotations": [], "logprobs": []}
        told("content_part.added", 2, content_index=place, part=part)
        for number, piece in enumerate(pieces):
            logprobs = [] if place or number else [{name: LOGPROB[name] for name in LOGPROB}]
            told("output_text.delta", 2, content_index=place, delta=piece, logprobs=logprobs, obfuscation="zz")
        if not place:
            told("output_text.annotation.added", 2, content_index=0, annotation_index=0, annotation=CITED)
        told("output_text.done", 2, content_index=place, text="".join(pieces), logprobs=parts[place]["logprobs"])
        told("content_part.done", 2, content_index=place, part=parts[place])
    told("content_part.added", 2, content_index=2, part={"type": "refusal", "refusal": ""})
    told("refusal.delta", 2, content_index=2, delta="No more.")
    told("refusal.done", 2, content_index=2, refusal="No more.")
    told("content_part.done", 2, content_index=2, part=parts[2])
    done(2)
    item(3, status="in_progress", arguments="")
    for piece in ('{"x"', ":1}"):
        told("function_call_arguments.delta", 3, delta=piece)
    told("function_call_arguments.done", 3, name="f", arguments='{"x":1}')
    done(3)
    item(4, input="", status="in_progress")
    told("custom_tool_call_input.delta", 4, delta="free")
    told("custom_tool_call_input.done", 4, input="free")
    done(4)
    item(5, content=[])
    told("content_part.added", 5, content_index=0, part={"type": "reasoning_text", "text": ""})
    told("reasoning_text.delta", 5, content_index=0, delta="raw")
    told("reasoning_text.done", 5, content_index=0, text="raw")
    told("content_part.done", 5, content_index=0, part={"type": "reasoning_text", "text": "raw"})
    done(5)
    out.append(completed(*OUTPUT, usage=USAGE, service_tier="flex"))
    return b"".join(out)


EVERYTHING = everything()


class TestAnswers:
    def test_stream_shown_on_this_wire_is_the_one_that_came(self) -> None:
        told = shown(*read(EVERYTHING))
        came = events(EVERYTHING)
        assert [one["type"] for one in told] == [one["type"] for one in came]
        ignored = {"sequence_number", "obfuscation", "response"}
        for ours, theirs in zip(told[2:-1], came[2:-1], strict=True):
            known = {name: value for name, value in theirs.items() if name not in ignored}
            if theirs["type"] == "response.output_item.added":
                # The proof comes with the end, and what is always so is said from the beginning.
                known["item"].pop("encrypted_content", None)
                known["item"].pop("content", None)
                ours["item"].pop("content", None)
                if known["item"]["type"] == "custom_tool_call":
                    known["item"].pop("status")
                    ours["item"].pop("status")
            assert {name: value for name, value in ours.items() if name not in ignored} == known
        last = told[-1]["response"]
        assert last["output"] == OUTPUT
        assert (last["usage"], last["service_tier"], last["status"]) == (USAGE, "flex", "completed")

    def test_plain_answer_shown_on_this_wire_is_the_one_that_came(self) -> None:
        body = response(*OUTPUT, usage=USAGE, service_tier="flex", temperature=0.3, model="theirs", store=False)
        told = json.loads(render_response(plain(body), HEAD))
        assert told["output"] == OUTPUT and told["usage"] == USAGE
        assert (told["service_tier"], told["temperature"]) == ("flex", 0.3)
        assert (told["id"], told["model"], told["store"]) == ("resp_1", "m", True)

    def test_stream_and_plain_answer_are_the_same_completion(self) -> None:
        streamed = whole(*read(EVERYTHING))
        whole_ = plain(response(*OUTPUT, usage=USAGE, service_tier="flex"))
        assert streamed.choices[0].parts[1:3] != ()
        known = [part for part in streamed.choices[0].parts if not isinstance(part, OpaquePart)]
        others = [part for part in whole_.choices[0].parts if not isinstance(part, OpaquePart)]
        assert [type(part) for part in known] == [type(part) for part in others]
        assert streamed.choices[0].text == whole_.choices[0].text == "añbsecond"
        assert streamed.choices[0].reasoning == "Uno. ñDos.raw"
        assert streamed.choices[0].tool_calls == whole_.choices[0].tool_calls
        assert streamed.choices[0].logprobs == (TokenLogprob("a", -0.5, (97,), (TokenLogprob("b", -1.0, (98,)),)),)
        assert streamed.usage == whole_.usage
        assert (streamed.usage.input_tokens, streamed.usage.cached_tokens) == (10, 4)

    @given(st.lists(st.integers(0, len(EVERYTHING)), max_size=12))
    def test_any_split_of_the_bytes_decodes_alike(self, cuts: list[int]) -> None:
        places = [0, *sorted(cuts), len(EVERYTHING)]
        pieces = [EVERYTHING[start:end] for start, end in itertools.pairwise(places)]
        assert read(*pieces) == read(EVERYTHING)

    def test_bytes_one_by_one_decode_alike(self) -> None:
        assert read(*[EVERYTHING[place : place + 1] for place in range(len(EVERYTHING))]) == read(EVERYTHING)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_an_answer_or_a_failure(self, data: bytes) -> None:
        for work in (
            lambda: read(data),
            lambda: read(b"data: " + data),
            lambda: ResponsesDecoder("up").completion(data),
        ):
            with pytest.raises(ProviderFailure):
                work()

    @given(st.integers(0, len(EVERYTHING) - 1), st.binary(min_size=1, max_size=6))
    def test_stream_with_bytes_changed_is_an_answer_or_a_failure(self, place: int, data: bytes) -> None:
        spoilt = EVERYTHING[:place] + data + EVERYTHING[place + len(data) :]
        try:
            shown(*read(spoilt))
        except ProviderFailure as failure:
            assert failure.provider == "up"

    @given(st.data())
    def test_stream_with_values_changed_is_an_answer_or_a_failure(self, data: st.DataObject) -> None:
        odd = st.sampled_from([None, True, -1, 7, 1.5, "x", "", [], [1], {}, {"type": "x"}, {"id": []}])
        spoilt = b""
        for one in events(EVERYTHING):
            if data.draw(st.integers(0, 6)) == 0:
                target, name = one, data.draw(st.sampled_from(sorted(one)))
                inner = one.get("item") or one.get("response")
                if isinstance(inner, dict) and data.draw(st.booleans()):
                    target, name = inner, data.draw(st.sampled_from(sorted(inner)))
                target[name] = data.draw(odd)
            kind = one.get("type")
            spoilt += event(kind if isinstance(kind, str) else "odd", **{k: v for k, v in one.items() if k != "type"})
        try:
            deltas = read(spoilt)
        except ProviderFailure as failure:
            assert failure.provider == "up"
        else:
            shown(*deltas)
            render_response(whole(*deltas), HEAD)

    def test_stream_without_its_terminal_event_was_cut(self) -> None:
        cut = EVERYTHING[: EVERYTHING.index(b"event: response.completed")]
        with pytest.raises(ProviderFailure, match="cut off") as caught:
            read(cut)
        assert caught.value.failure == "transient"

    def test_nothing_is_read_after_the_end(self) -> None:
        decoder = ResponsesDecoder("up")
        deltas = decoder.feed(completed(message("first")) + completed(message("second")) + b"data: nonsense\n\n")
        assert decoder.done
        assert [one.text for one in deltas + decoder.finish() if isinstance(one, Text)] == ["first"]

    def test_text_only_the_finished_item_has_is_told_once(self) -> None:
        added = event("response.output_item.added", output_index=0, item={**message(), "content": []})
        piece = event("response.output_text.delta", output_index=0, content_index=0, delta="Hello")
        deltas = read(added, piece, completed(message("Hello you")))
        assert [one.text for one in deltas if isinstance(one, Text)] == ["Hello", " you"]

    def test_call_that_never_ended_is_ready_at_the_end(self) -> None:
        call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": ""}
        deltas = read(
            event("response.output_item.added", output_index=0, item=call),
            event("response.function_call_arguments.delta", output_index=0, delta='{"a'),
            event("response.incomplete", response=response(status="incomplete")),
        )
        (ready,) = [one for one in deltas if isinstance(one, ToolCall) and one.mark == "ready"]
        assert ready.arguments == '{"a'
        assert isinstance(deltas[-1], Finish) and deltas[-1].reason == "length"

    def test_unknown_events_about_items_are_passed_on_and_others_are_not(self) -> None:
        item = {"type": "shell_call", "id": "sh_1", "status": "in_progress"}
        deltas = read(
            event("keepalive"),
            event("response.output_item.added", output_index=4, item=item),
            event("response.shell_call_command.delta", output_index=4, delta="ls"),
            event("response.rate_limits.updated", limits=[]),
            event("response.output_item.done", output_index=4, item={**item, "status": "completed"}),
            completed(usage=USAGE),
        )
        told = [(one["type"], one.get("output_index")) for one in shown(*deltas)][2:-1]
        assert told == [
            ("response.output_item.added", 0),
            ("response.shell_call_command.delta", 0),
            ("response.output_item.done", 0),
        ]

    def test_items_that_are_announced_without_saying_which_are_skipped(self) -> None:
        odd = event("response.output_item.added", output_index=0, item=None)
        assert [one.text for one in read(odd, completed(message("x"))) if isinstance(one, Text)] == ["x"]

    @pytest.mark.parametrize(
        ("status", "details", "reason"),
        [
            ("completed", None, "stop"),
            ("complete", None, "stop"),
            ("queued", None, "stop"),
            ("incomplete", {"reason": "max_output_tokens"}, "length"),
            ("incomplete", {"reason": "content_filter"}, "content_filter"),
            ("incomplete", {"reason": "max_messages"}, "length"),
            ("incomplete", {"reason": "steered"}, "stop"),
            ("incomplete", None, "length"),
        ],
    )
    def test_statuses_become_finish_reasons_and_are_shown_again(self, status: str, details: Any, reason: str) -> None:
        completion = plain(response(status=status, incomplete_details=details))
        assert completion.choices[0].finish_reason == reason
        told = json.loads(render_response(completion, HEAD))
        assert (told["status"], told["incomplete_details"]) == (status, details)

    def test_queued_answer_without_output_is_no_error(self) -> None:
        completion = plain({"id": "r", "object": "response", "status": "queued", "output": None})
        assert completion.choices[0].parts == () and completion.usage.estimated

    def test_refusal_counts_as_filtered_and_is_shown_as_completed(self) -> None:
        refused = message()
        refused["content"] = [{"type": "refusal", "refusal": "No."}]
        completion = plain(response(refused))
        assert completion.choices[0].finish_reason == "content_filter"
        assert json.loads(render_response(completion, HEAD))["output"] == [refused]

    def test_usage_nobody_reports_is_estimated(self) -> None:
        decoder = ResponsesDecoder("up", lambda _: 7, asked())
        deltas = decoder.feed(completed(message("12345678"))) + decoder.finish()
        assert deltas[-1].usage == Usage(7, 2, estimated=True)  # type: ignore[union-attr]

    def test_cost_that_is_reported_is_kept(self) -> None:
        ticks = plain(response(usage={**USAGE, "cost_in_usd_ticks": 11_446_500})).usage
        assert (ticks.cost, ticks.cost_source) == (pytest.approx(0.00114465), "reported")
        assert plain(response(usage={**USAGE, "cost": 0.25})).usage.cost == 0.25

    def test_last_word_on_an_item_is_shown_in_the_final_response(self) -> None:
        item = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "one"}
        again = {**item, "encrypted_content": "two"}
        deltas = read(event("response.output_item.done", output_index=0, item=item), completed(again))
        told = shown(*deltas)
        assert told[-2]["item"] == item and told[-1]["response"]["output"] == [again]


class TestErrorsInside:
    @pytest.mark.parametrize(
        ("code", "failure"),
        [
            ("insufficient_quota", "quota"),
            ("rate_limit_exceeded", "rate_limited"),
            ("server_error", "transient"),
            ("server_is_overloaded", "overloaded"),
            ("invalid_image", "bad_request"),
            ("image_too_large", "bad_request"),
            ("bio_policy", "content_filter"),
            ("context_length_exceeded", "bad_request"),
            ("never_heard_of", "transient"),
        ],
    )
    def test_failed_response_is_classified_by_its_code(self, code: str, failure: str) -> None:
        failed = response(status="failed", error={"code": code, "message": "said why"})
        for work in (
            lambda: read(event("response.failed", response=failed)),
            lambda: ResponsesDecoder("up").completion(encode(failed)),
            lambda: read(event("error", code=code, message="said why", param=None)),
            lambda: read(event("error", error={"type": "x", "code": code, "message": "said why"})),
        ):
            with pytest.raises(ProviderFailure, match="said why") as caught:
                work()
            assert caught.value.failure == failure

    def test_failure_that_says_nothing_is_one_all_the_same(self) -> None:
        with pytest.raises(ProviderFailure):
            read(event("response.failed", response=response(status="failed", error=None)))

    def test_body_of_another_wire_is_no_answer(self) -> None:
        with pytest.raises(ProviderFailure, match="no response"):
            ResponsesDecoder("up").completion(b'{"object":"chat.completion","choices":[]}')
        with pytest.raises(ProviderFailure, match="broke"):
            ResponsesDecoder("up").completion(b'{"error":{"message":"it broke"}}')

    def test_answer_that_was_cancelled_there_failed(self) -> None:
        with pytest.raises(ProviderFailure, match="cancelled"):
            plain(response(status="cancelled"))


class TestStreams:
    def test_order_of_events(self) -> None:
        told = shown(Status("accepted"), Reasoning("hm"), Text("a"), Text("b"), Finish("stop", Usage(1, 2)))
        assert [one["type"].removeprefix("response.") for one in told] == [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        last = told[-1]["response"]
        assert [one["type"] for one in last["output"]] == ["reasoning", "message"]
        assert last["output"][1]["content"][0]["text"] == "ab"
        assert last["usage"]["total_tokens"] == 3
        assert told[0]["response"]["status"] == "in_progress" and told[0]["response"]["output"] == []

    def test_response_has_every_field_and_repeats_the_request(self) -> None:
        raw = {
            "instructions": "Be brief.",
            "tools": [{"type": "function", "name": "f"}, PATCH],
            "temperature": 0.2,
            "text": {"verbosity": "low"},
            "reasoning": {"effort": "low"},
            "metadata": {"a": "b"},
            "previous_response_id": "resp_0",
        }
        told = final(Text("x"), Finish("stop"), head=Head("resp_1", 5, echo(raw, "m")))
        assert told["tools"][0] == {
            "type": "function",
            "name": "f",
            "description": None,
            "parameters": None,
            "strict": False,
        }
        assert told["tools"][1] == PATCH
        assert told["text"] == {"format": {"type": "text"}, "verbosity": "low"}
        assert told["reasoning"] == {"effort": "low", "summary": None}
        assert (told["temperature"], told["top_p"], told["instructions"]) == (0.2, 1.0, "Be brief.")
        assert {"error", "incomplete_details", "truncation", "store", "user", "usage", "created_at"} <= told.keys()

    @pytest.mark.parametrize(
        ("finish", "kind", "status", "details"),
        [
            (Finish("stop"), "completed", "completed", None),
            (Finish("tool_calls"), "completed", "completed", None),
            (Finish("length"), "incomplete", "incomplete", {"reason": "max_output_tokens"}),
            (Finish("content_filter"), "incomplete", "incomplete", {"reason": "content_filter"}),
            (Finish("cancelled", outcome="cancelled"), "incomplete", "cancelled", None),
        ],
    )
    def test_ends(self, finish: Finish, kind: str, status: str, details: Any) -> None:
        told = shown(Text("x"), finish)[-1]
        assert told["type"] == f"response.{kind}"
        assert (told["response"]["status"], told["response"]["incomplete_details"]) == (status, details)
        ended = "completed" if status == "completed" else "incomplete"
        assert told["response"]["output"][0]["status"] == ended

    def test_refusal_of_another_wire_is_completed(self) -> None:
        told = final(Refusal("No."), Finish("content_filter"))
        assert told["status"] == "completed"
        assert told["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]

    def test_answer_that_breaks_is_told_as_failed_and_never_as_complete(self) -> None:
        error = Failed("quota_exceeded", "no money", None)
        call = ToolCall(0, "c", "f", '{"x"')
        told = shown(Text("half"), call, Finish("error", outcome="incomplete", error=error))
        assert [one["type"] for one in told][-2:] == ["error", "response.failed"]
        assert told[-2]["code"] == told[-2]["error"]["code"] == "insufficient_quota"
        last = told[-1]["response"]
        assert last["status"] == "failed" and last["error"] == {"code": "insufficient_quota", "message": "no money"}
        assert [one["status"] for one in last["output"]] == ["completed", "incomplete"]
        assert last["usage"] is None
        assert not [one for one in told if one["type"] == "response.completed"]

    def test_parallel_calls_have_items_of_their_own(self) -> None:
        told = shown(
            Text("look:"),
            ToolCall(0, "a", "f", ""),
            ToolCall(1, "b", "g", '{"y"'),
            ToolCall(0, "a", "f", "{}"),
            ToolCall(1, "b", "g", ":2}"),
            ToolCall(0, "a", "f", "{}", "ready"),
            ToolCall(1, "b", "g", '{"y":2}', "ready"),
            Finish("tool_calls"),
        )
        output = told[-1]["response"]["output"]
        assert [one.get("call_id") for one in output] == [None, "a", "b"]
        assert [one.get("arguments") for one in output] == [None, "{}", '{"y":2}']
        for index in (1, 2):
            pieces = [
                one["delta"] for one in told if one["type"].endswith("arguments.delta") and one["output_index"] == index
            ]
            assert "".join(pieces) == output[index]["arguments"]
        assert len({one["id"] for one in output}) == 3

    def test_call_whose_name_comes_late_is_announced_with_it(self) -> None:
        told = shown(
            ToolCall(0, "a", "", '{"x"'),
            ToolCall(0, "a", "f", ":1}"),
            ToolCall(0, "a", "f", '{"x":1}', "ready"),
            Finish("tool_calls"),
        )
        (added,) = [one for one in told if one["type"] == "response.output_item.added"]
        assert added["item"]["name"] == "f" and added["item"]["arguments"] == ""
        assert "".join([one["delta"] for one in told if one["type"].endswith("arguments.delta")]) == '{"x":1}'

    def test_call_that_is_abandoned_ends_incomplete(self) -> None:
        told = shown(ToolCall(0, "a", "f", "{"), ToolCall(0, "a", "f", "{", "abandoned"), Finish("stop"))
        assert told[-1]["response"]["output"][0]["status"] == "incomplete"

    def test_blocks_of_another_wire_stay_apart(self) -> None:
        told = final(Text("a"), Text("b", begins=True), Reasoning("x"), Reasoning("y", begins=True), Finish("stop"))
        assert [one["type"] for one in told["output"]] == ["message", "reasoning", "reasoning"]
        assert [part["text"] for part in told["output"][0]["content"]] == ["a", "b"]

    def test_source_of_another_wire_is_an_annotation_if_it_has_an_address(self) -> None:
        cited = (Citation(url="https://example.org", start=1, end=3), Citation(quote="no address"))
        told = shown(Text("abc"), *cited, Finish("stop"))
        (added,) = [one for one in told if one["type"] == "response.output_text.annotation.added"]
        assert added["annotation"]["url"] == "https://example.org"
        assert told[-1]["response"]["output"][0]["content"][0]["annotations"] == [added["annotation"]]

    def test_text_has_no_line_ends_that_only_some_clients_know(self) -> None:
        frames = ResponsesProjector(HEAD).feed([Text("a\u2028b\x85c"), Finish("stop")])
        assert "\u2028" not in frames.decode() and "\x85" not in frames.decode()
        assert final(Text("a\u2028b\x85c"), Finish("stop"))["output"][0]["content"][0]["text"] == "a\u2028b\x85c"

    DELTAS = st.lists(
        st.one_of(
            st.builds(Text, TEXTS, begins=st.booleans()),
            st.builds(Text, TEXTS, extra=st.just(Extra("openai_chat", {"chunk": {"x": 1}}))),
            st.builds(Refusal, TEXTS),
            st.builds(Reasoning, TEXTS, st.sampled_from([None, Signature("gemini", "s")]), begins=st.booleans()),
            st.builds(Opaque, st.sampled_from(["gemini", WIRE]), st.just({"item": {"type": "x", "id": "x_1"}})),
            st.builds(ToolCall, st.integers(0, 2), st.just("c"), st.sampled_from(["", "f"]), TEXTS),
            st.builds(
                ToolCall,
                st.integers(0, 2),
                st.just("c"),
                st.just("f"),
                TEXTS,
                st.just("ready"),
                signature=st.sampled_from([None, Signature("gemini", "s")]),
            ),
            st.builds(Citation, url=URLS),
        ),
        max_size=12,
    )

    @given(DELTAS)
    def test_any_deltas_make_a_stream_that_fits_together(self, deltas: list[Delta]) -> None:
        told = shown(*deltas, Finish("stop"))
        opened: dict[int, dict[str, Any]] = {}
        done: dict[int, dict[str, Any]] = {}
        for one in told:
            match one["type"]:
                case "response.output_item.added":
                    assert one["output_index"] == len(opened)
                    opened[one["output_index"]] = one["item"]
                case "response.output_item.done":
                    assert one["output_index"] in opened and one["output_index"] not in done
                    assert one["item"]["id"] == opened[one["output_index"]]["id"]
                    done[one["output_index"]] = one["item"]
                case kind if "item_id" in one:
                    assert opened[one["output_index"]]["id"] == one["item_id"], kind
                    assert one["output_index"] not in done
                case _:
                    pass
        assert told[-1]["response"]["output"] == [done[index] for index in range(len(opened))]

    @given(
        st.lists(
            st.one_of(
                st.builds(Text, SOME, begins=st.booleans()), st.builds(Reasoning, SOME), st.builds(Refusal, SOME)
            ),
            max_size=8,
        ),
        st.sampled_from(["stop", "length", "content_filter"]),
    )
    def test_streamed_and_plain_answer_are_the_same(self, deltas: list[Delta], reason: Any) -> None:
        every = [*deltas, Finish(reason, Usage(1, 1))]
        assert final(*every) == json.loads(render_response(whole(*every), HEAD))


class TestKeptResponses:
    def test_tape_plays_the_same_events_again(self) -> None:
        recorder = Recorder(HEAD, lambda: 0.0, keep=True)
        frames = b"".join([recorder.feed([delta]) for delta in [Status("accepted"), *read(EVERYTHING)]])
        assert recorder.response is not None
        body = encode(recorder.response)
        assert replay(body, recorder.tape(), None, -1) == frames
        assert events(replay(body, recorder.tape(), None, 6))[0]["sequence_number"] == 7
        last = events(frames)[-1]["sequence_number"]
        assert replay(body, recorder.tape(), None, last) == b""
        with pytest.raises(Conflict):
            replay(body, recorder.tape(), None, last + 1)

    def test_answer_that_came_whole_is_played_too(self) -> None:
        body = render_response(plain(response(*OUTPUT, usage=USAGE)), HEAD)
        told = events(replay(body, b"", None, -1))
        assert told[-1]["response"]["output"] == OUTPUT
        assert [one["sequence_number"] for one in told] == list(range(len(told)))

    def test_items_are_listed_with_ids_and_in_full(self) -> None:
        items = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}, OUTPUT[3]]
        user, assistant, call = listed(items, "resp_1")
        assert user["content"] == [{"type": "input_text", "text": "hi"}] and user["status"] == "completed"
        assert assistant["content"][0]["type"] == "output_text"
        assert call == OUTPUT[3]
        assert user["id"] != assistant["id"]

    def test_pages(self) -> None:
        items = listed([{"role": "user", "content": str(number)} for number in range(5)], "resp_1")
        first = page(items, after=None, limit="2", order=None)
        assert [one["id"] for one in first["data"]] == [items[4]["id"], items[3]["id"]] and first["has_more"]
        rest = page(items, after=first["last_id"], limit="3", order=None)
        assert [one["id"] for one in rest["data"]] == [items[2]["id"], items[1]["id"], items[0]["id"]]
        assert not rest["has_more"]
        assert page(items, after=None, limit=None, order="asc")["data"] == items
        for wrong in ({"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"order": "up"}, {"after": "nope"}):
            with pytest.raises(InvalidRequest):
                page(items, **{"after": None, "limit": None, "order": None, **wrong})
