"""What the provider was asked, read out of its own wire: the same words whatever the wire."""

import base64
import json
from typing import Any

import msgspec


class View(msgspec.Struct, frozen=True):
    """A request. `results` are what tools gave, by the tool's name; `images` the media type and the bytes; `tools` what each takes.

    `choice` is the tool that must be called, `last` who spoke last: `user`, `assistant` or `tool`.
    """

    wire: str
    system: str
    turns: tuple[tuple[str, str], ...]
    calls: tuple[tuple[str, dict[str, Any]], ...]
    results: tuple[tuple[str, str], ...]
    images: tuple[tuple[str, bytes], ...]
    tools: dict[str, Any]
    schema: dict[str, Any] | None
    reasons: bool
    signatures: tuple[str, ...]
    choice: str | None = None
    last: str = "user"


class _Reading:
    """Collects what a `View` holds."""

    def __init__(self) -> None:
        self.system: list[str] = []
        self.turns: list[tuple[str, str]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.results: list[tuple[str, str]] = []
        self.images: list[tuple[str, bytes]] = []
        self.signatures: list[str] = []
        self.names: dict[str, str] = {}
        self.last = "user"

    def said(self, role: str, text: str) -> None:
        if text:
            self.turns.append((role, text))
            self.last = role

    def gave(self, name: str, text: str) -> None:
        self.results.append((name, text))
        self.last = "tool"

    def called(self, id: str, name: str, arguments: dict[str, Any]) -> None:
        self.names[id] = name
        self.calls.append((name, arguments))

    def view(
        self, wire: str, tools: dict[str, Any], schema: dict[str, Any] | None, reasons: bool, choice: str | None
    ) -> View:
        return View(
            wire=wire,
            system="\n".join(self.system),
            turns=tuple(self.turns),
            calls=tuple(self.calls),
            results=tuple(self.results),
            images=tuple(self.images),
            tools=tools,
            schema=schema,
            reasons=reasons,
            signatures=tuple(self.signatures),
            choice=choice,
            last=self.last,
        )


def view(path: str, body: dict[str, Any]) -> View:
    """Read a request by its path."""
    if path.endswith("/chat/completions"):
        return _chat(body)
    if path.endswith("/completions"):
        turns = (("user", body["prompt"]),)
        return View("legacy", "", turns, (), (), (), {}, None, False, ())
    if path.endswith("/responses"):
        return _responses(body)
    if path.partition("?")[0].endswith("/messages"):
        return _anthropic(body)
    return _gemini(body)


def _chat(body: dict[str, Any]) -> View:
    seen = _Reading()
    for message in body["messages"]:
        text = _texts(message.get("content"))
        match message["role"]:
            case "system" | "developer":
                seen.system.append(text)
            case "tool":
                seen.gave(seen.names[message["tool_call_id"]], text)
            case role:
                seen.said(role, text)
        for part in message["content"] if isinstance(message.get("content"), list) else []:
            if part["type"] == "image_url":
                seen.images.append(_data_url(part["image_url"]["url"]))
        for call in message.get("tool_calls") or []:
            seen.called(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
    format = body.get("response_format") or {}
    schema = format["json_schema"]["schema"] if format.get("type") == "json_schema" else None
    functions = [tool["function"] for tool in body.get("tools") or []]
    tools = {function["name"]: function.get("parameters") for function in functions}
    choice = _named(_named(body.get("tool_choice"), "function"), "name")
    return seen.view("chat", tools, schema, body.get("reasoning_effort") is not None, choice)


def _responses(body: dict[str, Any]) -> View:
    seen = _Reading()
    if body.get("instructions"):
        seen.system.append(body["instructions"])
    given = body["input"]
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"):
            case "message":
                text = _texts(item["content"])
                if item["role"] in ("system", "developer"):
                    seen.system.append(text)
                else:
                    seen.said(item["role"], text)
                for part in item["content"] if isinstance(item["content"], list) else []:
                    if part["type"] == "input_image":
                        seen.images.append(_data_url(part["image_url"]))
            case "function_call":
                seen.called(item["call_id"], item["name"], json.loads(item["arguments"]))
            case "function_call_output":
                seen.gave(seen.names[item["call_id"]], _texts(item["output"]))
            case "reasoning":
                seen.signatures.append(item.get("encrypted_content") or "")
            case _:
                pass
    format = (body.get("text") or {}).get("format") or {}
    tools = {tool["name"]: tool.get("parameters") for tool in body.get("tools") or [] if "name" in tool}
    reasons = bool((body.get("reasoning") or {}).get("effort"))
    return seen.view("responses", tools, format.get("schema"), reasons, _named(body.get("tool_choice"), "name"))


def _anthropic(body: dict[str, Any]) -> View:
    seen = _Reading()
    if body.get("system"):
        seen.system.append(_texts(body["system"]))
    for message in body["messages"]:
        text = _texts(message["content"])
        if message["role"] == "system":
            seen.system.append(text)
        else:
            seen.said(message["role"], text)
        for block in message["content"] if isinstance(message["content"], list) else []:
            match block["type"]:
                case "image":
                    source = block["source"]
                    assert source["type"] == "base64", source
                    seen.images.append((source["media_type"], _bytes(source["data"])))
                case "tool_use":
                    assert isinstance(block["input"], dict), block
                    seen.called(block["id"], block["name"], block["input"])
                case "tool_result":
                    seen.gave(seen.names[block["tool_use_id"]], _texts(block.get("content")))
                case "thinking":
                    seen.signatures.append(block["signature"])
                case _:
                    pass
    config = body.get("output_config") or {}
    schema = (config.get("format") or body.get("output_format") or {}).get("schema")
    reasons = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive") or config.get("effort") is not None
    tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools") or []}
    return seen.view("anthropic", tools, schema, reasons, _named(body.get("tool_choice"), "name"))


def _gemini(body: dict[str, Any]) -> View:
    seen = _Reading()
    if system := _get(body, "systemInstruction"):
        seen.system.append("".join(part["text"] for part in system["parts"]))
    contents = body["contents"]
    for content in contents if isinstance(contents, list) else [contents]:
        parts = content["parts"]
        text = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
        seen.said({"model": "assistant"}.get(content.get("role", "user"), "user"), text)
        for part in parts:
            if inline := _get(part, "inlineData"):
                seen.images.append((_get(inline, "mimeType"), _bytes(inline["data"])))
            if call := _get(part, "functionCall"):
                seen.called(call["name"], call["name"], call.get("args") or {})
            if response := _get(part, "functionResponse"):
                assert isinstance(response["response"], dict), response
                seen.gave(response["name"], json.dumps(response["response"]))
            if signature := _get(part, "thoughtSignature"):
                seen.signatures.append(base64.b64encode(_bytes(signature)).decode())
    config = _get(body, "generationConfig") or {}
    thinking = _get(config, "thinkingConfig") or {}
    schema = _get(config, "responseJsonSchema") or _get(config, "responseSchema")
    declared = [one for tool in body.get("tools") or [] for one in _get(tool, "functionDeclarations") or []]
    tools = {one["name"]: _get(one, "parametersJsonSchema") or one.get("parameters") for one in declared}
    calling = _get(_get(body, "toolConfig") or {}, "functionCallingConfig") or {}
    allowed = _get(calling, "allowedFunctionNames") or []
    return seen.view("gemini", tools, schema, bool(thinking), allowed[0] if len(allowed) == 1 else None)


def _named(value: Any, name: str) -> Any:
    """A field of what may be no object."""
    return value.get(name) if isinstance(value, dict) else None


def _get(value: dict[str, Any], name: str) -> Any:
    """A field in either spelling of this wire."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return value.get(name, value.get(snake))


def _texts(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] in ("text", "input_text", "output_text"))


def _data_url(url: str) -> tuple[str, bytes]:
    head, _, data = url.partition(",")
    return head.removeprefix("data:").removesuffix(";base64"), _bytes(data)


def _bytes(data: str) -> bytes:
    """Base64 in either alphabet."""
    return base64.b64decode(data.translate(str.maketrans("-_", "+/")))
