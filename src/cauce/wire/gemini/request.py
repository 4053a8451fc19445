"""Requests of this wire: what clients send us and what we send upstream."""

from typing import Annotated, Any, cast

import msgspec

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, ResponseFormat, Sampling
from cauce.domain.tool import OpaqueTool, Tool, ToolChoice
from cauce.wire.dropping import dropped, known_tools
from cauce.wire.fields import check, decode_object
from cauce.wire.gemini.models import traits
from cauce.wire.gemini.names import WIRE, camel, items, member, own
from cauce.wire.gemini.parts import parse_contents, render_contents, render_system
from cauce.wire.gemini.schemas import json_schema
from cauce.wire.gemini.thinking import parse_thinking, render_thinking

Count = Annotated[int, msgspec.Meta(ge=0)]


class GenerationConfig(msgspec.Struct, rename="camel"):
    """How tokens are drawn, as far as we act on it."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: Count | None = None
    max_output_tokens: Count | None = None
    stop_sequences: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool | None = None
    logprobs: Count | None = None
    response_mime_type: str | None = None
    response_json_schema: dict[str, Any] | None = None
    response_schema: dict[str, Any] | None = None
    thinking_config: dict[str, Any] | None = None


class GenerateContentBody(msgspec.Struct, rename="camel"):
    """Body of `:generateContent`. Snake case is taken too; fields not listed here go to upstreams of the same wire."""

    contents: list[dict[str, Any]] | dict[str, Any] | str
    system_instruction: dict[str, Any] | str | None = None
    tools: list[dict[str, Any]] | dict[str, Any] = []
    tool_config: dict[str, Any] | None = None
    generation_config: GenerationConfig | None = None


_BODY = frozenset(GenerateContentBody.__struct_encode_fields__)
_CONFIG = frozenset(GenerationConfig.__struct_encode_fields__)
_FORM = ("responseMimeType", "responseSchema", "responseJsonSchema")
_JSON = "application/json"
_DECLARATION = frozenset({"name", "description", "parameters", "parametersJsonSchema"})
_MODES = {"AUTO": "auto", "NONE": "none", "ANY": "required", "VALIDATED": "auto"}


def parse_request(body: bytes, model: str, *, stream: bool) -> Request:
    """The request in `body`. Raises `InvalidRequest` naming the field."""
    try:
        return _request(decode_object(body), model, stream=stream)
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error


def _request(body: dict[str, Any], model: str, *, stream: bool) -> Request:
    raw: dict[str, Any] = camel(body)
    if "generateContentRequest" in raw:
        # What counting tokens may wrap it in.
        raw = member(raw, "generateContentRequest")
        raw.pop("model", None)
    raw = {name: value for name, value in raw.items() if value is not None}
    given = check(raw, GenerateContentBody, strict=False)
    config = given.generation_config or GenerationConfig()
    messages = [*_system(given.system_instruction), *parse_contents(_contents(given.contents))]
    if not any([message.role != "system" for message in messages]):
        raise InvalidRequest("contents: must hold at least one content", field="contents")
    return Request(
        model=model,
        messages=tuple(messages),
        sampling=_sampling(config),
        tools=_tools(_listed(given.tools)),
        tool_choice=_tool_choice(given.tool_config),
        response_format=_response_format(config),
        reasoning=parse_thinking(config.thinking_config or {}),
        stream=stream,
        extra=_extra(raw),
    )


def _contents(contents: list[dict[str, Any]] | dict[str, Any] | str) -> list[dict[str, Any]]:
    return [{"role": "user", "parts": [{"text": contents}]}] if isinstance(contents, str) else _listed(contents)


def _listed(value: list[dict[str, Any]] | dict[str, Any]) -> list[dict[str, Any]]:
    """Proto JSON takes one alone for a list of one."""
    return [value] if isinstance(value, dict) else value


def _system(instruction: dict[str, Any] | str | None) -> list[Message]:
    if instruction is None:
        return []
    content: dict[str, Any] = {"parts": [{"text": instruction}]} if isinstance(instruction, str) else instruction
    try:
        said = parse_contents([{**content, "role": "user"}])[0]
    except InvalidRequest as error:
        field = (error.field or "").replace("contents[0]", "systemInstruction")
        raise InvalidRequest(error.message.replace("contents[0]", "systemInstruction"), field=field) from error
    parts = tuple([part for part in said.parts if part != TextPart("")])
    return [Message("system", parts)] if parts else []


def _sampling(config: GenerationConfig) -> Sampling:
    return Sampling(
        config.temperature,
        config.top_p,
        int(config.top_k) if config.top_k is not None else None,
        config.max_output_tokens,
        tuple(config.stop_sequences),
        config.seed,
        config.presence_penalty,
        config.frequency_penalty,
        config.candidate_count or 1,
        (config.logprobs or 0) if config.response_logprobs else None,
    )


def _response_format(config: GenerationConfig) -> ResponseFormat | None:
    if config.response_mime_type != _JSON:
        return None
    schema = config.response_json_schema
    if schema is None and config.response_schema is not None:
        schema = json_schema(config.response_schema)
    return ResponseFormat("json_object") if schema is None else ResponseFormat("json_schema", None, schema)


def _tools(raw: list[dict[str, Any]]) -> tuple[Tool | OpaqueTool, ...]:
    tools: list[Tool | OpaqueTool] = []
    for number, entry in enumerate(raw):
        for place, one in enumerate(items(entry.get("functionDeclarations"))):
            name = one.get("name")
            if not isinstance(name, str) or not name:
                path = f"tools[{number}].functionDeclarations[{place}].name"
                raise InvalidRequest(f"{path}: is required", field=path)
            parameters = one.get("parametersJsonSchema")
            if parameters is None and isinstance(one.get("parameters"), dict):
                parameters = json_schema(one["parameters"])
            unknown = {key: value for key, value in one.items() if key not in _DECLARATION}
            description = one.get("description")
            tools.append(
                Tool(
                    name,
                    description if isinstance(description, str) else None,
                    cast(dict[str, Any], parameters) if isinstance(parameters, dict) else None,
                    extra=Extra(WIRE, unknown) if unknown else None,
                )
            )
        for kind, value in entry.items():
            if kind != "functionDeclarations":
                tools.append(OpaqueTool(WIRE, kind, {kind: value}))
    return tuple(tools)


def _tool_choice(config: dict[str, Any] | None) -> ToolChoice | None:
    calling = member(config or {}, "functionCallingConfig")
    mode = _MODES.get(str(calling.get("mode") or "").upper())
    if mode is None:
        return None
    allowed = calling.get("allowedFunctionNames")
    if mode == "required" and isinstance(allowed, list) and len(cast(list[Any], allowed)) == 1:
        return ToolChoice("tool", str(cast(list[Any], allowed)[0]))
    return ToolChoice(cast(Any, mode))


def _own_form(config: dict[str, Any]) -> bool:
    """Whether the answer is to have a form that only this wire knows, such as one word of an enum."""
    return config.get("responseMimeType") not in (None, "text/plain", _JSON)


def _extra(raw: dict[str, Any]) -> Extra | None:
    unknown = {name: value for name, value in raw.items() if name not in _BODY and name != "model"}
    config = {name: value for name, value in member(raw, "generationConfig").items() if name not in _CONFIG}
    thinking = member(member(raw, "generationConfig"), "thinkingConfig")
    if thinking:
        config["thinkingConfig"] = thinking
    if _own_form(given := member(raw, "generationConfig")):
        config.update({name: given[name] for name in _FORM if given.get(name) is not None})
    if config:
        unknown["generationConfig"] = config
    if tool_config := member(raw, "toolConfig"):
        unknown["toolConfig"] = tool_config
    return Extra(WIRE, unknown) if unknown else None


def render_request(request: Request, model: str) -> dict[str, Any]:
    """The body that asks an upstream of this wire. Raises `Unsupported` for what it cannot express."""
    known = traits(model)
    extra = own(request.extra)
    body: dict[str, Any] = {"contents": render_contents(request.messages, known)}
    system = render_system(request.messages)
    if system:
        body["systemInstruction"] = {"parts": system}
    if not body["contents"]:
        raise Unsupported("this model wants at least one message that is not a system message")
    if request.tools:
        body["tools"] = _rendered_tools(known_tools(request.tools, WIRE))
    if config := {**member(extra, "toolConfig"), **_rendered_choice(request, member(extra, "toolConfig"))}:
        body["toolConfig"] = config
    config = {**_rendered_sampling(request.sampling), **_rendered_format(request.response_format)}
    if thinking := render_thinking(request.reasoning, known):
        config["thinkingConfig"] = thinking
    config.update(member(extra, "generationConfig"))
    if config:
        body["generationConfig"] = config
    body.update({name: value for name, value in extra.items() if name not in ("generationConfig", "toolConfig")})
    for name in ("user", "metadata"):
        if getattr(request, name) is not None:
            dropped(WIRE, name)
    if request.parallel_tool_calls is False:
        dropped(WIRE, "parallel_tool_calls")
    return body


def _rendered_tools(tools: tuple[Tool | OpaqueTool, ...]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    declarations: list[dict[str, Any]] = []
    for tool in tools:
        if isinstance(tool, OpaqueTool):
            entries.append(tool.data)
            continue
        declaration: dict[str, Any] = {"name": tool.name, **own(tool.extra)}
        if tool.description is not None:
            declaration["description"] = tool.description
        if tool.strict:
            dropped(WIRE, "strict of a tool")
        if tool.parameters is not None:
            declaration["parametersJsonSchema"] = tool.parameters
        declarations.append(declaration)
    return [*([{"functionDeclarations": declarations}] if declarations else []), *entries]


def _rendered_choice(request: Request, said: dict[str, Any]) -> dict[str, Any]:
    """The choice among tools; a client of this wire has `said` it in its own words, of which only a name may have changed."""
    choice, calling = request.tool_choice, member(said, "functionCallingConfig")
    if choice is None or (not request.tools and choice.mode in ("auto", "none")):
        return {}
    if choice.mode == "tool":
        return {"functionCallingConfig": {**calling, "mode": "ANY", "allowedFunctionNames": [choice.name]}}
    return {"functionCallingConfig": calling or {"mode": _WORDS[choice.mode]}}


_WORDS = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_NAMES = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}


def _rendered_sampling(sampling: Sampling) -> dict[str, Any]:
    config = {theirs: value for ours, theirs in _NAMES.items() if (value := getattr(sampling, ours)) is not None}
    if sampling.stop:
        config["stopSequences"] = list(sampling.stop)
    if sampling.n != 1:
        config["candidateCount"] = sampling.n
    if sampling.logprobs is not None:
        config["responseLogprobs"] = True
        if sampling.logprobs:
            config["logprobs"] = sampling.logprobs
    return config


def _rendered_format(wanted: ResponseFormat | None) -> dict[str, Any]:
    if wanted is None or wanted.kind == "text":
        return {}
    config: dict[str, Any] = {"responseMimeType": _JSON}
    if wanted.schema is not None:
        config["responseJsonSchema"] = wanted.schema
    return config
