"""The official `google-genai` SDK; which version of the API it asks for, the test says."""

import json
from types import SimpleNamespace
from typing import Any

import given
import worker
from google import genai
from google.genai import types

TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name=given.WEATHER, description=given.WEATHER_TELLS, parameters_json_schema=given.WEATHER_TAKES
        )
    ]
)
THINKING = types.ThinkingConfig(include_thoughts=True, thinking_level="HIGH")


def client(asked: SimpleNamespace) -> genai.Client:
    version = getattr(asked, "version", None)
    options = types.HttpOptions(base_url=asked.base_url, api_version=version, timeout=20_000)
    # Held, since it closes its connections when nobody does.
    asked.held = genai.Client(api_key=asked.api_key, http_options=options)
    return asked.held


def counted(told: Any) -> dict[str, Any]:
    thoughts = told.thoughts_token_count or 0
    return {
        "input": told.prompt_token_count,
        "output": told.candidates_token_count + thoughts,
        "cached": told.cached_content_token_count,
        "reasoning": thoughts,
    }


def thought(chunks: list[Any]) -> str:
    parts = [part for chunk in chunks if chunk.candidates for part in chunk.candidates[0].content.parts or []]
    return "".join(part.text or "" for part in parts if part.thought)


@worker.case
def plain(asked: SimpleNamespace) -> Any:
    done = client(asked).models.generate_content(model=asked.model, contents=given.SAY_HELLO)
    return {"text": done.text, "finish": done.candidates[0].finish_reason.value}


@worker.case
def stream(asked: SimpleNamespace) -> Any:
    chunks = list(client(asked).models.generate_content_stream(model=asked.model, contents=given.SAY_HELLO))
    ends = [chunk.candidates[0].finish_reason for chunk in chunks]
    return {"text": "".join(chunk.text or "" for chunk in chunks), "finish": [end.value for end in ends if end]}


@worker.case
def turns(asked: SimpleNamespace) -> Any:
    contents = [
        types.Content(role="model" if role == "assistant" else "user", parts=[types.Part(text=told)])
        for role, told in given.TURNS
    ]
    config = types.GenerateContentConfig(system_instruction=given.SYSTEM)
    return {"text": client(asked).models.generate_content(model=asked.model, contents=contents, config=config).text}


@worker.case
def tools(asked: SimpleNamespace, *, streamed: bool = False, **more: Any) -> Any:
    sdk = client(asked)
    contents: list[Any] = [types.Content(role="user", parts=[types.Part(text=given.ASK_WEATHER)])]
    config = types.GenerateContentConfig(tools=[TOOL], **more)
    calls: list[Any] = []
    while True:
        if streamed:
            chunks = list(sdk.models.generate_content_stream(model=asked.model, contents=contents, config=config))
        else:
            chunks = [sdk.models.generate_content(model=asked.model, contents=contents, config=config)]
        parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts or []]
        asks = [part.function_call for part in parts if part.function_call]
        if not asks:
            return {"calls": calls, "text": "".join(part.text or "" for part in parts if not part.thought)}
        contents.append(types.Content(role="model", parts=parts))
        calls += [[call.name, call.args] for call in asks]
        results = [
            types.Part(
                function_response=types.FunctionResponse(id=call.id, name=call.name, response=json.loads(given.SKY))
            )
            for call in asks
        ]
        contents.append(types.Content(role="user", parts=results))


@worker.case
def tools_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True)


@worker.case
def tools_run(asked: SimpleNamespace) -> Any:
    """The SDK calls a Python function by itself."""
    calls: list[Any] = []

    def weather(city: str) -> dict[str, str]:
        """Tells the weather of a city."""
        calls.append(["weather", {"city": city}])
        return json.loads(given.SKY)

    config = types.GenerateContentConfig(tools=[weather])
    done = client(asked).models.generate_content(model=asked.model, contents=given.ASK_WEATHER, config=config)
    return {"calls": calls, "text": done.text}


@worker.case
def signed(asked: SimpleNamespace) -> Any:
    return tools(asked, thinking_config=THINKING)


@worker.case
def signed_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True, thinking_config=THINKING)


@worker.case
def image(asked: SimpleNamespace) -> Any:
    picture = types.Part.from_bytes(data=given.PNG, mime_type="image/png")
    done = client(asked).models.generate_content(model=asked.model, contents=[given.LOOK, picture])
    return {"text": done.text}


@worker.case
def structured(asked: SimpleNamespace) -> Any:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=given.ANIMAL)
    done = client(asked).models.generate_content(model=asked.model, contents=given.ASK_ANIMAL, config=config)
    return {"value": done.parsed}


@worker.case
def structured_stream(asked: SimpleNamespace) -> Any:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=given.ANIMAL)
    chunks = client(asked).models.generate_content_stream(model=asked.model, contents=given.ASK_ANIMAL, config=config)
    return {"value": json.loads("".join(chunk.text or "" for chunk in chunks))}


@worker.case
def reasoning(asked: SimpleNamespace) -> Any:
    config = types.GenerateContentConfig(thinking_config=THINKING)
    done = client(asked).models.generate_content(model=asked.model, contents=given.SAY_HELLO, config=config)
    return {"text": done.text, "reasoning": thought([done])}


@worker.case
def reasoning_stream(asked: SimpleNamespace) -> Any:
    config = types.GenerateContentConfig(thinking_config=THINKING)
    chunks = list(
        client(asked).models.generate_content_stream(model=asked.model, contents=given.SAY_HELLO, config=config)
    )
    return {"text": "".join(chunk.text or "" for chunk in chunks), "reasoning": thought(chunks)}


@worker.case
def usage(asked: SimpleNamespace) -> Any:
    done = client(asked).models.generate_content(model=asked.model, contents=given.SAY_HELLO)
    return counted(done.usage_metadata)


@worker.case
def usage_stream(asked: SimpleNamespace) -> Any:
    chunks = list(client(asked).models.generate_content_stream(model=asked.model, contents=given.SAY_HELLO))
    return counted([chunk.usage_metadata for chunk in chunks if chunk.usage_metadata][-1])


@worker.case
def error(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: client(asked).models.generate_content(model=asked.model, contents=given.SAY_HELLO))


@worker.case
def error_stream(asked: SimpleNamespace) -> Any:
    return worker.refused(
        lambda: list(client(asked).models.generate_content_stream(model=asked.model, contents=given.SAY_HELLO))
    )


@worker.case
def broken(asked: SimpleNamespace) -> Any:
    seen: list[str] = []
    ends: list[str] = []

    def read() -> None:
        sdk = client(asked)
        for chunk in sdk.models.generate_content_stream(model=asked.model, contents=given.SAY_HELLO):
            seen.append(chunk.text or "")
            if chunk.candidates and chunk.candidates[0].finish_reason:
                ends.append(chunk.candidates[0].finish_reason.value)
        # The SDK takes a body that ends early for the end: what reads it must miss the finish reason.
        if not ends:
            raise RuntimeError("the stream ended without a finish reason")

    return {**worker.refused(read), "text": "".join(seen), "finish": ends}


@worker.case
def cancel(asked: SimpleNamespace) -> Any:
    seen = ""
    sdk = client(asked)
    chunks = sdk.models.generate_content_stream(model=asked.model, contents=given.SAY_HELLO)
    for chunk in chunks:
        seen += chunk.text or ""
        if seen == "a b ":
            break
    chunks.close()
    sdk.close()
    return {"text": seen}


@worker.case
def count(asked: SimpleNamespace) -> Any:
    return {"input": client(asked).models.count_tokens(model=asked.model, contents=given.SAY_HELLO).total_tokens}


@worker.case
def embeddings(asked: SimpleNamespace) -> Any:
    done = client(asked).models.embed_content(model=asked.model, contents=list(given.INPUTS))
    return {"vectors": [one.values for one in done.embeddings]}


@worker.case
def models(asked: SimpleNamespace) -> Any:
    sdk = client(asked)
    return {"names": [model.name.removeprefix("models/") for model in sdk.models.list()]}


if __name__ == "__main__":
    worker.serve()
