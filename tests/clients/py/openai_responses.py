"""The official `openai` SDK, Responses."""

import json
from types import SimpleNamespace
from typing import Any

import given
import worker
from openai import OpenAI
from pydantic import BaseModel

TOOL = {
    "type": "function",
    "name": given.WEATHER,
    "description": given.WEATHER_TELLS,
    "parameters": given.WEATHER_TAKES,
    "strict": True,
}
HIDDEN = ["reasoning.encrypted_content"]


class Animal(BaseModel):
    name: str
    legs: int


def client(asked: SimpleNamespace) -> OpenAI:
    return OpenAI(base_url=f"{asked.base_url}/v1", api_key=asked.api_key, max_retries=0, timeout=20)


def counted(told: Any) -> dict[str, Any]:
    return {
        "input": told.input_tokens,
        "output": told.output_tokens,
        "cached": told.input_tokens_details.cached_tokens,
        "reasoning": told.output_tokens_details.reasoning_tokens,
    }


def thought(response: Any) -> str:
    items = [item for item in response.output if item.type == "reasoning"]
    return "".join(part.text for item in items for part in item.summary)


@worker.case
def plain(asked: SimpleNamespace) -> Any:
    done = client(asked).responses.create(model=asked.model, input=given.SAY_HELLO, store=False)
    return {"text": done.output_text, "finish": done.status}


@worker.case
def stream(asked: SimpleNamespace) -> Any:
    with client(asked).responses.stream(model=asked.model, input=given.SAY_HELLO, store=False) as events:
        seen = list(events)
        done = events.get_final_response()
    deltas = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert "".join(deltas) == done.output_text
    return {"text": "".join(deltas), "finish": done.status, "events": [event.type for event in seen]}


@worker.case
def turns(asked: SimpleNamespace) -> Any:
    messages = [{"role": role, "content": text} for role, text in given.TURNS]
    done = client(asked).responses.create(model=asked.model, input=messages, instructions=given.SYSTEM, store=False)
    return {"text": done.output_text}


@worker.case
def tools(asked: SimpleNamespace, *, streamed: bool = False, **more: Any) -> Any:
    sdk = client(asked)
    messages: list[Any] = [{"role": "user", "content": given.ASK_WEATHER}]
    calls: list[Any] = []
    while True:
        request = {"model": asked.model, "input": messages, "tools": [TOOL], "store": False, **more}
        if streamed:
            with sdk.responses.stream(**request) as events:
                done = events.get_final_response()
        else:
            done = sdk.responses.create(**request)
        asks = [item for item in done.output if item.type == "function_call"]
        if not asks:
            return {"calls": calls, "text": done.output_text}
        messages += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in done.output]
        for call in asks:
            calls.append([call.name, json.loads(call.arguments)])
            messages.append({"type": "function_call_output", "call_id": call.call_id, "output": given.SKY})


@worker.case
def tools_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True)


@worker.case
def signed(asked: SimpleNamespace) -> Any:
    return tools(asked, include=HIDDEN, reasoning={"effort": "high", "summary": "auto"})


@worker.case
def signed_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True, include=HIDDEN, reasoning={"effort": "high", "summary": "auto"})


@worker.case
def image(asked: SimpleNamespace) -> Any:
    picture = {"type": "input_image", "image_url": given.PNG_URL, "detail": "auto"}
    messages = [{"role": "user", "content": [{"type": "input_text", "text": given.LOOK}, picture]}]
    return {"text": client(asked).responses.create(model=asked.model, input=messages, store=False).output_text}


@worker.case
def structured(asked: SimpleNamespace) -> Any:
    done = client(asked).responses.parse(model=asked.model, input=given.ASK_ANIMAL, text_format=Animal, store=False)
    return {"value": done.output_parsed.model_dump()}


@worker.case
def structured_stream(asked: SimpleNamespace) -> Any:
    with client(asked).responses.stream(
        model=asked.model, input=given.ASK_ANIMAL, text_format=Animal, store=False
    ) as events:
        return {"value": events.get_final_response().output_parsed.model_dump()}


@worker.case
def reasoning(asked: SimpleNamespace) -> Any:
    done = client(asked).responses.create(
        model=asked.model, input=given.SAY_HELLO, reasoning={"effort": "high", "summary": "auto"}, store=False
    )
    return {"text": done.output_text, "reasoning": thought(done)}


@worker.case
def reasoning_stream(asked: SimpleNamespace) -> Any:
    with client(asked).responses.stream(
        model=asked.model, input=given.SAY_HELLO, reasoning={"effort": "high", "summary": "auto"}, store=False
    ) as events:
        deltas = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]
        done = events.get_final_response()
    assert "".join(deltas) == thought(done)
    return {"text": done.output_text, "reasoning": "".join(deltas)}


@worker.case
def usage(asked: SimpleNamespace) -> Any:
    return counted(client(asked).responses.create(model=asked.model, input=given.SAY_HELLO, store=False).usage)


@worker.case
def usage_stream(asked: SimpleNamespace) -> Any:
    with client(asked).responses.stream(model=asked.model, input=given.SAY_HELLO, store=False) as events:
        return counted(events.get_final_response().usage)


@worker.case
def error(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: client(asked).responses.create(model=asked.model, input=given.SAY_HELLO, store=False))


@worker.case
def error_stream(asked: SimpleNamespace) -> Any:
    return worker.refused(
        lambda: client(asked).responses.create(model=asked.model, input=given.SAY_HELLO, store=False, stream=True)
    )


@worker.case
def broken(asked: SimpleNamespace) -> Any:
    seen: list[str] = []
    ends: list[str] = []

    def read() -> None:
        for event in client(asked).responses.create(model=asked.model, input=given.SAY_HELLO, store=False, stream=True):
            if event.type == "response.output_text.delta":
                seen.append(event.delta)
            if event.type in ("response.completed", "response.incomplete"):
                ends.append(event.type)
            if event.type == "response.failed":
                raise RuntimeError(event.response.error.message)

    return {**worker.refused(read), "text": "".join(seen), "finish": ends}


@worker.case
def cancel(asked: SimpleNamespace) -> Any:
    seen = ""
    with client(asked).responses.create(model=asked.model, input=given.SAY_HELLO, store=False, stream=True) as events:
        for event in events:
            if event.type == "response.output_text.delta":
                seen += event.delta
            if seen == "a b ":
                break
    return {"text": seen}


@worker.case
def count(asked: SimpleNamespace) -> Any:
    return {"input": client(asked).responses.input_tokens.count(model=asked.model, input=given.SAY_HELLO).input_tokens}


if __name__ == "__main__":
    worker.serve()
