"""The official `openai` SDK, Chat Completions."""

import contextlib
import json
from types import SimpleNamespace
from typing import Any

import given
import worker
from openai import OpenAI
from pydantic import BaseModel

HELLO = [{"role": "user", "content": given.SAY_HELLO}]
TOOL = {
    "type": "function",
    "function": {"name": given.WEATHER, "description": given.WEATHER_TELLS, "parameters": given.WEATHER_TAKES},
}


class Animal(BaseModel):
    name: str
    legs: int


def client(asked: SimpleNamespace) -> OpenAI:
    return OpenAI(base_url=f"{asked.base_url}/v1", api_key=asked.api_key, max_retries=0, timeout=20)


def counted(told: Any) -> dict[str, Any]:
    prompt, completion = told.prompt_tokens_details, told.completion_tokens_details
    return {
        "input": told.prompt_tokens,
        "output": told.completion_tokens,
        "cached": prompt and prompt.cached_tokens,
        "reasoning": completion and completion.reasoning_tokens,
    }


@worker.case
def plain(asked: SimpleNamespace) -> Any:
    done = client(asked).chat.completions.create(model=asked.model, messages=HELLO)
    return {"text": done.choices[0].message.content, "finish": done.choices[0].finish_reason}


@worker.case
def stream(asked: SimpleNamespace) -> Any:
    chunks = client(asked).chat.completions.create(model=asked.model, messages=HELLO, stream=True)
    choices = [chunk.choices[0] for chunk in chunks]
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "finish": [choice.finish_reason for choice in choices if choice.finish_reason],
    }


@worker.case
def turns(asked: SimpleNamespace) -> Any:
    messages = [{"role": role, "content": text} for role, text in (("system", given.SYSTEM), *given.TURNS)]
    done = client(asked).chat.completions.create(model=asked.model, messages=messages)
    return {"text": done.choices[0].message.content}


@worker.case
def tools(asked: SimpleNamespace, *, streamed: bool = False) -> Any:
    sdk = client(asked)
    messages: list[Any] = [{"role": "user", "content": given.ASK_WEATHER}]
    calls: list[Any] = []
    while True:
        request = {"model": asked.model, "messages": messages, "tools": [TOOL]}
        if streamed:
            with sdk.chat.completions.stream(**request) as stream:
                choice = stream.get_final_completion().choices[0]
        else:
            choice = sdk.chat.completions.create(**request).choices[0]
        if choice.finish_reason != "tool_calls":
            return {"calls": calls, "text": choice.message.content}
        messages.append(choice.message.model_dump(exclude_none=True, exclude={"parsed"}))
        for call in choice.message.tool_calls or []:
            calls.append([call.function.name, json.loads(call.function.arguments)])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": given.SKY})


@worker.case
def tools_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True)


@worker.case
def image(asked: SimpleNamespace) -> Any:
    picture = {"type": "image_url", "image_url": {"url": given.PNG_URL}}
    messages = [{"role": "user", "content": [{"type": "text", "text": given.LOOK}, picture]}]
    done = client(asked).chat.completions.create(model=asked.model, messages=messages)
    return {"text": done.choices[0].message.content}


@worker.case
def structured(asked: SimpleNamespace) -> Any:
    messages = [{"role": "user", "content": given.ASK_ANIMAL}]
    done = client(asked).chat.completions.parse(model=asked.model, messages=messages, response_format=Animal)
    return {"value": done.choices[0].message.parsed.model_dump()}


@worker.case
def structured_stream(asked: SimpleNamespace) -> Any:
    messages = [{"role": "user", "content": given.ASK_ANIMAL}]
    with client(asked).chat.completions.stream(model=asked.model, messages=messages, response_format=Animal) as stream:
        return {"value": stream.get_final_completion().choices[0].message.parsed.model_dump()}


@worker.case
def reasoning(asked: SimpleNamespace) -> Any:
    done = client(asked).chat.completions.create(model=asked.model, messages=HELLO, reasoning_effort="high")
    message = done.choices[0].message
    return {"text": message.content, "reasoning": message.model_extra.get("reasoning_content")}


@worker.case
def reasoning_stream(asked: SimpleNamespace) -> Any:
    chunks = client(asked).chat.completions.create(
        model=asked.model, messages=HELLO, reasoning_effort="high", stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    return {
        "text": "".join(delta.content or "" for delta in deltas),
        "reasoning": "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas),
    }


@worker.case
def usage(asked: SimpleNamespace) -> Any:
    return counted(client(asked).chat.completions.create(model=asked.model, messages=HELLO).usage)


@worker.case
def usage_stream(asked: SimpleNamespace) -> Any:
    chunks = client(asked).chat.completions.create(
        model=asked.model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    return counted([chunk.usage for chunk in chunks if chunk.usage][-1])


@worker.case
def error(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: client(asked).chat.completions.create(model=asked.model, messages=HELLO))


@worker.case
def error_stream(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: client(asked).chat.completions.create(model=asked.model, messages=HELLO, stream=True))


@worker.case
def broken(asked: SimpleNamespace) -> Any:
    seen: list[str] = []
    ends: list[Any] = []

    def read() -> None:
        for chunk in client(asked).chat.completions.create(model=asked.model, messages=HELLO, stream=True):
            seen.append(chunk.choices[0].delta.content or "")
            ends.append(chunk.choices[0].finish_reason)

    return {**worker.refused(read), "text": "".join(seen), "finish": [end for end in ends if end]}


@worker.case
def cancel(asked: SimpleNamespace) -> Any:
    seen = ""
    chunks = client(asked).chat.completions.create(model=asked.model, messages=HELLO, stream=True)
    with contextlib.closing(chunks):
        for chunk in chunks:
            seen += chunk.choices[0].delta.content or ""
            if seen == "a b ":
                break
    return {"text": seen}


@worker.case
def embeddings(asked: SimpleNamespace) -> Any:
    done = client(asked).embeddings.create(model=asked.model, input=list(given.INPUTS))
    return {"vectors": [one.embedding for one in done.data], "input": done.usage.prompt_tokens}


@worker.case
def models(asked: SimpleNamespace) -> Any:
    return {"names": [model.id for model in client(asked).models.list()]}


@worker.case
def legacy(asked: SimpleNamespace) -> Any:
    done = client(asked).completions.create(model=asked.model, prompt=given.SAY_HELLO)
    return {"text": done.choices[0].text, "finish": done.choices[0].finish_reason}


@worker.case
def legacy_stream(asked: SimpleNamespace) -> Any:
    chunks = client(asked).completions.create(model=asked.model, prompt=given.SAY_HELLO, stream=True)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return {
        "text": "".join(choice.text for choice in choices),
        "finish": [choice.finish_reason for choice in choices if choice.finish_reason],
    }


if __name__ == "__main__":
    worker.serve()
