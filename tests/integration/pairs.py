"""The same conversation in the words of each wire, and what a body of each wire says, read by hand."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.json import decode

DATA = "iVBORw0KGgo="
PDF = "JVBERi0="
IMAGE_URL = f"data:image/png;base64,{DATA}"
PDF_URL = f"data:application/pdf;base64,{PDF}"
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


class Facts(msgspec.Struct, eq=True):
    """What a request says. `turns` are of `(kind, …)`; of neighbours of one kind nobody cares how many messages they are."""

    system: list[str] = []
    turns: list[tuple[Any, ...]] = []
    tools: list[str] = []
    choice: str | None = None
    schema: Any = None
    stop: list[str] = []
    max_tokens: int | None = None


def facts(name: str = "look", choice: str | None = None, *, failed: bool = True, image: bool = True) -> Facts:
    """The conversation that each client of `CLIENTS` sends."""
    seen: list[tuple[Any, ...]] = [("result", "2", "seen", False)]
    return Facts(
        ["Sys.", "Dev."],
        [
            ("user", "Look."),
            ("image", DATA),
            ("file", PDF),
            ("assistant", "I look."),
            ("call", "1", name, {"x": 1}),
            ("call", "2", name, {"x": 2}),
            *([*seen, ("image", DATA)] if image else seen),
            ("result", "1", {"v": 1} if not failed else "bad", failed),
            ("user", "Go on."),
            ("assistant", "And again."),
            ("call", "3", name, {}),
            ("result", "3", {"v": [1, 2]}, False),
        ],
        [name],
        name if choice is None else choice,
        SCHEMA,
        ["END"],
        100,
    )


def chat(model: str, name: str, ids: list[str]) -> dict[str, Any]:
    """In Chat Completions. It cannot say that a tool failed."""

    def call(place: int, arguments: str) -> dict[str, Any]:
        return {"id": ids[place], "type": "function", "function": {"name": name, "arguments": arguments}}

    return {
        "model": model,
        "messages": [
            {"role": "system", "content": "Sys."},
            {"role": "developer", "content": "Dev."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look."},
                    {"type": "image_url", "image_url": {"url": IMAGE_URL}},
                    {"type": "file", "file": {"file_data": PDF_URL, "filename": "a.pdf"}},
                ],
            },
            {"role": "assistant", "content": "I look.", "tool_calls": [call(0, '{"x": 1}'), call(1, '{"x":2}')]},
            {
                "role": "tool",
                "tool_call_id": ids[1],
                "content": [
                    {"type": "text", "text": "seen"},
                    {"type": "image_url", "image_url": {"url": IMAGE_URL}},
                ],
            },
            {"role": "tool", "tool_call_id": ids[0], "content": '{"v":1}'},
            {"role": "user", "content": "Go on."},
            {"role": "assistant", "content": "And again.", "tool_calls": [call(2, "")]},
            {"role": "tool", "tool_call_id": ids[2], "content": '{"v":[1,2]}'},
        ],
        "tools": [{"type": "function", "function": {"name": name, "parameters": SCHEMA}}],
        "tool_choice": {"type": "function", "function": {"name": name}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        "stop": ["END"],
        "max_tokens": 100,
    }


def responses(model: str, name: str, ids: list[str]) -> dict[str, Any]:
    """In Responses. It cannot say that a tool failed, and has no stop sequences."""

    def call(place: int, arguments: str) -> dict[str, Any]:
        return {"type": "function_call", "call_id": ids[place], "name": name, "arguments": arguments}

    def result(place: int, output: Any) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": ids[place], "output": output}

    image = {"type": "input_image", "image_url": IMAGE_URL}
    return {
        "model": model,
        "instructions": "Sys.",
        "input": [
            {"role": "developer", "content": "Dev."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look."},
                    image,
                    {"type": "input_file", "file_data": PDF_URL, "filename": "a.pdf"},
                ],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            call(0, '{"x": 1}'),
            call(1, '{"x":2}'),
            result(1, [{"type": "input_text", "text": "seen"}, image]),
            result(0, '{"v":1}'),
            {"role": "user", "content": "Go on."},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "And again."}]},
            call(2, ""),
            result(2, '{"v":[1,2]}'),
        ],
        "tools": [{"type": "function", "name": name, "parameters": SCHEMA}],
        "tool_choice": {"type": "function", "name": name},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}},
        "max_output_tokens": 100,
    }


def messages(model: str, name: str, ids: list[str]) -> dict[str, Any]:
    """In Anthropic's Messages."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": PDF}

    def use(place: int, given: dict[str, Any]) -> dict[str, Any]:
        return {"type": "tool_use", "id": ids[place], "name": name, "input": given}

    def result(place: int, content: Any, **more: Any) -> dict[str, Any]:
        return {"type": "tool_result", "tool_use_id": ids[place], "content": content, **more}

    return {
        "model": model,
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Sys."}, {"type": "text", "text": "Dev."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look."},
                    image,
                    {"type": "document", "source": pdf, "title": "a.pdf"},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "I look."}, use(0, {"x": 1}), use(1, {"x": 2})],
            },
            {
                "role": "user",
                "content": [
                    result(1, [{"type": "text", "text": "seen"}, image]),
                    result(0, "bad", is_error=True),
                    {"type": "text", "text": "Go on."},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "And again."}, use(2, {})]},
            {"role": "user", "content": [result(2, '{"v":[1,2]}')]},
        ],
        "tools": [{"name": name, "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": name},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "stop_sequences": ["END"],
    }


def gemini(model: str, name: str, ids: list[str]) -> dict[str, Any]:
    """In Gemini's generateContent."""
    image = {"inlineData": {"mimeType": "image/png", "data": DATA}}
    pdf = {"inlineData": {"mimeType": "application/pdf", "data": PDF}}

    def call(place: int, args: dict[str, Any]) -> dict[str, Any]:
        return {"functionCall": {"id": ids[place], "name": name, "args": args}}

    def result(place: int, response: Any, **more: Any) -> dict[str, Any]:
        return {"functionResponse": {"id": ids[place], "name": name, "response": response, **more}}

    return {
        "systemInstruction": {"parts": [{"text": "Sys."}, {"text": "Dev."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Look."}, image, pdf]},
            {"role": "model", "parts": [{"text": "I look."}, call(0, {"x": 1}), call(1, {"x": 2})]},
            {
                "role": "user",
                "parts": [result(1, {"result": "seen"}, parts=[image]), result(0, {"error": "bad"})],
            },
            {"role": "user", "parts": [{"text": "Go on."}]},
            {"role": "model", "parts": [{"text": "And again."}, call(2, {})]},
            {"role": "user", "parts": [result(2, {"v": [1, 2]})]},
        ],
        "tools": [{"functionDeclarations": [{"name": name, "parametersJsonSchema": SCHEMA}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [name]}},
        "generationConfig": {
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
            "stopSequences": ["END"],
            "maxOutputTokens": 100,
        },
    }


class _Ids:
    """Ids of calls as the number of the call, wherever they come again."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, call_id: str) -> str:
        return self._known[call_id]

    def new(self, call_id: str) -> str:
        assert call_id not in self._known
        self._known[call_id] = str(len(self._known) + 1)
        return self._known[call_id]


def _value(text: str) -> Any:
    try:
        return decode(text)
    except msgspec.DecodeError:
        return text


def _data(url: str) -> str:
    return url.partition(",")[2]


def read_chat(body: dict[str, Any]) -> Facts:
    """What a body of Chat Completions says."""
    found, ids = Facts(), _Ids()
    for message in body["messages"]:
        content = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        kind = message["role"]
        for part in parts:
            match part:
                case {"type": "text", "text": text} if kind in ("system", "developer"):
                    found.system.append(text)
                case {"type": "text", "text": text} if kind == "tool":
                    found.turns.append(("result", ids.of(message["tool_call_id"]), _value(text), False))
                case {"type": "text", "text": text}:
                    found.turns.append((kind, text))
                case {"type": "image_url"}:
                    found.turns.append(("image", _data(part["image_url"]["url"])))
                case _:
                    found.turns.append(("file", _data(part["file"]["file_data"])))
        for call in message.get("tool_calls", ()):
            arguments = _value(call["function"]["arguments"] or "{}")
            found.turns.append(("call", ids.new(call["id"]), call["function"]["name"], arguments))
    found.tools = [tool["function"]["name"] for tool in body["tools"]]
    found.choice = body["tool_choice"]["function"]["name"]
    found.schema = body["response_format"]["json_schema"]["schema"]
    found.stop, found.max_tokens = body.get("stop", []), body["max_tokens"]
    return found


def read_responses(body: dict[str, Any]) -> Facts:
    """What a body of Responses says."""
    found, ids = Facts(), _Ids()
    if "instructions" in body:
        found.system.append(body["instructions"])

    def said(kind: str, content: Any, result: str = "") -> None:
        for part in [{"type": "input_text", "text": content}] if isinstance(content, str) else content:
            match part:
                case {"text": text} if kind in ("system", "developer"):
                    found.system.append(text)
                case {"text": text}:
                    found.turns.append(("result", result, _value(text), False) if result else (kind, text))
                case {"type": "input_image", "image_url": url}:
                    found.turns.append(("image", _data(url)))
                case _:
                    found.turns.append(("file", _data(part["file_data"])))

    for item in body["input"]:
        match item:
            case {"type": "function_call"}:
                arguments = _value(item["arguments"] or "{}")
                found.turns.append(("call", ids.new(item["call_id"]), item["name"], arguments))
            case {"type": "function_call_output"}:
                said("tool", item["output"], ids.of(item["call_id"]))
            case _:
                said(item["role"], item["content"])
    found.tools = [tool["name"] for tool in body["tools"]]
    found.choice = body["tool_choice"]["name"]
    found.schema = body["text"]["format"]["schema"]
    found.max_tokens = body["max_output_tokens"]
    return found


def read_messages(body: dict[str, Any]) -> Facts:
    """What a body of Anthropic's Messages says."""
    found, ids = Facts(), _Ids()
    system = body["system"]
    found.system = [system] if isinstance(system, str) else [block["text"] for block in system]

    def said(kind: str, content: Any, result: tuple[str, bool] | None = None) -> None:
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            match block:
                case {"type": "text", "text": text}:
                    told = (kind, text) if result is None else ("result", result[0], _value(text), result[1])
                    found.turns.append(told)
                case {"type": "image"}:
                    found.turns.append(("image", block["source"]["data"]))
                case {"type": "document"}:
                    found.turns.append(("file", block["source"]["data"]))
                case {"type": "tool_use"}:
                    found.turns.append(("call", ids.new(block["id"]), block["name"], block["input"]))
                case _:
                    said(kind, block["content"], (ids.of(block["tool_use_id"]), block.get("is_error", False)))

    for message in body["messages"]:
        said(message["role"], message["content"])
    found.tools = [tool["name"] for tool in body["tools"]]
    found.choice = body["tool_choice"]["name"]
    found.schema = body["output_config"]["format"]["schema"]
    found.stop, found.max_tokens = body.get("stop_sequences", []), body["max_tokens"]
    return found


def read_gemini(body: dict[str, Any]) -> Facts:
    """What a body of Gemini's generateContent says."""
    found, ids = Facts(), _Ids()
    found.system = [part["text"] for part in body["systemInstruction"]["parts"]]
    for content in body["contents"]:
        for part in content["parts"]:
            match part:
                case {"text": text}:
                    found.turns.append(("assistant" if content["role"] == "model" else "user", text))
                case {"inlineData": {"mimeType": media, "data": data}}:
                    found.turns.append(("image" if media.startswith("image/") else "file", data))
                case {"functionCall": call}:
                    found.turns.append(("call", ids.new(call["id"]), call["name"], call["args"]))
                case _:
                    found.turns.extend(_result(part["functionResponse"], ids))
    found.tools = [tool["name"] for tool in body["tools"][0]["functionDeclarations"]]
    (found.choice,) = body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"]
    config = body["generationConfig"]
    found.schema, found.stop = config["responseJsonSchema"], config.get("stopSequences", [])
    found.max_tokens = config["maxOutputTokens"]
    return found


def _result(result: dict[str, Any], ids: _Ids) -> list[tuple[Any, ...]]:
    response = result["response"]
    failed = response.keys() == {"error"}
    value = response["error"] if failed else response.get("result", response)
    images = [("image", part["inlineData"]["data"]) for part in result.get("parts", ())]
    return [("result", ids.of(result["id"]), value, failed), *images]


class Client(msgspec.Struct, frozen=True):
    """`fails`: it can say that a tool failed; `stops`: it has stop sequences."""

    path: str
    body: Callable[[str, str, list[str]], dict[str, Any]]
    fails: bool = False
    stops: bool = True


CLIENTS = {
    "chat": Client("/v1/chat/completions", chat),
    "responses": Client("/v1/responses", responses, stops=False),
    "messages": Client("/v1/messages", messages, fails=True),
    "gemini": Client("/v1beta/models/{model}:generateContent", gemini, fails=True),
}
READERS = {
    "gpt/m": read_chat,
    "res/m": read_responses,
    "claude/claude-haiku-4-5": read_messages,
    "gem/gemini-3-pro": read_gemini,
}
"""By model: how what its provider is asked is read."""

FAILS = ("claude/claude-haiku-4-5", "gem/gemini-3-pro")
"""Those that can be told that a tool failed."""
