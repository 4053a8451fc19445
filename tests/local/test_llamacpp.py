"""The `llamacpp` provider with llama.cpp itself, on a model of half a megabyte that is made here.

What the last character of the last message brings about is said in `tiny_gguf`.
"""

import asyncio
import importlib.util
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from cauce.domain.delta import Delta, Finish, Status, Text, ToolCall
from cauce.domain.errors import CauceError, ProviderFailure, Unsupported
from cauce.domain.message import ImagePart, Message, Part, TextPart, ToolCallPart
from cauce.domain.request import Prompt, Request, ResponseFormat, Sampling, Scope
from cauce.domain.tool import Tool, ToolChoice
from cauce.ports.provider import Call, Candidate
from cauce.providers.llamacpp.provider import LlamaCpp
from cauce.providers.llamacpp.settings import LlamaCppSettings
from tests.http import within

if importlib.util.find_spec("llama_cpp") is None or importlib.util.find_spec("gguf") is None:
    pytest.skip("needs the extra: pip install 'cauce[local]' gguf", allow_module_level=True)

from tests.local import tiny_gguf

pytestmark = pytest.mark.anyio

CONTEXT = 131_072
"""So long that an endless answer does not come to its end while a test runs."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    tiny_gguf.write(folder / "tiny.gguf", CONTEXT)
    tiny_gguf.write(folder / "plain.gguf", CONTEXT, template=None)
    tiny_gguf.write(folder / "broken-template.gguf", CONTEXT, template="{% for")
    (folder / "damaged.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:100_000])
    (folder / "other.gguf").write_bytes(b"no model at all")
    names = ("tiny", "plain", "broken-template", "damaged", "other", "missing")
    return {name: str(folder / f"{name}.gguf") for name in names}


@pytest.fixture
async def local(models: dict[str, str]) -> AsyncIterator[LlamaCpp]:
    provider = LlamaCpp("local", LlamaCppSettings(models, context=CONTEXT))
    yield provider
    await provider.aclose()


def asked(text: str, **request: Any) -> Request:
    return Request("local/tiny", (Message("user", (TextPart(text),)),), **request)


def calling(provider: LlamaCpp, request: Request, model: str = "tiny", **call: Any) -> Call:
    return Call(request=request, scope=Scope(), candidates=(Candidate(provider, model),), **call)


async def answered(provider: LlamaCpp, request: Request, model: str = "tiny", **call: Any) -> list[Delta]:
    deltas = await within(provider.open(calling(provider, request, model, **call)), 20)
    return [delta async for delta in deltas]


def written(deltas: list[Delta]) -> str:
    return "".join([delta.text for delta in deltas if isinstance(delta, Text)])


def finish(deltas: list[Delta]) -> Finish:
    assert isinstance(deltas[-1], Finish)
    return deltas[-1]


async def test_answer_is_written_to_the_model_s_own_end(local: LlamaCpp) -> None:
    deltas = await answered(local, asked("How are you?"))
    assert written(deltas) == tiny_gguf.SHORT
    assert finish(deltas).reason == "stop"
    assert finish(deltas).usage.output_tokens == len(tiny_gguf.SHORT)


async def test_answer_comes_while_it_is_written(local: LlamaCpp) -> None:
    # It never ends by itself, so whatever comes was not collected first.
    deltas = await within(local.open(calling(local, asked("Go!"))), 20)
    text = ""
    while len(text) < 100:
        text += written(list(await within(deltas.read())))
    assert (tiny_gguf.ENDLESS * 100_000).startswith(text)
    await deltas.aclose()


async def test_bound_on_tokens_is_kept_and_every_one_is_counted(local: LlamaCpp) -> None:
    deltas = await answered(local, asked("Go!", sampling=Sampling(max_tokens=25)))
    assert finish(deltas).reason == "length"
    assert finish(deltas).usage.output_tokens == 25


@pytest.mark.parametrize("most", range(1, 13))
async def test_characters_whose_bytes_are_tokens_of_their_own_stay_whole(local: LlamaCpp, most: int) -> None:
    deltas = await answered(local, asked("Go!", sampling=Sampling(max_tokens=most)))
    whole = (tiny_gguf.ENDLESS.encode() * 2)[:most].decode(errors="ignore")
    assert written(deltas) == whole
    assert all([delta.text and "\ufffd" not in delta.text for delta in deltas if isinstance(delta, Text)])


async def test_token_longer_than_most_is_written_whole(local: LlamaCpp) -> None:
    deltas = await answered(local, asked("Draw a line #"))
    assert (written(deltas), finish(deltas).usage.output_tokens) == (tiny_gguf.LONG_TOKEN, 1)


@pytest.mark.parametrize(
    ("stop", "expected"), [("🙀", "é€"), (" é€🙀 é", "é€🙀"), ("i", "H"), ("Hi", ""), ("never", "é€🙀 é€🙀 é€")]
)
async def test_stop_sequence_ends_the_answer_before_it(local: LlamaCpp, stop: str, expected: str) -> None:
    message = "?" if expected in ("", "H") else "!"
    deltas = await answered(local, asked(message, sampling=Sampling(max_tokens=25, stop=(stop, ""))))
    assert written(deltas) == expected
    assert finish(deltas).reason == ("length" if stop == "never" else "stop")


@pytest.mark.parametrize(
    "request_",
    [
        asked("How are you?"),
        Request(
            "m", (Message("system", (TextPart("Be brief. ñ 你好"),)), Message("user", (TextPart("Go"), TextPart("?"))))
        ),
        Request("m", (Message("developer", (TextPart("x"),)), Message("user", (TextPart("<|end|>?"),)))),
        Request("m", (), prompt=Prompt("Once upon a time?")),
        asked("?", tools=(Tool("look"),), tool_choice=ToolChoice("tool", "look"), sampling=Sampling(max_tokens=50)),
    ],
)
async def test_counted_tokens_are_those_that_a_call_reports(local: LlamaCpp, request_: Request) -> None:
    before = await within(local.count_tokens(request_, "tiny"), 20)
    deltas = await answered(local, request_)
    assert before == finish(deltas).usage.input_tokens == await local.count_tokens(request_, "tiny")
    assert before is not None and before > 3


async def test_prompt_is_continued_without_a_template(local: LlamaCpp) -> None:
    request = Request("m", (), prompt=Prompt("?"))
    assert await local.count_tokens(request, "tiny") == 1
    assert written(await answered(local, request)) == tiny_gguf.SHORT
    assert finish(await answered(local, request)).usage.input_tokens == 1


async def test_model_without_a_template_is_asked_in_chatml(local: LlamaCpp) -> None:
    deltas = await answered(local, asked("Go!", sampling=Sampling(max_tokens=5)), "plain")
    # Its markers are plain text to this vocabulary, one token for each byte.
    spoken = "<|im_start|>user\nGo!<|im_end|>\n<|im_start|>assistant\n"
    assert finish(deltas).usage.input_tokens == len(spoken) - spoken.count("in")


async def test_closing_an_answer_stops_it_and_the_next_call_works_in_the_same_process(local: LlamaCpp) -> None:
    deltas = await within(local.open(calling(local, asked("Go!"))), 20)
    process = local.pid
    await within(deltas.aclose(), 1)
    assert written(await within(answered(local, asked("?")), 1)) == tiny_gguf.SHORT
    assert local.pid == process


async def test_call_that_is_given_up_while_its_prompt_is_read_stops_soon(local: LlamaCpp) -> None:
    await answered(local, asked("?"))
    process = local.pid
    opening = asyncio.create_task(local.open(calling(local, asked("word " * 20_000 + "!"))))
    await asyncio.sleep(0.2)
    assert not opening.done()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    assert written(await within(answered(local, asked("?")), 2)) == tiny_gguf.SHORT
    assert local.pid == process


async def test_long_prompt_read_in_steps_gives_what_a_short_one_does(local: LlamaCpp) -> None:
    deltas = await answered(local, asked("word " * 500 + "Go!", sampling=Sampling(max_tokens=10)))
    assert written(deltas) == tiny_gguf.ENDLESS
    again = await answered(local, asked("word " * 500 + "How?"))
    assert written(again) == tiny_gguf.SHORT
    assert finish(again).usage.input_tokens == finish(deltas).usage.input_tokens + 1


async def test_calls_at_once_are_served_one_after_the_other(local: LlamaCpp) -> None:
    noticed: list[Status] = []
    first = await within(local.open(calling(local, asked("Go!"))), 20)
    second = asyncio.create_task(local.open(calling(local, asked("?"), notice=noticed.append)))  # pyright: ignore[reportArgumentType]
    for _ in range(50):
        assert (await first.read()) and not second.done()
    assert noticed == [Status("waiting", facts={"place": 1})]
    await first.aclose()
    assert written([delta async for delta in await within(second, 2)]) == tiny_gguf.SHORT


async def test_tokens_are_counted_while_an_answer_is_written(local: LlamaCpp) -> None:
    deltas = await within(local.open(calling(local, asked("Go!"))), 20)
    assert await within(local.count_tokens(asked("?"), "tiny"), 1)
    assert await deltas.read()
    await deltas.aclose()


async def test_worker_that_is_killed_fails_its_call_and_the_next_one_works(local: LlamaCpp) -> None:
    deltas = await within(local.open(calling(local, asked("Go!"))), 20)
    process = local.pid
    assert process is not None
    os.kill(process, signal.SIGKILL)
    with pytest.raises(ProviderFailure, match="ended unexpectedly \\(signal 9\\)") as caught:
        while True:
            await within(deltas.read())
    assert caught.value.failure == "transient"
    assert written(await answered(local, asked("?"))) == tiny_gguf.SHORT
    assert local.pid != process


async def test_closed_provider_leaves_no_process(local: LlamaCpp) -> None:
    await answered(local, asked("?"))
    process = local.pid
    assert process is not None
    await within(local.aclose())
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["town", "city"]},
        "old": {"$ref": "#/$defs/flag"},
        "code": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["kind", "old", "code", "tags"],
    "additionalProperties": False,
    "$defs": {"flag": {"type": "boolean"}},
}
SCHEMAS: list[dict[str, Any]] = [
    SCHEMA,
    {"type": "object", "properties": {name: {"type": "boolean"} for name in "abcd"}, "required": ["b"]},
    {"type": "object", "properties": {name: {"type": "boolean"} for name in "abcd"}},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"type": "object", "additionalProperties": False},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "null"}, "minItems": 0, "maxItems": 0},
    {"prefixItems": [{"const": "x"}, {"type": ["null", "boolean"]}], "minItems": 2},
    {"enum": ["a\nb", 'say "no"', "ñ\\u00e9", "back\\slash", 1.5, None, {"a": [1, "b"]}]},
    {"anyOf": [{"const": 1}, {"properties": {"n": {"$ref": "#"}}, "required": ["n"]}]},
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "properties": {"v": {"const": 1}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["v", "next"],
            }
        },
    },
    {"type": "object", "properties": {'a "b" \\ ñ': {"type": "number"}}, "required": ['a "b" \\ ñ']},
    {
        "type": "object",
        "properties": {
            "d": {"type": "string", "format": "date"},
            "u": {"type": "string", "format": "uuid"},
            "t": {"type": "string", "format": "date-time"},
        },
        "required": ["d", "u", "t"],
    },
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 2, "maxItems": 2},
]


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_json_follows_its_schema(local: LlamaCpp, schema: dict[str, Any]) -> None:
    valid = jsonschema_rs.validator_for(schema, validate_formats=True)
    wanted = ResponseFormat("json_schema", "it", schema, True)
    whole = 0
    for seed in range(12):
        sampling = Sampling(seed=seed, temperature=3, top_k=0, top_p=1, max_tokens=400)
        deltas = await answered(local, asked("Go!", response_format=wanted, sampling=sampling))
        # Weights at random write bytes that are no UTF-8; a grammar counts those in its own way.
        if finish(deltas).reason == "stop" and "\ufffd" not in written(deltas):
            whole += 1
            valid.validate(msgspec.json.decode(written(deltas)))
    assert whole >= 2


async def test_json_object_is_one(local: LlamaCpp) -> None:
    for wanted in (ResponseFormat("json_object"), ResponseFormat("json_schema", "any")):
        texts: list[str] = []
        for seed in range(12):
            sampling = Sampling(max_tokens=200, seed=seed)
            deltas = await answered(local, asked("x", response_format=wanted, sampling=sampling))
            if finish(deltas).reason == "stop":
                texts.append(written(deltas))
        assert texts and all([isinstance(msgspec.json.decode(text), dict) for text in texts])


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"const": 1}]},
        {"$ref": "https://example.test/schema.json"},
        {"type": "unknown"},
    ],
)
async def test_schema_that_cannot_be_followed_is_refused(local: LlamaCpp, schema: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="JSON schema") as caught:
        await answered(local, asked("x", response_format=ResponseFormat("json_schema", "x", schema)))
    assert caught.value.field == "response_format"
    assert written(await answered(local, asked("?"))) == tiny_gguf.SHORT


async def test_tool_that_must_be_called_is_called_with_arguments_by_its_schema(local: LlamaCpp) -> None:
    tool = Tool("place", "Places a city.", SCHEMA)
    for choice in (ToolChoice("tool", "place"), ToolChoice("required")):
        deltas = await answered(local, asked("Go!", tools=(tool,), tool_choice=choice), request_id="r1")
        calls = [delta for delta in deltas if isinstance(delta, ToolCall)]
        assert calls[-1].mark == "ready" and calls[-1].name == "place" and calls[-1].call_id.startswith("call_r1_")
        assert "".join([call.arguments for call in calls[:-1]]) == calls[-1].arguments
        jsonschema_rs.validate(SCHEMA, msgspec.json.decode(calls[-1].arguments))
        assert finish(deltas).reason == "tool_calls"
        assert not written(deltas)


async def test_tools_are_refused_where_the_template_does_not_know_them(local: LlamaCpp) -> None:
    request = asked("?", tools=(Tool("look"),), tool_choice=ToolChoice("required"))
    with pytest.raises(Unsupported, match="does not know tools"):
        await answered(local, request, "plain")
    assert await local.count_tokens(request, "plain") is None


async def test_conversation_that_the_template_refuses_is_told_in_its_words(local: LlamaCpp) -> None:
    request = Request("m", (Message("tool", (TextPart("x"),), call_id="1"), Message("user", (TextPart("?"),))))
    with pytest.raises(Unsupported, match="a tool cannot speak first"):
        await answered(local, request)


async def test_history_of_calls_is_understood(local: LlamaCpp) -> None:
    parts: tuple[Part, ...] = (ToolCallPart("1", "look", '{"a": 1}'),)
    messages = (
        Message("user", (TextPart("Look."),)),
        Message("assistant", parts),
        Message("tool", (TextPart("seen"),), call_id="1"),
        Message("user", (TextPart("And?"),)),
    )
    assert written(await answered(local, Request("m", messages))) == tiny_gguf.SHORT


async def test_image_is_refused(local: LlamaCpp) -> None:
    request = Request("m", (Message("user", (TextPart("?"), ImagePart("file:///etc/passwd"))),))
    with pytest.raises(Unsupported, match="read text only"):
        await answered(local, request)


async def test_same_seed_writes_the_same(local: LlamaCpp) -> None:
    texts = [
        written(await answered(local, asked("x", sampling=Sampling(seed=seed, max_tokens=40, temperature=1.5))))
        for seed in (11, 11, 12, 2**40)
    ]
    assert texts[0] == texts[1] != texts[2]
    unseeded = [written(await answered(local, asked("x", sampling=Sampling(max_tokens=40)))) for _ in range(2)]
    assert unseeded[0] != unseeded[1]


async def test_sampling_reaches_the_model(local: LlamaCpp) -> None:
    cold = Sampling(temperature=0, max_tokens=30, top_p=0.9, top_k=5, presence_penalty=0.5, frequency_penalty=0.5)
    assert written(await answered(local, asked("x", sampling=cold))) == written(
        await answered(local, asked("x", sampling=cold))
    )


async def test_prompt_longer_than_the_context_is_told_with_figures(models: dict[str, str]) -> None:
    provider = LlamaCpp("local", LlamaCppSettings(models, context=256))
    with pytest.raises(
        ProviderFailure, match=r"the prompt has \d{3,} tokens, but the context of this model holds"
    ) as caught:
        await answered(provider, asked("word " * 300))
    assert caught.value.code == "context_length_exceeded"
    deltas = await answered(provider, asked("Go!"))
    usage = finish(deltas).usage
    assert finish(deltas).reason == "length" and usage.input_tokens + usage.output_tokens == 256
    await provider.aclose()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("missing", "is not there"),
        ("damaged", "cannot be loaded"),
        ("other", "cannot be loaded"),
        ("broken-template", "chat template that cannot be read"),
    ],
)
async def test_model_that_cannot_be_used_is_told_without_its_path(
    local: LlamaCpp, models: dict[str, str], model: str, message: str
) -> None:
    with pytest.raises(ProviderFailure, match=message) as caught:
        await answered(local, asked("?"), model)
    assert caught.value.should_retry is False and models[model] not in str(caught.value)
    assert written(await answered(local, asked("?"))) == tiny_gguf.SHORT


async def test_models_are_listed_and_the_loaded_one_is_known(local: LlamaCpp) -> None:
    assert not any([model.loaded for model in await local.models()])
    await answered(local, asked("?"))
    assert [model.id for model in await local.models() if model.loaded] == ["tiny"]
    await answered(local, asked("x", sampling=Sampling(max_tokens=1)), "plain")
    assert [model.id for model in await local.models() if model.loaded] == ["plain"]
    with pytest.raises(CauceError) as caught:
        await answered(local, asked("?"), "unknown")
    assert caught.value.code == "model_not_found"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are told by /proc")
async def test_worker_opens_no_database_of_answers(local: LlamaCpp) -> None:
    await answered(local, asked("?"))
    opened = [str(file.readlink()) for file in Path(f"/proc/{local.pid}/fd").iterdir()]
    assert len(opened) > 3 and not any([".db" in name or "cache" in name for name in opened])
