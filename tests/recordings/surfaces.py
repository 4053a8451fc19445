"""Asking Cauce in each wire it is asked in, and putting the answer together by hand as that wire's clients do."""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from tests.http import Response, ask
from tests.recordings.normal import Meaning, finish_word, usage, value

_HELLO = "Say hello."


class Surface(msgspec.Struct, frozen=True):
    """`path` and `body` for a model, asked plain or streamed; `read` puts the answer together."""

    name: str
    path: Callable[[str, bool], str]
    body: Callable[[str, bool], dict[str, Any]]
    plain: Callable[[dict[str, Any]], Meaning]
    streamed: Callable[[list[dict[str, Any]]], Meaning]
    is_error: Callable[[dict[str, Any]], bool]

    async def ask(self, port: int, model: str, stream: bool) -> Meaning:
        """What a client of this wire gets to see of `model`'s answer."""
        response = await ask(port, "POST", self.path(model, stream), self.body(model, stream))
        if response.status != 200:
            assert response.status < 500 or response.status in (502, 503, 504), response.body
            return Meaning(failed=True)
        if not stream:
            return self.plain(response.json())
        events = _events(response)
        if any(self.is_error(event) for event in events):
            return Meaning(failed=True)
        assert response.complete, "the stream was broken off without an error in it"
        return self.streamed(events)


def _events(response: Response) -> list[dict[str, Any]]:
    lines = response.body.decode().split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def _chat_plain(body: dict[str, Any]) -> Meaning:
    choice = body["choices"][0]
    message = choice["message"]
    calls = [
        (call["function"]["name"], value(call["function"]["arguments"]))
        if call["type"] == "function"
        else (call["custom"]["name"], {"input": call["custom"]["input"]})
        for call in message.get("tool_calls") or ()
    ]
    refusal = message.get("refusal") or ""
    finish = "content_filter" if refusal else finish_word(choice["finish_reason"], calls)
    text = (message["content"] or "") + refusal
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    return Meaning(text, reasoning, calls, finish, usage(body["usage"]))


def _chat_streamed(chunks: list[dict[str, Any]]) -> Meaning:
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "refusal": "", "tool_calls": {}}
    finish, used = None, None
    for chunk in chunks:
        used = chunk.get("usage") or used
        for choice in chunk["choices"]:
            if choice["index"]:
                continue
            finish = choice["finish_reason"] or finish
            delta = choice["delta"]
            for name in ("content", "refusal"):
                message[name] += delta.get(name) or ""
            message["reasoning_content"] += delta.get("reasoning_content") or delta.get("reasoning") or ""
            for call in delta.get("tool_calls") or ():
                known = message["tool_calls"].setdefault(
                    call["index"], {"type": call.get("type"), "name": "", "text": ""}
                )
                inner = call.get("function") or call.get("custom") or {}
                known["name"] += inner.get("name") or ""
                known["text"] += inner.get("arguments") or inner.get("input") or ""
    calls = [
        (call["name"], {"input": call["text"]} if call["type"] == "custom" else value(call["text"]))
        for call in message["tool_calls"].values()
    ]
    word = "content_filter" if message["refusal"] else finish_word(finish, calls)
    return Meaning(message["content"] + message["refusal"], message["reasoning_content"], calls, word, usage(used))


def _chat_body(model: str, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": _HELLO}]}
    return {**body, "stream": True, "stream_options": {"include_usage": True}} if stream else body


def _response(body: dict[str, Any]) -> Meaning:
    text, reasoning, refusal = "", "", ""
    calls: list[tuple[str, Any]] = []
    for item in body["output"]:
        match item["type"]:
            case "message":
                text += "".join([part["text"] for part in item["content"] if part["type"] == "output_text"])
                refusal += "".join([part["refusal"] for part in item["content"] if part["type"] == "refusal"])
            case "reasoning":
                reasoning += "".join([part["text"] for part in item["summary"]])
                reasoning += "".join([part["text"] for part in item.get("content") or ()])
            case "function_call":
                calls.append((item["name"], value(item["arguments"])))
            case "custom_tool_call":
                calls.append((item["name"], {"input": item["input"]}))
            case _:
                continue
    reason = (body.get("incomplete_details") or {}).get("reason")
    finish = "content_filter" if refusal else finish_word(reason or body["status"], calls)
    return Meaning(text + refusal, reasoning, calls, finish, usage(body["usage"]))


def _response_streamed(events: list[dict[str, Any]]) -> Meaning:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]
    assert last["type"] in ("response.completed", "response.incomplete")
    return _response(last["response"])


def _message(body: dict[str, Any]) -> Meaning:
    blocks: list[dict[str, Any]] = body["content"]
    text = "".join([block["text"] for block in blocks if block["type"] == "text"])
    reasoning = "".join([block["thinking"] for block in blocks if block["type"] == "thinking"])
    calls = [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    return Meaning(text, reasoning, calls, finish_word(body["stop_reason"], calls), usage(body["usage"]))


def _message_streamed(events: list[dict[str, Any]]) -> Meaning:
    message: dict[str, Any] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append({**event["content_block"], "pieces": ""})
            case "content_block_delta":
                block, delta = message["content"][event["index"]], event["delta"]
                match delta["type"]:
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        block["thinking"] += delta["thinking"]
                    case "input_json_delta":
                        block["pieces"] += delta["partial_json"]
                    case _:
                        continue
            case "content_block_stop":
                block = message["content"][event["index"]]
                if block["type"] == "tool_use":
                    block["input"] = json.loads(block["pieces"] or "{}")
            case "message_delta":
                message.update(event["delta"])
                message["usage"].update({name: count for name, count in event["usage"].items() if count is not None})
            case _:
                continue
    assert events[-1]["type"] == "message_stop"
    return _message(message)


def _message_body(model: str, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": _HELLO}]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    return {"model": model, "max_tokens": 2048, "messages": messages, "thinking": thinking, "stream": stream}


def _gemini(parts: list[dict[str, Any]], last: dict[str, Any]) -> Meaning:
    text = "".join([part["text"] for part in parts if "text" in part and not part.get("thought")])
    reasoning = "".join([part["text"] for part in parts if "text" in part and part.get("thought")])
    calls = [(part["functionCall"]["name"], part["functionCall"]["args"]) for part in parts if "functionCall" in part]
    feedback = (last.get("promptFeedback") or {}).get("blockReason")
    candidates = last.get("candidates") or [{}]
    finish = "content_filter" if feedback else finish_word(candidates[0].get("finishReason"), calls)
    return Meaning(text, reasoning, calls, finish, usage(last.get("usageMetadata")))


def _first(answer: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = [one for one in answer.get("candidates") or () if not one.get("index")]
    return (candidates[0].get("content") or {}).get("parts") or [] if candidates else []


def _gemini_streamed(answers: list[dict[str, Any]]) -> Meaning:
    return _gemini([part for answer in answers for part in _first(answer)], answers[-1])


def _gemini_body(model: str, stream: bool) -> dict[str, Any]:
    thoughts = {"thinkingConfig": {"includeThoughts": True}}
    return {"contents": [{"role": "user", "parts": [{"text": _HELLO}]}], "generationConfig": thoughts}


def _native(body: dict[str, Any]) -> Meaning:
    calls = [(call["name"], value(call["arguments"])) for call in body.get("tool_calls") or ()]
    told = (body["usage"]["input_tokens"], body["usage"]["cached_tokens"], body["usage"]["output_tokens"])
    return Meaning(body["response"], body.get("reasoning") or "", calls, body["finish_reason"], told)


def _native_streamed(frames: list[dict[str, Any]]) -> Meaning:
    last = frames[-1]
    assert last["type"] == "complete"
    reasoning = "".join([frame["data"] for frame in frames if frame["type"] == "thinking"])
    ready = [frame["data"] for frame in frames if frame["type"] == "tool_call" and frame["mark"] == "ready"]
    return _native(
        {**last, "response": last["data"], "reasoning": reasoning, "tool_calls": ready},
    )


def _plain_messages(model: str, stream: bool) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": _HELLO}], "stream": stream}


def _responses_body(model: str, stream: bool) -> dict[str, Any]:
    return {"model": model, "input": _HELLO, "stream": stream, "reasoning": {"summary": "auto"}}


SURFACES = (
    Surface(
        "chat",
        lambda model, stream: "/v1/chat/completions",
        _chat_body,
        _chat_plain,
        _chat_streamed,
        lambda event: "error" in event,
    ),
    Surface(
        "responses",
        lambda model, stream: "/v1/responses",
        _responses_body,
        _response,
        _response_streamed,
        lambda event: event["type"] in ("error", "response.failed"),
    ),
    Surface(
        "messages",
        lambda model, stream: "/v1/messages",
        _message_body,
        _message,
        _message_streamed,
        lambda event: event["type"] == "error",
    ),
    Surface(
        "gemini",
        lambda model, stream: (
            f"/v1beta/models/{model}:streamGenerateContent?alt=sse"
            if stream
            else f"/v1beta/models/{model}:generateContent"
        ),
        _gemini_body,
        lambda body: _gemini(_first(body), body),
        _gemini_streamed,
        lambda event: "error" in event,
    ),
    Surface(
        "native",
        lambda model, stream: "/llm/message",
        _plain_messages,
        _native,
        _native_streamed,
        lambda event: bool(event.get("final_error")),
    ),
)
