"""`pydantic-ai`: one agent over each of the APIs it speaks; `api` says which."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import given
import worker
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, Embedder, ModelProfile, ModelSettings, NativeOutput
from pydantic_ai.embeddings.google import GoogleEmbeddingModel
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ThinkingPart, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import (
    OpenAIChatModel,
    OpenAIChatModelSettings,
    OpenAIResponsesModel,
    OpenAIResponsesModelSettings,
)
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

# What it would know of a model by its name.
ABLE = ModelProfile(supports_json_schema_output=True)
REASONING = OpenAIModelProfile(openai_supports_encrypted_reasoning_content=True, supports_json_schema_output=True)


class Animal(BaseModel):
    name: str
    legs: int


def model(asked: SimpleNamespace) -> Model:
    match asked.api:
        case "chat":
            return OpenAIChatModel(asked.model, provider=openai(asked))
        case "responses":
            return OpenAIResponsesModel(asked.model, provider=openai(asked), profile=REASONING)
        case "anthropic":
            provider = AnthropicProvider(api_key=asked.api_key, base_url=asked.base_url)
            provider.client.max_retries = 0
            return AnthropicModel(asked.model, provider=provider, profile=ABLE)
        case _:
            return GoogleModel(asked.model, provider=GoogleProvider(api_key=asked.api_key, base_url=asked.base_url))


def openai(asked: SimpleNamespace) -> OpenAIProvider:
    provider = OpenAIProvider(base_url=f"{asked.base_url}/v1", api_key=asked.api_key)
    provider.client.max_retries = 0
    return provider


def agent(asked: SimpleNamespace, **more: Any) -> Agent[Any, Any]:
    return Agent(model(asked), retries=0, **more)


def tooled(asked: SimpleNamespace, **more: Any) -> tuple[Agent[Any, Any], list[Any]]:
    calls: list[Any] = []
    made = agent(asked, **more)

    @made.tool_plain
    def weather(city: str) -> str:
        """Tells the weather of a city."""
        calls.append([given.WEATHER, {"city": city}])
        return given.SKY

    return made, calls


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(work())  # type: ignore[arg-type]


def thought(messages: list[Any]) -> str:
    parts = [part for message in messages for part in message.parts]
    return "".join(part.content for part in parts if isinstance(part, ThinkingPart))


def counted(usage: Any) -> dict[str, Any]:
    return {"input": usage.input_tokens, "output": usage.output_tokens, "cached": usage.cache_read_tokens}


def thinking(asked: SimpleNamespace) -> dict[str, Any]:
    """For a model that it does not know by name."""
    match asked.api:
        case "chat":
            settings: Any = OpenAIChatModelSettings(openai_reasoning_effort="high")
        case "responses":
            hidden = {"openai_send_reasoning_ids": True, "openai_reasoning_summary": "auto"}
            settings = OpenAIResponsesModelSettings(openai_reasoning_effort="high", **hidden)
        case _:
            settings = ModelSettings(thinking="high")
    return {"model_settings": settings}


@worker.case
def plain(asked: SimpleNamespace) -> Any:
    return run(lambda: _plain(agent(asked), given.SAY_HELLO))


async def _plain(made: Agent[Any, Any], prompt: Any, **more: Any) -> Any:
    return {"text": (await made.run(prompt, **more)).output}


async def _stream(made: Agent[Any, Any], prompt: Any, **more: Any) -> Any:
    async with made.run_stream(prompt, **more) as stream:
        return {"text": "".join([piece async for piece in stream.stream_text(delta=True)])}


@worker.case
def stream(asked: SimpleNamespace) -> Any:
    return run(lambda: _stream(agent(asked), given.SAY_HELLO))


@worker.case
def turns(asked: SimpleNamespace) -> Any:
    (_, first), (_, answer), (_, second) = given.TURNS
    history = [ModelRequest(parts=[UserPromptPart(first)]), ModelResponse(parts=[TextPart(answer)])]
    return run(lambda: _plain(agent(asked, instructions=given.SYSTEM), second, message_history=history))


@worker.case
def tools(asked: SimpleNamespace, **more: Any) -> Any:
    made, calls = tooled(asked, **more)
    return {"calls": calls, **run(lambda: _plain(made, given.ASK_WEATHER))}


@worker.case
def tools_stream(asked: SimpleNamespace, **more: Any) -> Any:
    made, calls = tooled(asked, **more)
    return {"calls": calls, **run(lambda: _stream(made, given.ASK_WEATHER))}


@worker.case
def signed(asked: SimpleNamespace) -> Any:
    return tools(asked, **thinking(asked))


@worker.case
def signed_stream(asked: SimpleNamespace) -> Any:
    return tools_stream(asked, **thinking(asked))


@worker.case
def image(asked: SimpleNamespace) -> Any:
    return run(lambda: _plain(agent(asked), [given.LOOK, BinaryContent(given.PNG, media_type="image/png")]))


@worker.case
def structured(asked: SimpleNamespace) -> Any:
    done = run(lambda: agent(asked, output_type=NativeOutput(Animal)).run(given.ASK_ANIMAL))
    return {"value": done.output.model_dump()}


@worker.case
def structured_stream(asked: SimpleNamespace) -> Any:
    async def work() -> Any:
        async with agent(asked, output_type=NativeOutput(Animal)).run_stream(given.ASK_ANIMAL) as stream:
            return {"value": (await stream.get_output()).model_dump()}

    return run(work)


@worker.case
def structured_tool(asked: SimpleNamespace) -> Any:
    done = run(lambda: agent(asked, output_type=Animal).run(given.ASK_ANIMAL))
    return {"value": done.output.model_dump()}


@worker.case
def reasoning(asked: SimpleNamespace) -> Any:
    done = run(lambda: agent(asked, **thinking(asked)).run(given.SAY_HELLO))
    return {"text": done.output, "reasoning": thought(done.all_messages())}


@worker.case
def reasoning_stream(asked: SimpleNamespace) -> Any:
    async def work() -> Any:
        async with agent(asked, **thinking(asked)).run_stream(given.SAY_HELLO) as stream:
            text = "".join([piece async for piece in stream.stream_text(delta=True)])
            return {"text": text, "reasoning": thought(stream.all_messages())}

    return run(work)


@worker.case
def usage(asked: SimpleNamespace) -> Any:
    return counted(run(lambda: agent(asked).run(given.SAY_HELLO)).usage)


@worker.case
def usage_stream(asked: SimpleNamespace) -> Any:
    async def work() -> Any:
        async with agent(asked).run_stream(given.SAY_HELLO) as stream:
            await stream.get_output()
            return counted(stream.usage)

    return run(work)


@worker.case
def error(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: plain(asked))


@worker.case
def error_stream(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: stream(asked))


@worker.case
def broken(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: stream(asked))


@worker.case
def cancel(asked: SimpleNamespace) -> Any:
    async def work() -> Any:
        seen = ""
        async with agent(asked).run_stream(given.SAY_HELLO) as stream:
            async for piece in stream.stream_text(delta=True, debounce_by=None):
                seen += piece
                if seen == "a b ":
                    break
        return {"text": seen}

    return run(work)


@worker.case
def count(asked: SimpleNamespace) -> Any:
    messages = [ModelRequest(parts=[UserPromptPart(given.SAY_HELLO)])]
    told = run(lambda: model(asked).count_tokens(messages, None, ModelRequestParameters()))
    return {"input": told.input_tokens}


@worker.case
def embeddings(asked: SimpleNamespace) -> Any:
    if asked.api == "chat":
        made: Any = OpenAIEmbeddingModel(asked.model, provider=openai(asked))
    else:
        provider = GoogleProvider(api_key=asked.api_key, base_url=asked.base_url)
        made = GoogleEmbeddingModel(asked.model, provider=provider)
    done = run(lambda: Embedder(made).embed_documents(list(given.INPUTS)))
    return {"vectors": [list(vector) for vector in done.embeddings]}


if __name__ == "__main__":
    worker.serve()
