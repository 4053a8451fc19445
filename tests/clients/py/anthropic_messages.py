"""The official `anthropic` SDK; the same script for every major version."""

import json
from types import SimpleNamespace
from typing import Any

import given
import worker
from anthropic import Anthropic, APIStatusError
from anthropic._types import Omit

HELLO = [{"role": "user", "content": given.SAY_HELLO}]
TOOL = {"name": given.WEATHER, "description": given.WEATHER_TELLS, "input_schema": given.WEATHER_TAKES}
THINKING = {"type": "enabled", "budget_tokens": 2048}


def client(asked: SimpleNamespace) -> Anthropic:
    return Anthropic(base_url=asked.base_url, api_key=asked.api_key, max_retries=0, timeout=20)


def text(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def thought(message: Any) -> str:
    return "".join(block.thinking for block in message.content if block.type == "thinking")


def counted(told: Any) -> dict[str, Any]:
    cached, written = told.cache_read_input_tokens or 0, told.cache_creation_input_tokens or 0
    details = getattr(told, "output_tokens_details", None)
    return {
        "input": told.input_tokens + cached + written,
        "output": told.output_tokens,
        "cached": cached,
        # Older versions do not know of it.
        "reasoning": details.get("thinking_tokens")
        if isinstance(details, dict)
        else details and details.thinking_tokens,
    }


def request(asked: SimpleNamespace, **more: Any) -> dict[str, Any]:
    return {"model": asked.model, "max_tokens": 4096, "messages": HELLO, **more}


@worker.case
def plain(asked: SimpleNamespace) -> Any:
    message = client(asked).messages.create(**request(asked))
    return {"text": text(message), "finish": message.stop_reason}


@worker.case
def stream(asked: SimpleNamespace) -> Any:
    with client(asked).messages.stream(**request(asked)) as events:
        seen = "".join(events.text_stream)
        message = events.get_final_message()
    assert seen == text(message)
    return {"text": seen, "finish": message.stop_reason}


@worker.case
def events(asked: SimpleNamespace) -> Any:
    """The raw events, as coding agents read them."""
    with client(asked).messages.create(**request(asked, stream=True, **getattr(asked, "more", {}))) as raw:
        return {"events": [json.loads(event.model_dump_json(exclude_unset=True)) for event in raw]}


@worker.case
def turns(asked: SimpleNamespace) -> Any:
    messages = [{"role": role, "content": told} for role, told in given.TURNS]
    return {"text": text(client(asked).messages.create(**request(asked, system=given.SYSTEM, messages=messages)))}


@worker.case
def tools(asked: SimpleNamespace, *, streamed: bool = False, **more: Any) -> Any:
    sdk = client(asked)
    messages: list[Any] = [{"role": "user", "content": given.ASK_WEATHER}]
    calls: list[Any] = []
    while True:
        asking = request(asked, messages=messages, tools=[TOOL], **more)
        if streamed:
            with sdk.messages.stream(**asking) as stream:
                message = stream.get_final_message()
        else:
            message = sdk.messages.create(**asking)
        if message.stop_reason != "tool_use":
            return {"calls": calls, "text": text(message)}
        messages.append({"role": "assistant", "content": message.content})
        asks = [block for block in message.content if block.type == "tool_use"]
        calls += [[call.name, call.input] for call in asks]
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": given.SKY} for call in asks]
        messages.append({"role": "user", "content": results})


@worker.case
def tools_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True)


@worker.case
def signed(asked: SimpleNamespace) -> Any:
    return tools(asked, thinking=THINKING)


@worker.case
def signed_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True, thinking=THINKING)


@worker.case
def image(asked: SimpleNamespace) -> Any:
    source = {"type": "base64", "media_type": "image/png", "data": given.PNG_BASE64}
    content = [{"type": "image", "source": source}, {"type": "text", "text": given.LOOK}]
    return {
        "text": text(client(asked).messages.create(**request(asked, messages=[{"role": "user", "content": content}])))
    }


@worker.case
def structured(asked: SimpleNamespace) -> Any:
    messages = [{"role": "user", "content": given.ASK_ANIMAL}]
    format = {"type": "json_schema", "schema": given.ANIMAL}
    message = client(asked).messages.create(**request(asked, messages=messages, output_config={"format": format}))
    return {"value": json.loads(text(message))}


@worker.case
def structured_stream(asked: SimpleNamespace) -> Any:
    messages = [{"role": "user", "content": given.ASK_ANIMAL}]
    format = {"type": "json_schema", "schema": given.ANIMAL}
    with client(asked).messages.stream(**request(asked, messages=messages, output_config={"format": format})) as stream:
        return {"value": json.loads("".join(stream.text_stream))}


@worker.case
def reasoning(asked: SimpleNamespace) -> Any:
    message = client(asked).messages.create(**request(asked, thinking=THINKING))
    return {"text": text(message), "reasoning": thought(message)}


@worker.case
def reasoning_stream(asked: SimpleNamespace) -> Any:
    with client(asked).messages.stream(**request(asked, thinking=THINKING)) as stream:
        deltas = [event.thinking for event in stream if event.type == "thinking"]
        message = stream.get_final_message()
    assert "".join(deltas) == thought(message)
    return {"text": text(message), "reasoning": "".join(deltas)}


@worker.case
def usage(asked: SimpleNamespace) -> Any:
    return counted(client(asked).messages.create(**request(asked)).usage)


@worker.case
def usage_stream(asked: SimpleNamespace) -> Any:
    with client(asked).messages.stream(**request(asked)) as stream:
        return counted(stream.get_final_message().usage)


@worker.case
def error(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: client(asked).messages.create(**request(asked)))


@worker.case
def error_stream(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: client(asked).messages.create(**request(asked, stream=True)))


@worker.case
def broken(asked: SimpleNamespace) -> Any:
    seen: list[str] = []
    ends: list[str] = []

    def read() -> None:
        for event in client(asked).messages.create(**request(asked, stream=True)):
            if event.type == "content_block_delta":
                seen.append(event.delta.text)
            if event.type in ("message_delta", "message_stop"):
                ends.append(event.type)
        # The SDK takes a body that ends early for the end: what reads it must miss `message_stop`.
        if "message_stop" not in ends:
            raise RuntimeError("the stream ended without message_stop")

    return {**worker.refused(read), "text": "".join(seen), "finish": ends}


@worker.case
def cancel(asked: SimpleNamespace) -> Any:
    seen = ""
    with client(asked).messages.stream(**request(asked)) as stream:
        for piece in stream.text_stream:
            seen += piece
            if seen == "a b ":
                break
    return {"text": seen}


@worker.case
def count(asked: SimpleNamespace) -> Any:
    return {"input": client(asked).messages.count_tokens(model=asked.model, messages=HELLO).input_tokens}


@worker.case
def models(asked: SimpleNamespace) -> Any:
    return {"names": [model.id for model in client(asked).models.list()]}


@worker.case
def other_header(asked: SimpleNamespace) -> Any:
    """The key in one header and not in the other, whichever this version would use by itself."""
    headers: dict[str, Any] = {"X-Api-Key": asked.api_key, "Authorization": Omit()}
    if asked.header == "authorization":
        headers = {"X-Api-Key": Omit(), "Authorization": f"Bearer {asked.api_key}"}
    sdk = Anthropic(base_url=asked.base_url, api_key="unused", default_headers=headers, max_retries=0)
    return {"text": text(sdk.messages.create(**request(asked)))}


@worker.case
def short_time(asked: SimpleNamespace) -> Any:
    """What becomes of calls that give themselves little time in a header."""
    headers = {"X-Cauce-Timeout": asked.seconds}
    sdk = Anthropic(base_url=asked.base_url, api_key=asked.api_key, default_headers=headers, max_retries=0, timeout=20)
    try:
        return {"text": text(sdk.messages.create(**request(asked)))}
    except APIStatusError as error:
        return {"status": error.status_code, "told": error.body}


if __name__ == "__main__":
    worker.serve()
