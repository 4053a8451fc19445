"""Requests of this wire: what clients send us and what we send upstream."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

import msgspec

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.model import UNKNOWN, ModelFacts
from cauce.domain.request import Request, ResponseFormat, Sampling
from cauce.wire.anthropic_messages.blocks import own
from cauce.wire.anthropic_messages.messages import MessageBody, parse_messages, parse_system, render_messages
from cauce.wire.anthropic_messages.models import traits
from cauce.wire.anthropic_messages.sampling import choose_version, render_sampling
from cauce.wire.anthropic_messages.thinking import is_proven, parse_reasoning, render_reasoning
from cauce.wire.anthropic_messages.tools import parse_tool_choice, parse_tools, render_tool, render_tool_choice
from cauce.wire.anthropic_messages.usage import WIRE
from cauce.wire.dropping import dropped, known_tools
from cauce.wire.fields import check, decode_object, rest
from cauce.wire.wishes import PRIVACY, TASK, wishes

DEFAULT_MAX_TOKENS = 4096
"""What is asked for where nobody says how much and the model's own bound is not known: every model still served can do it."""

_CARRIED = ("anthropic-version", "anthropic-beta")
_COUNTED = frozenset(
    {
        "model",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "cache_control",
        "context_management",
        "mcp_servers",
        "speed",
    }
)

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class CountTokensBody(msgspec.Struct, kw_only=True):
    """Body of `POST /v1/messages/count_tokens`."""

    messages: list[MessageBody]
    model: str = ""
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None


class MessagesBody(CountTokensBody, kw_only=True):
    """Body of `POST /v1/messages`. Fields not listed here are passed through to upstreams of the same wire."""

    max_tokens: Annotated[int, msgspec.Meta(ge=0)]
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop_sequences: list[str] = []
    metadata: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    stream: bool = False


_CHOICE = frozenset({"type", "name", "disable_parallel_tool_use"})
_KNOWN = frozenset(MessagesBody.__struct_fields__) - {"thinking", "output_config"}


class Rendered(msgspec.Struct, frozen=True):
    """A request ready to be sent: its body as JSON values, and the headers that belong to it."""

    body: dict[str, Any]
    headers: dict[str, str]


def parse_request(body: bytes, headers: Mapping[str, str]) -> Request:
    """The request in `body`; `headers` are looked up in lower case. Raises `InvalidRequest` naming the field."""
    raw = decode_object(body)
    checked = check(raw, MessagesBody)
    return _request(checked, raw, headers, checked)


def parse_count(body: bytes, headers: Mapping[str, str]) -> Request:
    """The request in `body`, whose tokens are to be counted. Raises `InvalidRequest` naming the field."""
    raw = decode_object(body)
    return _request(check(raw, CountTokensBody), raw, headers, None)


def _request(
    asked: CountTokensBody, raw: dict[str, Any], headers: Mapping[str, str], whole: MessagesBody | None
) -> Request:
    choice, parallel = parse_tool_choice(asked.tool_choice) if asked.tool_choice is not None else (None, None)
    messages = parse_messages(asked.messages, raw["messages"])
    if asked.system:
        messages.insert(0, parse_system(asked.system))
    task, privacy = wishes(raw.get("metadata"))
    metadata = dict(whole.metadata) if whole is not None and whole.metadata is not None else {}
    user = metadata.pop("user_id", None)
    for ours in (TASK, PRIVACY):
        # Anthropic's API refuses members that it does not know.
        metadata.pop(ours, None)
    return Request(
        model=asked.model,
        messages=tuple(messages),
        sampling=_sampling(whole) if whole is not None else Sampling(),
        tools=parse_tools(asked.tools),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=_response_format(raw),
        reasoning=parse_reasoning(raw),
        stream=whole is not None and whole.stream,
        user=user if isinstance(user, str) else None,
        task=task,
        privacy=privacy,
        extra=_extra(raw, metadata, headers),
    )


def _sampling(body: MessagesBody) -> Sampling:
    return Sampling(body.temperature, body.top_p, body.top_k, body.max_tokens, tuple(body.stop_sequences))


def _response_format(raw: dict[str, Any]) -> ResponseFormat | None:
    """The format, also where it stood in its time of trial (`output_format`). Raises `InvalidRequest`."""
    config: Any = raw.get("output_config")
    for field, value in (
        ("output_config.format", cast(dict[str, Any], config).get("format") if isinstance(config, dict) else None),
        ("output_format", raw.get("output_format")),
    ):
        match value:
            case None:
                continue
            case {"type": "json_schema", "schema": dict()}:
                return ResponseFormat("json_schema", schema=value["schema"])
            case _:
                raise InvalidRequest(f"{field}: must be of type json_schema and hold a schema", field=field)
    return None


def _extra(raw: dict[str, Any], metadata: dict[str, Any], headers: Mapping[str, str]) -> Extra:
    """What only this wire knows. It is there even if empty: it shows that the request came in this wire's words."""
    body = rest(raw, _KNOWN)
    if metadata:
        body["metadata"] = metadata
    if isinstance(body.get("output_config"), dict):
        config = rest(body["output_config"], frozenset({"format"}))
        body = {**body, "output_config": config} if config else rest(body, frozenset({"output_config"}))
    named = {name: headers[name] for name in _CARRIED if headers.get(name)}
    shape = _member(_member(raw, "output_config"), "format")
    levels = {
        "body": body,
        "headers": named,
        "format": rest(shape, frozenset({"type", "schema"})),
        "tool_choice": rest(_member(raw, "tool_choice"), _CHOICE),
    }
    return Extra(WIRE, {level: fields for level, fields in levels.items() if fields})


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def render_request(
    request: Request,
    model: str,
    *,
    stream: bool = False,
    facts: ModelFacts = UNKNOWN,
    api_version: str | None = None,
) -> Rendered:
    """What asks an upstream of this wire for `model`. `api_version` None: the newest one that knows all it holds.

    Raises `Unsupported` for what it cannot say, `InvalidRequest` for what makes no sense on any wire.
    """
    _refuse(request)
    known = traits(model)
    system, messages = render_messages(request.messages)
    _end_well(messages, facts)
    reasoning = render_reasoning(request, known, proven=is_proven(messages))
    thinking = reasoning.get("thinking", {}).get("type", "disabled") != "disabled"
    sampled = render_sampling(request.sampling, known, thinking=thinking)
    version = choose_version(api_version, sampled, messages)
    body: dict[str, Any] = {
        **own(request.extra, "body"),
        "model": model,
        "max_tokens": _max_tokens(request, reasoning, facts),
        "messages": messages,
        **reasoning,
        **sampled,
    }
    if system:
        body["system"] = system
    _add_rest(request, body, facts)
    if stream:
        body["stream"] = True
    betas = own(request.extra, "headers").get("anthropic-beta")
    return Rendered(body, {"anthropic-version": version, **({"anthropic-beta": betas} if betas else {})})


def is_native(request: Request) -> bool:
    """Whether `request` came in this wire's words: its schemas are then sent as they are, and the API judges them."""
    return request.extra is not None and request.extra.wire == WIRE


def counted(body: dict[str, Any]) -> dict[str, Any]:
    """`body` as the endpoint that counts tokens takes it."""
    return {name: value for name, value in body.items() if name in _COUNTED}


def _refuse(request: Request) -> None:
    if request.sampling.n > 1:
        raise Unsupported("this model gives one answer at a time: n must be 1", field="n")
    if request.sampling.logprobs is not None:
        raise Unsupported("this model does not tell log probabilities: leave logprobs out", field="logprobs")
    if request.prompt is not None and request.prompt.suffix is not None:
        raise Unsupported("this model cannot fill in the middle: leave suffix out", field="suffix")
    for name in ("seed", "presence_penalty", "frequency_penalty"):
        if getattr(request.sampling, name) is not None:
            dropped(WIRE, name)


def _add_rest(request: Request, body: dict[str, Any], facts: ModelFacts) -> None:
    stop = [text for text in request.sampling.stop if text.strip()]
    if len(stop) < len(request.sampling.stop):
        # The API refuses them.
        dropped(WIRE, "stop sequences of blanks only")
    if stop:
        body["stop_sequences"] = stop
    if request.tools:
        body["tools"] = [render_tool(tool) for tool in known_tools(request.tools, WIRE)]
        choice = render_tool_choice(request.tool_choice, request.parallel_tool_calls)
        if choice is not None:
            body["tool_choice"] = {**choice, **own(request.extra, "tool_choice")}
    if request.user is not None:
        body["metadata"] = {**body.get("metadata", {}), "user_id": request.user}
    wanted = request.response_format
    if wanted is not None and wanted.kind != "text":
        if wanted.schema is None or facts.json_schema is False:
            what = "JSON without a schema" if wanted.schema is None else "JSON that follows a schema"
            raise Unsupported(f"response_format: this model cannot be held to {what}", field="response_format")
        shape = {"type": "json_schema", "schema": wanted.schema, **own(request.extra, "format")}
        body["output_config"] = {**body.get("output_config", {}), "format": shape}


def _max_tokens(request: Request, reasoning: dict[str, Any], facts: ModelFacts) -> int:
    """The bound on output, which this wire must have; a budget for thinking comes on top of our own choice."""
    if request.sampling.max_tokens is not None:
        return request.sampling.max_tokens
    if facts.max_output is not None:
        return facts.max_output
    budget = reasoning.get("thinking", {}).get("budget_tokens")
    return DEFAULT_MAX_TOKENS + (budget if isinstance(budget, int) else 0)


def _end_well(messages: list[dict[str, Any]], facts: ModelFacts) -> None:
    """A last message of the assistant is one to go on from, without blanks at its end, if the model does that at all."""
    last = messages[-1]
    if last["role"] != "assistant":
        return
    content = last["content"]
    if isinstance(content, str):
        last["content"] = content.rstrip()
    elif content[-1].get("type") == "text":
        content[-1] = {**content[-1], "text": content[-1]["text"].rstrip()}
    else:
        # A turn of the API's own tools that was paused: every model goes on from there.
        return
    if facts.prefill is False:
        raise Unsupported(
            "this model does not go on from a last message of the assistant: end the conversation with a message of the user",
            field="messages",
        )
