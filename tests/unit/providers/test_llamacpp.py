"""The `llamacpp` provider with a worker that runs no model, and the parts of it that need none."""

import asyncio
import importlib.util
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.delta import Attempt, Delta, Finish, Status, Text, ToolCall
from cauce.domain.errors import CauceError, DeadlineExceeded, ProviderFailure, Unsupported
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
from cauce.domain.request import Prompt, ReasoningOptions, Request, ResponseFormat, Sampling, Scope
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.domain.usage import Usage
from cauce.ports.provider import Call, Candidate, Timeouts
from cauce.providers.llamacpp.grammar import SchemaError, grammar_of
from cauce.providers.llamacpp.prompt import prompt_of
from cauce.providers.llamacpp.provider import LlamaCpp
from cauce.providers.llamacpp.settings import LlamaCppSettings
from cauce.providers.llamacpp.text import Writer
from cauce.providers.llamacpp.turns import Turns
from tests.http import within

pytestmark = pytest.mark.anyio

WORKER = (sys.executable, "-S", str(Path(__file__).with_name("llama_worker.py")))
MODELS = {"tiny": "tiny", "other": "other", "slow": "slow", "absent": "absent"}


def provider(grace: float = 2.0, command: Sequence[str] = WORKER) -> LlamaCpp:
    return LlamaCpp("local", LlamaCppSettings(MODELS), command, grace)


@pytest.fixture
async def local() -> AsyncIterator[LlamaCpp]:
    made = provider()
    yield made
    await made.aclose()


@pytest.fixture
async def impatient() -> AsyncIterator[LlamaCpp]:
    made = provider(grace=0.05)
    yield made
    await made.aclose()


def asked(text: str, **request: Any) -> Request:
    return Request("local/tiny", (Message("user", (TextPart(text),)),), **request)


def calling(made: LlamaCpp, request: Request, model: str = "tiny", **options: Any) -> Call:
    timeouts = options.pop("timeouts", Timeouts())
    scope = Scope(key=options.pop("key", "anonymous"))
    return Call(request=request, scope=scope, candidates=(Candidate(made, model, timeouts=timeouts),), **options)


async def answered(made: LlamaCpp, text: str, model: str = "tiny", **options: Any) -> list[Delta]:
    deltas = await within(made.open(calling(made, asked(text), model, **options)))
    return [delta async for delta in deltas]


async def still_works(made: LlamaCpp) -> None:
    assert await answered(made, "say yes") == [Text("yes"), Finish("stop", Usage(7, 1, cost_source="priced"))]


async def failing(made: LlamaCpp, text: str, model: str = "tiny", **options: Any) -> CauceError:
    with pytest.raises(CauceError) as caught:
        await answered(made, text, model, **options)
    return caught.value


async def test_answer_is_read_with_its_usage(local: LlamaCpp) -> None:
    deltas = await answered(local, "say Hello, world ñ 🙀")
    assert "".join([delta.text for delta in deltas if isinstance(delta, Text)]) == "Hello,worldñ🙀"
    assert deltas[-1] == Finish("stop", Usage(7, 4, cost=0.0, cost_source="priced"))


async def test_closing_an_answer_stops_it_and_keeps_the_process(local: LlamaCpp) -> None:
    deltas = await within(local.open(calling(local, asked("endless"))))
    process = local.pid
    await within(deltas.aclose(), 1)
    await still_works(local)
    assert local.pid == process


async def test_worker_that_does_not_stop_is_killed_and_the_next_call_has_a_new_one(impatient: LlamaCpp) -> None:
    deltas = await within(impatient.open(calling(impatient, asked("stubborn"))))
    process = impatient.pid
    await within(deltas.aclose(), 1)
    await still_works(impatient)
    assert impatient.pid != process and process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def test_worker_that_is_loading_a_model_is_not_killed(impatient: LlamaCpp) -> None:
    await still_works(impatient)
    process = impatient.pid
    noticed = asyncio.Event()
    opening = asyncio.create_task(
        impatient.open(calling(impatient, asked("say x"), "slow", notice=lambda _: noticed.set()))
    )
    await within(noticed.wait())
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    # It goes on loading for longer than its grace.
    await answered(impatient, "say x", "slow")
    assert impatient.pid == process


@pytest.mark.parametrize("text", ["exit 0", "exit 3", "signal"])
async def test_worker_that_dies_fails_its_call_and_the_next_one_works(local: LlamaCpp, text: str) -> None:
    error = await failing(local, text)
    told = "signal 11" if text == "signal" else text.replace("exit", "exit status")
    assert isinstance(error, ProviderFailure) and error.failure == "transient" and error.provider == "local"
    assert str(error) == f"local: the worker that runs its models ended unexpectedly ({told})"
    await still_works(local)


@pytest.mark.parametrize(
    "text",
    [
        "raw not json",
        "raw {}",
        'raw {"type":"other","number":1}',
        'raw {"type":"piece","number":"x"}',
        "raw []",
        "flood",
    ],
)
async def test_garbage_from_the_worker_is_a_failure_and_ends_it(local: LlamaCpp, text: str) -> None:
    opening = asyncio.create_task(failing(local, text))
    error = await within(opening)
    assert isinstance(error, ProviderFailure) and error.failure == "transient"
    assert "its worker said what cannot be read" in str(error)
    await still_works(local)


async def test_worker_that_says_nothing_any_more_but_lives_is_killed(local: LlamaCpp) -> None:
    error = await failing(local, "mute")
    assert "ended unexpectedly (signal 9)" in str(error)
    await still_works(local)


async def test_missing_library_is_told_with_what_to_install(local: LlamaCpp) -> None:
    error = await failing(local, "say x", "absent")
    assert isinstance(error, ProviderFailure) and error.should_retry is False
    assert str(error) == "local: no such library; install it"
    await still_works(local)


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is not None, reason="llama-cpp-python is installed")
async def test_worker_of_our_own_says_that_the_library_is_missing() -> None:
    made = LlamaCpp("local", LlamaCppSettings({"tiny": "tiny.gguf"}))
    error = await failing(made, "hello")
    assert str(error) == "local: llama-cpp-python is not installed; install it with: pip install 'cauce[local]'"
    await made.aclose()


async def test_worker_that_cannot_be_started_is_a_failure(tmp_path: Path) -> None:
    made = provider(command=(str(tmp_path / "nothing"),))
    for _ in range(2):
        assert "cannot be started" in str(await failing(made, "say x"))
    await made.aclose()


@pytest.mark.parametrize(
    ("kind", "code", "failure"),
    [
        ("unsupported", "invalid_request", "bad_request"),
        ("context", "context_length_exceeded", "bad_request"),
        ("load", "provider_error", "transient"),
        ("broken", "provider_error", "transient"),
    ],
)
async def test_each_failure_of_the_worker_has_its_class(local: LlamaCpp, kind: str, code: str, failure: str) -> None:
    error = await failing(local, f"fail {kind}")
    assert (error.code, error.failure, str(error)) == (code, failure, "local: so it is")
    assert isinstance(error, Unsupported) == (kind == "unsupported")
    await still_works(local)


async def test_worker_whose_model_broke_is_not_used_again(local: LlamaCpp) -> None:
    await still_works(local)
    process = local.pid
    await failing(local, "fail broken")
    await still_works(local)
    assert local.pid != process


async def test_calls_wait_for_each_other_and_are_told_their_place(local: LlamaCpp) -> None:
    noticed: list[Status | Attempt] = []
    first = await within(local.open(calling(local, asked("endless"), notice=noticed.append)))
    assert noticed == [Status("loading", facts={"model": "local/tiny"})]
    noticed.clear()
    waiting = [asyncio.create_task(answered(local, "say x", notice=noticed.append)) for _ in range(3)]
    for _ in range(5):
        await first.read()
    assert not any([task.done() for task in waiting])
    assert noticed == [Status("waiting", facts={"place": place}) for place in (1, 2, 3)]
    await first.aclose()
    for answer in await within(asyncio.gather(*waiting)):
        assert answer[0] == Text("x")


async def test_call_given_up_while_it_waits_leaves_the_line(local: LlamaCpp) -> None:
    first = await within(local.open(calling(local, asked("endless"))))
    waiting = [asyncio.create_task(answered(local, "say x")) for _ in range(3)]
    await first.read()
    waiting[1].cancel()
    await first.aclose()
    results = await within(asyncio.gather(*waiting, return_exceptions=True))
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [False, True, False]
    await still_works(local)


async def test_silence_ends_an_answer_that_has_begun(local: LlamaCpp) -> None:
    error = await failing(local, "quiet", timeouts=Timeouts(idle=0.05))
    assert isinstance(error, ProviderFailure) and error.code == "timeout"
    assert str(error) == "local was silent for 0.05 s"
    await still_works(local)


async def test_total_time_ends_an_answer_whether_it_runs_or_waits(local: LlamaCpp) -> None:
    brief = Timeouts(idle=30, total=0.1)
    assert isinstance(await failing(local, "endless", timeouts=brief), DeadlineExceeded)
    assert isinstance(await failing(local, "quiet", timeouts=brief, streamed=False), DeadlineExceeded)
    first = await within(local.open(calling(local, asked("endless"))))
    assert isinstance(await failing(local, "say x", timeouts=brief), DeadlineExceeded)
    await first.aclose()
    await still_works(local)


async def test_plain_answer_may_be_silent(local: LlamaCpp) -> None:
    error = await failing(local, "quiet", timeouts=Timeouts(idle=0.01, total=0.2), streamed=False)
    assert isinstance(error, DeadlineExceeded)


async def test_tokens_are_counted_beside_an_answer(local: LlamaCpp) -> None:
    assert await within(local.count_tokens(asked("say x"), "tiny")) == 42
    deltas = await within(local.open(calling(local, asked("endless"))))
    assert await within(local.count_tokens(asked("say x"), "tiny")) == 42
    # Another model takes its turn.
    counting = asyncio.create_task(local.count_tokens(asked("say x"), "other"))
    for _ in range(5):
        await deltas.read()
    assert not counting.done()
    await deltas.aclose()
    assert await within(counting) == 42
    assert await local.count_tokens(Request("m", (Message("user", (ImagePart("http://x"),)),)), "tiny") is None


async def test_models_are_those_of_the_settings(local: LlamaCpp) -> None:
    assert [(model.id, model.context_window, model.loaded) for model in await local.models()] == [
        (name, 4096, False) for name in MODELS
    ]
    await still_works(local)
    assert [model.id for model in await local.models() if model.loaded] == ["tiny"]
    error = await failing(local, "say x", "unknown")
    assert error.code == "model_not_found" and "it has tiny, other, slow, absent" in str(error)
    with pytest.raises(ProviderFailure):
        await local.count_tokens(asked("x"), "unknown")


async def test_home_folder_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    made = LlamaCpp("local", LlamaCppSettings({"a": "~/a.gguf"}))
    assert made._file("a").path == "/home/ana/a.gguf"


async def test_closing_the_provider_ends_the_process_and_whoever_waits(local: LlamaCpp) -> None:
    deltas = await within(local.open(calling(local, asked("endless"))))
    process = local.pid
    waiting = asyncio.create_task(failing(local, "say x"))
    await deltas.read()
    await within(local.aclose())
    assert process is not None and local.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with pytest.raises(ProviderFailure):
        while True:
            await within(deltas.read())
    assert str(await within(waiting)) == "local is shutting down"
    assert local.pid is None


async def test_tool_call_is_made_of_what_is_written(local: LlamaCpp) -> None:
    request = asked('say {"a" :1}', tools=(Tool("look"), Tool("go")), tool_choice=ToolChoice("tool", "go"))
    deltas = [delta async for delta in await within(local.open(calling(local, request, request_id="r7")))]
    calls = [delta for delta in deltas if isinstance(delta, ToolCall)]
    assert "".join([call.arguments for call in calls[:-1]]) == calls[-1].arguments == '{"a":1}'
    assert {(call.index, call.call_id, call.name) for call in calls} == {(0, calls[0].call_id, "go")}
    assert calls[0].call_id.startswith("call_r7_") and [call.mark for call in calls][-2:] == ["piece", "ready"]
    assert isinstance(deltas[-1], Finish) and deltas[-1].reason == "tool_calls"
    again = [delta async for delta in await within(local.open(calling(local, request, request_id="r7")))]
    assert isinstance(again[0], ToolCall) and again[0].call_id != calls[0].call_id


def with_extra(**data: Any) -> Extra:
    return Extra("openai_chat", data)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asked("x", sampling=Sampling(n=2)), "n: .* one answer at a time"),
        (asked("x", sampling=Sampling(logprobs=0)), "logprobs: .* do not give log probabilities"),
        (asked("x", tools=(Tool("a"),)), "tools: .* only when tool_choice names it"),
        (asked("x", tools=(Tool("a"),), tool_choice=ToolChoice("auto")), "tools: "),
        (asked("x", tools=(Tool("a"), Tool("b")), tool_choice=ToolChoice("required")), "tools: "),
        (asked("x", tools=(Tool("a"),), tool_choice=ToolChoice("tool", "b")), "tools: "),
        (asked("x", tools=(OpaqueTool("openai_chat", "custom", {}),)), "tools: "),
        (asked("x", extra=with_extra(tool_choice={"type": "allowed_tools"})), "tool_choice: is of a kind"),
        (asked("x", extra=with_extra(response_format={"type": "grammar"})), "response_format: is of a kind"),
        (
            Request("m", (Message("user", (ImagePart("data:image/png;base64,AA=="),)),)),
            r"messages\[0\].content: .* text only",
        ),
        (Request("m", (Message("user", (DocumentPart("data:text/plain;base64,AA=="),)),)), "text only"),
        (Request("m", (Message("user", (DocumentPart("http://example.test/x"),)),)), "data URLs only"),
        (Request("m", (Message("user", (OpaquePart("openai_chat", {"type": "input_audio"}),)),)), "text only"),
        (Request("m", (), prompt=Prompt("a", "b")), "suffix: "),
        (
            asked("x", response_format=ResponseFormat("json_schema", "a", {"type": "x"})),
            'response_format: .*"x" is no type',
        ),
        (
            asked("x", tools=(Tool("a", None, {"type": "x"}),), tool_choice=ToolChoice("required")),
            "tools: .* cannot follow this JSON schema",
        ),
    ],
)
async def test_what_it_cannot_do_is_refused_before_a_worker_is_started(
    local: LlamaCpp, request_: Request, message: str
) -> None:
    with pytest.raises(Unsupported, match=message):
        await local.open(calling(local, request_))
    assert local.pid is None


def messages_of(*messages: Message, **request: Any) -> list[dict[str, Any]]:
    return prompt_of(Request("m", messages, **request)).messages


def test_messages_are_made_as_templates_know_them() -> None:
    parts: tuple[Part, ...] = (ToolCallPart("1", "go", '{"a": 1}'), ToolCallPart("2", "go", "not json"))
    assert messages_of(
        Message("developer", (TextPart("Be brief."),)),
        Message("user", (TextPart("a"), TextPart("b"))),
        Message("assistant", (ReasoningPart("hm"), *parts)),
        Message("tool", (TextPart("done"),), call_id="1"),
        Message("assistant", (RefusalPart("No."),)),
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "go", "arguments": {"a": 1}}},
                {"id": "2", "type": "function", "function": {"name": "go", "arguments": "not json"}},
            ],
        },
        {"role": "tool", "content": "done", "tool_call_id": "1"},
        {"role": "assistant", "content": "No.", "refusal": "No."},
    ]


@pytest.mark.parametrize(
    ("reasoning", "options"),
    [
        (None, {}),
        (ReasoningOptions(), {}),
        (ReasoningOptions(enabled=False), {"enable_thinking": False}),
        (ReasoningOptions(enabled=True), {"enable_thinking": True}),
        (ReasoningOptions(effort="none"), {"enable_thinking": False, "reasoning_effort": "none"}),
        (ReasoningOptions(effort="low"), {"reasoning_effort": "low"}),
    ],
)
def test_templates_are_told_about_reasoning(reasoning: ReasoningOptions | None, options: dict[str, Any]) -> None:
    assert prompt_of(asked("x", reasoning=reasoning)).options == options


def test_tools_that_must_not_be_called_are_not_shown() -> None:
    prompt = prompt_of(asked("x", tools=(Tool("a"),), tool_choice=ToolChoice("none")))
    assert prompt.tools == []
    shown = prompt_of(asked("x", tools=(Tool("a"), Tool("b")), tool_choice=ToolChoice("tool", "b"))).tools
    assert [tool["function"]["name"] for tool in shown] == ["a", "b"]


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({}, {"models": {}, "context": -1}, {"models": {}, "gpu_layers": -2}, {"models": {}, "other": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, LlamaCppSettings)


# Whose turn it is.


async def test_parties_take_turns_however_many_one_of_them_sends() -> None:
    turns = Turns()
    served: list[str] = []

    async def come(party: str) -> None:
        await turns.take(party, lambda _: None)
        served.append(party)
        await asyncio.sleep(0)
        turns.release()

    await turns.take("first", lambda _: None)
    coming = [asyncio.create_task(come(party)) for party in ("a", "a", "a", "a", "b", "c", "b")]
    await asyncio.sleep(0)
    turns.release()
    await within(asyncio.gather(*coming))
    assert served == ["a", "b", "c", "a", "b", "a", "a"]


async def test_turn_that_comes_as_its_party_leaves_goes_to_the_next() -> None:
    turns = Turns()
    await turns.take("a", lambda _: None)
    leaving, staying = [asyncio.create_task(turns.take(party, lambda _: None)) for party in "bc"]
    await asyncio.sleep(0)
    turns.release()
    leaving.cancel()
    await within(staying)
    turns.release()
    # And so does one whose party is called away before.
    await turns.take("a", lambda _: None)
    leaving, staying = [asyncio.create_task(turns.take(party, lambda _: None)) for party in "bb"]
    await asyncio.sleep(0)
    leaving.cancel()
    turns.release()
    await within(staying)
    turns.release()
    await within(turns.take("d", lambda _: None))


# Bytes to text.


@given(st.text(alphabet="abñ🙀 ", max_size=30), st.lists(st.text(alphabet="abñ🙀 ", max_size=4), max_size=3), st.data())
def test_any_split_of_the_bytes_writes_the_text_before_the_first_stop(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    writer = Writer(stops)
    said = ""
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        if not writer.ended:
            said += writer.feed(raw[start:end])
    if not writer.ended:
        said += writer.finish()
    found = [text.find(stop) for stop in stops if stop and stop in text]
    # A stop that comes whole earlier may hide one that begins before it and ends later.
    assert text.startswith(said) and not any([stop in said for stop in stops if stop])
    assert writer.ended == bool(found)
    assert said == text if not found else len(said) >= min(found)


def test_character_that_is_not_whole_at_the_end_is_left_out() -> None:
    writer = Writer(())
    assert writer.feed("aé".encode()[:2]) == "a"
    assert writer.finish() == ""


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert Writer(()).feed(b"a\xffb") == "a\ufffdb"


# Schemas to grammars.

RULE = re.compile(r"^([a-z0-9-]+) ::= (.*)$", re.MULTILINE)
WORDS = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[0-9,]+\}|([a-z][a-z0-9-]*)')

schemas = st.recursive(
    st.one_of(
        st.sampled_from([True, {}]),
        st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array"]).map(
            lambda kind: {"type": kind}
        ),
        st.lists(st.none() | st.integers() | st.text(max_size=5), min_size=1, max_size=3).map(
            lambda values: {"enum": values}
        ),
        st.just({"type": "string", "minLength": 1, "maxLength": 3}),
        st.just({"$ref": "#"}),
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.text(max_size=4), inner, max_size=3).flatmap(
            lambda properties: st.lists(st.sampled_from([*properties, ""]), unique=True).map(
                lambda names: {"properties": properties, "required": [name for name in names if name in properties]}
            )
        ),
        inner.map(lambda items: {"items": items, "maxItems": 2}),
        st.lists(inner, min_size=1, max_size=3).map(lambda choices: {"anyOf": choices}),
    ),
    max_leaves=12,
)


@given(schemas.filter(lambda schema: isinstance(schema, dict)))
def test_grammar_defines_each_rule_it_uses_once(schema: dict[str, Any]) -> None:
    grammar = grammar_of(schema)
    rules = RULE.findall(grammar)
    names = [name for name, _ in rules]
    assert len(names) == len(set(names)) and "root" in names
    assert len(rules) == len(grammar.strip().split("\n"))
    for _, body in rules:
        assert {word for word in WORDS.findall(body) if word} <= set(names)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "x"}, '"x" is no type'),
        ({"type": ["string", 1]}, "1 is no type"),
        ({"type": []}, "nothing to choose from"),
        ({"enum": []}, "nothing to choose from"),
        ({"enum": "x"}, "enum must be a list"),
        ({"anyOf": {}}, "anyOf must be a list"),
        ({"properties": []}, "properties must be an object"),
        ({"properties": {"a": False}}, "false is no schema"),
        ({"properties": {"a": 1}}, "1 is no schema"),
        ({"properties": {"a": {}}, "required": ["b"]}, 'the required property "b" is not among'),
        ({"$ref": "https://example.test/x.json"}, "leads to another document"),
        ({"$ref": "other.json"}, "leads to another document"),
        ({"$ref": 1}, "leads to another document"),
        ({"$ref": "#/nowhere"}, "leads nowhere"),
        ({"$ref": "#/anyOf/7", "x": []}, "leads nowhere"),
        ({"allOf": [{}, {}]}, "allOf of several"),
        ({"anyOf": [{}], "properties": {}}, "anyOf beside properties"),
        ({"oneOf": [{}], "anyOf": [{}]}, "anyOf beside oneOf"),
        ({"type": "string", "minLength": 5, "maxLength": 4}, "maxLength is less"),
        ({"type": "string", "minLength": -1}, "natural numbers"),
        ({"type": "string", "maxLength": "4"}, "natural numbers"),
        ({"type": "string", "minLength": 1_000_000_000}, "may not be more than 1000"),
        ({"prefixItems": [{}], "minItems": 2}, "must allow just these"),
    ],
)
def test_schema_that_makes_no_grammar_is_refused_in_words(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        grammar_of(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^a$", "maxLength": 5000},
        {"type": "integer", "minimum": 1, "multipleOf": 2},
        {"type": "string", "format": "email"},
        {"anyOf": [{"type": "string"}], "not": {"const": "x"}},
        {
            "type": "object",
            "properties": {"a": {"type": "string", "format": "uuid"}},
            "additionalProperties": False,
            "title": "A",
        },
        {"$defs": {"a/b": {"type": "null"}}, "$ref": "#/$defs/a~1b"},
        {"anyOf": [{"type": "null"}, {"$ref": "#/anyOf/0"}], "description": "x"},
        {"type": "array", "prefixItems": [{}, {}], "minItems": 2, "maxItems": 2, "items": False},
    ],
)
def test_what_no_grammar_holds_is_no_obstacle(schema: dict[str, Any]) -> None:
    assert grammar_of(schema).startswith("root ::= ")


def test_schema_nested_too_deeply_or_too_large_is_refused() -> None:
    deep: dict[str, Any] = {"type": "null"}
    for _ in range(5000):
        deep = {"items": deep}
    wide = {"properties": {f"p{n}": {"enum": [n]} for n in range(8000)}}
    for schema in (deep, wide):
        with pytest.raises(SchemaError, match=r"too deeply|too large"):
            grammar_of(schema)
