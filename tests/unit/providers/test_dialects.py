"""Every dialect against the fake server: that data alone decides what is sent, where and with which key."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cauce.domain.completion import Completion
from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.errors import Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import ImagePart, Message, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from cauce.domain.request import Prompt, ReasoningOptions, Request, ResponseFormat, Sampling, Scope
from cauce.domain.signature import Signature
from cauce.engine.compose import collect
from cauce.ports.provider import Call, Candidate, Timeouts
from cauce.providers.openai_compatible.adaptation import adapt
from cauce.providers.openai_compatible.dialect import DIALECTS, Dialect, dialect_of, dialect_of_server
from cauce.providers.openai_compatible.provider import OpenAICompatible
from cauce.testing.upstream import Reply, Upstream
from cauce.transport import HTTPTransport
from cauce.wire.openai_chat.request import render_request

pytestmark = pytest.mark.anyio

ALL = [pytest.param(dialect, id=name) for name, dialect in DIALECTS.items()]

SIGNED = Signature("openai_chat", '{"index":0,"signature":"s1","type":"reasoning.text"}')
HISTORY = (
    Message("developer", (TextPart("Be brief."),)),
    Message("user", (TextPart("Look."),)),
    Message(
        "assistant",
        (
            ReasoningPart("I should look.", SIGNED),
            TextPart("I look."),
            ToolCallPart("call_1", "look", "{}", signature=Signature("gemini", "Zw==")),
        ),
    ),
    Message("tool", (TextPart("a cat"),), call_id="call_1"),
    Message("assistant", (RefusalPart("I do not talk of cats."),)),
    Message("user", (TextPart("Why?"),)),
)
RICH = Request(
    "public",
    HISTORY,
    sampling=Sampling(temperature=0.5, top_k=3, max_tokens=64, seed=7, logprobs=2),
    user="u1",
    reasoning=ReasoningOptions("medium"),
)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


def provider_of(dialect: Dialect, base_url: str) -> OpenAICompatible:
    return OpenAICompatible("up", base_url, "the-key", HTTPTransport("up"), dialect)


async def answered(dialect: Dialect, base_url: str, request: Request, *, stream: bool = False) -> Completion:
    provider = provider_of(dialect, base_url)
    call = Call(request=request, scope=Scope(), candidates=(Candidate(provider, "some-model"),), streamed=stream)
    try:
        return await collect(await provider.open(call))
    finally:
        await provider.aclose()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ALL)
async def test_conversation_is_sent_as_the_dialect_says_and_answered(
    upstream: Upstream, dialect: Dialect, stream: bool
) -> None:
    completion = await answered(dialect, upstream.base_url, RICH, stream=stream)
    assert completion.choices[0].text == "Hello from upstream."
    (body,), (headers,), (path,) = upstream.requests, upstream.headers, upstream.paths
    assert path == "/v1" + dialect.chat.replace("{model}", "some-model")
    assert headers[dialect.key_header.lower()] == f"{dialect.key_scheme}the-key"
    assert body["model"] == "some-model"
    renamed = dict(dialect.renames)
    for field in ("temperature", "top_k", "max_tokens", "seed", "logprobs", "top_logprobs", "user"):
        assert (renamed.get(field, field) in body) == (field not in dialect.drops)
        assert field not in renamed or field not in body
    assert ("stream_options" in body) == (stream and dialect.stream_usage)


@pytest.mark.parametrize("dialect", ALL)
async def test_history_holds_only_what_the_dialect_knows(upstream: Upstream, dialect: Dialect) -> None:
    await answered(dialect, upstream.base_url, RICH)
    developer, _, called, answer, refused, _ = upstream.requests[0]["messages"]
    assert developer["role"] == ("developer" if dialect.developer_role else "system")
    sent = {field for field in ("reasoning_content", "reasoning", "reasoning_details") if field in called}
    assert sent == set(dialect.reasoning) - {"thinking"}
    thinking = isinstance(called["content"], list) and called["content"][0]["type"] == "thinking"
    assert thinking == ("thinking" in dialect.reasoning)
    assert ("extra_content" in called["tool_calls"][0]) == dialect.call_signatures
    assert called["tool_calls"][0]["id"] == answer["tool_call_id"]
    if dialect.refusals:
        assert (refused["content"], refused["refusal"]) == (None, "I do not talk of cats.")
    else:
        assert refused == {"role": "assistant", "content": "I do not talk of cats."}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ALL)
async def test_prompt_goes_where_the_dialect_takes_prompts_else_as_a_message(
    upstream: Upstream, dialect: Dialect, stream: bool
) -> None:
    message = Message("user", (TextPart("Once"),))
    request = Request("public", (message,), Sampling(max_tokens=5), prompt=Prompt("Once"))
    completion = await answered(dialect, upstream.base_url, request, stream=stream)
    assert completion.choices[0].text == "Hello from upstream."
    (body,), (path,) = upstream.requests, upstream.paths
    if dialect.completions is None:
        assert body["messages"] == [{"role": "user", "content": "Once"}] and "prompt" not in body
        return
    where = dialect.completions.replace("{model}", "some-model")
    assert path == (where[1:] if where.startswith("~") else f"/v1{where}")
    assert (body["prompt"], body["max_tokens"]) == ("Once", 5)


@pytest.mark.parametrize("dialect", ALL)
async def test_suffix_goes_where_the_dialect_fills_in_else_is_refused(upstream: Upstream, dialect: Dialect) -> None:
    request = Request("public", (Message("user", (TextPart("a"),)),), prompt=Prompt("a", "c"))
    if dialect.infill is None:
        with pytest.raises(Unsupported, match="suffix"):
            await answered(dialect, upstream.base_url, request)
        assert upstream.requests == []
        return
    if dialect.infill_chats:
        message = {"message": {"role": "assistant", "content": "b"}, "finish_reason": "stop"}
        upstream.answers = [Reply(raw=msgspec.json.encode({"choices": [message]}))]
    else:
        upstream.answers = [Reply(text="b")]
    completion = await answered(dialect, upstream.base_url, request)
    assert completion.choices[0].text == "b"
    assert (upstream.requests[0]["prompt"], upstream.requests[0]["suffix"]) == ("a", "c")


@pytest.mark.parametrize("dialect", [dialect for dialect in DIALECTS.values() if dialect.completions is None])
async def test_prompt_of_tokens_is_refused_where_prompts_are_not_taken(upstream: Upstream, dialect: Dialect) -> None:
    message = Message("user", (TextPart(""),))
    request = Request("public", (message,), extra=Extra("openai_completions", {"prompt": [1]}), prompt=Prompt(""))
    with pytest.raises(Unsupported, match="prompt"):
        await answered(dialect, upstream.base_url, request)


@pytest.mark.parametrize("dialect", ALL)
async def test_embeddings_are_asked_for_where_the_dialect_makes_them(upstream: Upstream, dialect: Dialect) -> None:
    provider = provider_of(dialect, upstream.base_url)
    request = EmbeddingRequest("public", ("a", "b"), dimensions=2)
    try:
        if dialect.embeddings is None:
            with pytest.raises(Unsupported):
                await provider.embed(request, "some-model", Timeouts())
            return
        made = await provider.embed(request, "some-model", Timeouts())
    finally:
        await provider.aclose()
    assert [vector[:2] for vector in made.vectors] == [(0.5, -0.25), (0.5, -0.25)]
    assert upstream.paths == ["/v1" + dialect.embeddings.replace("{model}", "some-model")]
    assert upstream.requests[0][dialect.dimensions] == 2


@pytest.mark.parametrize("dialect", [dialect for dialect in DIALECTS.values() if dialect.embeddings is not None])
async def test_base64_is_asked_for_where_it_is_known(upstream: Upstream, dialect: Dialect) -> None:
    provider = provider_of(dialect, upstream.base_url)
    wanted = Extra("openai_embeddings", {"encoding_format": "base64"})
    made = await provider.embed(EmbeddingRequest("public", ("a",), extra=wanted), "some-model", Timeouts())
    await provider.aclose()
    assert made.vectors == ((0.5, -0.25, 0.125),)
    assert ("encoding_format" in upstream.requests[0]) == dialect.packs_embeddings


@pytest.mark.parametrize("dialect", ALL)
async def test_models_are_listed(upstream: Upstream, dialect: Dialect) -> None:
    provider = provider_of(dialect, upstream.base_url)
    assert [model.id for model in await provider.models()] == ["fake-model"]
    await provider.aclose()


async def test_query_of_the_address_is_sent_with_every_request(upstream: Upstream) -> None:
    address = f"{upstream.root}/openai/deployments/d?api-version=2024-10-21"
    await answered(DIALECTS["azure"], address, Request("m", HISTORY[1:2]))
    assert upstream.paths == ["/openai/deployments/d/chat/completions?api-version=2024-10-21"]
    assert upstream.headers[0]["api-key"] == "the-key" and "authorization" not in upstream.headers[0]


async def test_key_is_left_out_where_there_is_none(upstream: Upstream) -> None:
    provider = OpenAICompatible("up", upstream.base_url, "", HTTPTransport("up"), DIALECTS["compatible"])
    request = Request("m", HISTORY[1:2])
    await collect(await provider.open(Call(request=request, scope=Scope(), candidates=(Candidate(provider, "m"),))))
    await provider.aclose()
    assert "authorization" not in upstream.headers[0]


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://me.openai.azure.com/openai/v1", "azure"),
        ("https://me.openai.azure.com/openai/v1/", "azure"),
        ("https://me.openai.azure.com/openai/deployments/d?api-version=1", "azure"),
        ("https://me.openai.azure.com/openai/deployments?api-version=1", "azure-deployments"),
        ("https://me.services.ai.azure.com/openai/v1", "azure"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://codestral.mistral.ai/v1", "mistral"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.deepseek.com/v1", "deepseek"),
        ("https://api.x.ai/v1", "xai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "google"),
        ("http://127.0.0.1:11434/v1", "ollama"),
        ("http://box.example:11434/v1", "ollama"),
        ("http://localhost:1234/v1", "lmstudio"),
        ("http://127.0.0.1:8000/v1", "compatible"),
        ("https://api.openai.com.example/v1", "compatible"),
        ("https://llm.example/v1", "compatible"),
    ],
)
def test_address_alone_tells_the_dialect(base_url: str, name: str) -> None:
    assert dialect_of(base_url).name == name


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("ollama", "ollama"),
        ("ollama-11435", "ollama"),
        ("lmstudio", "lmstudio"),
        ("llamacpp-8081", "llamacpp"),
        ("vllm", "vllm"),
        ("foundry", "foundry"),
        ("local-9000", "compatible"),
    ],
)
def test_server_that_was_found_speaks_the_dialect_of_its_kind(server: str, name: str) -> None:
    assert dialect_of_server(server).name == name


def adapted(name: str, request: Request, model: str = "some-model") -> dict[str, Any]:
    return adapt(render_request(request, model, stream=False), DIALECTS[name])


def asking(**more: Any) -> Request:
    return Request("m", HISTORY[1:2], **more)


class TestReasoning:
    @pytest.mark.parametrize(
        ("name", "options", "told"),
        [
            ("openai", ReasoningOptions("xhigh"), {"reasoning_effort": "xhigh"}),
            ("openai", ReasoningOptions(budget_tokens=2000), {"reasoning_effort": "low"}),
            ("openai", ReasoningOptions(budget_tokens=9000), {"reasoning_effort": "medium"}),
            ("openai", ReasoningOptions(budget_tokens=99_000), {"reasoning_effort": "high"}),
            ("openai", ReasoningOptions(enabled=False), {"reasoning_effort": "none"}),
            ("openai", ReasoningOptions(enabled=True), {"reasoning_effort": "medium"}),
            ("openai", ReasoningOptions(visible=False), {}),
            ("mistral", ReasoningOptions("low"), {"reasoning_effort": "high"}),
            ("mistral", ReasoningOptions("none"), {"reasoning_effort": "none"}),
            ("groq", ReasoningOptions("xhigh"), {"reasoning_effort": "high"}),
            ("ollama", ReasoningOptions("minimal"), {"reasoning_effort": "low"}),
            ("deepseek", ReasoningOptions("low"), {"reasoning_effort": "high", "thinking": {"type": "enabled"}}),
            ("deepseek", ReasoningOptions("max"), {"reasoning_effort": "max", "thinking": {"type": "enabled"}}),
            ("deepseek", ReasoningOptions("none"), {"thinking": {"type": "disabled"}}),
            ("openrouter", ReasoningOptions("high"), {"reasoning": {"effort": "high"}}),
            (
                "openrouter",
                ReasoningOptions("high", 2000, None, False),
                {"reasoning": {"max_tokens": 2000, "exclude": True}},
            ),
            ("openrouter", ReasoningOptions(enabled=True), {"reasoning": {"enabled": True}}),
        ],
    )
    def test_how_much_to_think_is_told_in_the_servers_words(
        self, name: str, options: ReasoningOptions, told: dict[str, Any]
    ) -> None:
        body = adapted(name, asking(reasoning=options))
        said = {field: body[field] for field in ("reasoning_effort", "reasoning", "thinking") if field in body}
        assert said == told

    def test_thinking_goes_back_as_a_part_with_its_signature(self) -> None:
        content = adapted("mistral", Request("m", HISTORY))["messages"][2]["content"]
        assert content == [
            {"type": "thinking", "thinking": [{"type": "text", "text": "I should look."}], "signature": "s1"},
            {"type": "text", "text": "I look."},
        ]


class TestModels:
    @pytest.mark.parametrize(
        ("name", "model", "gone"),
        [
            ("openai", "gpt-5-mini", {"temperature", "presence_penalty"}),
            ("openai", "gpt-5-chat-latest", set()),
            ("openai", "o4-mini", {"temperature", "presence_penalty"}),
            ("openai", "gpt-4o", set()),
            ("xai", "grok-4", {"presence_penalty", "stop", "reasoning_effort"}),
            ("xai", "grok-3-mini", {"presence_penalty", "stop"}),
            ("xai", "grok-4-fast-non-reasoning", {"reasoning_effort"}),
        ],
    )
    def test_what_a_model_refuses_is_left_out(self, name: str, model: str, gone: set[str]) -> None:
        sampling = Sampling(temperature=0.5, presence_penalty=0.1, stop=("END",))
        body = adapted(name, asking(sampling=sampling, reasoning=ReasoningOptions("low")), model)
        assert {"temperature", "presence_penalty", "stop", "reasoning_effort"} - body.keys() == gone


class TestRefusals:
    @pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if not dialect.several_choices])
    def test_several_answers_are_refused_where_there_is_one(self, name: str) -> None:
        with pytest.raises(Unsupported):
            adapted(name, asking(sampling=Sampling(n=2)))

    def test_json_schema_is_refused_where_it_is_not_followed(self) -> None:
        schema = ResponseFormat("json_schema", "n", {"type": "object"})
        with pytest.raises(Unsupported, match="json_object"):
            adapted("deepseek", asking(response_format=schema))
        body = adapted("deepseek", asking(response_format=ResponseFormat("json_object")))
        assert body["response_format"] == {"type": "json_object"}

    def test_images_are_refused_where_content_is_text(self) -> None:
        image = ImagePart("data:image/png;base64,AAAA")
        with pytest.raises(Unsupported, match="image_url"):
            adapted("deepseek", Request("m", (Message("user", (TextPart("?"), image)),)))
        two = Request("m", (Message("user", (TextPart("a"), TextPart("b"))),))
        assert adapted("deepseek", two)["messages"][0]["content"] == "ab"


class TestTools:
    IMAGE = ImagePart("data:image/png;base64,AAAA")

    def test_images_from_tools_follow_all_their_answers_where_tools_may_give_text_only(self) -> None:
        messages = (
            Message("user", (TextPart("Look."),)),
            Message("assistant", (ToolCallPart("c1", "f", "{}"), ToolCallPart("c2", "f", "{}"))),
            Message("tool", (TextPart("here"), self.IMAGE), call_id="c1"),
            Message("tool", (self.IMAGE,), call_id="c2"),
            Message("user", (TextPart("Well?"),)),
        )
        sent = adapted("openai", Request("m", messages))["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user", "user"]
        assert sent[2]["content"] == "here" and isinstance(sent[3]["content"], str)
        assert [part["type"] for part in sent[4]["content"]] == ["text", "image_url", "image_url"]
        raw = adapted("compatible", Request("m", messages))["messages"]
        assert [part["type"] for part in raw[2]["content"]] == ["text", "image_url"]

    def test_ids_of_calls_look_as_the_server_wants_them_and_stay_paired(self) -> None:
        messages = (
            Message("assistant", (ToolCallPart("call_a-long-one", "f", "{}"), ToolCallPart("Abc123xyz", "f", "{}"))),
            Message("tool", (TextPart("1"),), call_id="call_a-long-one"),
            Message("tool", (TextPart("2"),), call_id="Abc123xyz"),
        )
        called, one, two = adapted("mistral", Request("m", messages))["messages"]
        made, kept = [call["id"] for call in called["tool_calls"]]
        assert len(made) == 9 and made.isalnum() and made == one["tool_call_id"]
        assert kept == two["tool_call_id"] == "Abc123xyz"
        again = adapted("mistral", Request("m", messages))["messages"][1]["tool_call_id"]
        assert again == made
