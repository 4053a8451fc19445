"""Requests of the Responses wire: what clients send us and what we send upstream."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from cauce.domain.errors import InvalidRequest, Unsupported
from cauce.domain.extra import Extra
from cauce.domain.message import Message, TextPart
from cauce.domain.request import ReasoningOptions, Request, ResponseFormat, Sampling
from cauce.wire.dropping import dropped, known_tools
from cauce.wire.fields import check, decode_object, rest
from cauce.wire.openai_responses.history import render_items
from cauce.wire.openai_responses.items import parse_items
from cauce.wire.openai_responses.names import WIRE, own
from cauce.wire.openai_responses.tools import custom_names, parse_choice, parse_tools, render_choice, render_tool

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"

_COUNTED = frozenset(
    {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "truncation"}
)
"""Fields of a request that its input tokens depend on."""

_INSTRUCTIONS = Extra(WIRE, {"instructions": True})
_LOW, _MEDIUM = 4_096, 16_384
"""Thinking budgets, in tokens, below which effort is low, and medium."""


class FormatBody(msgspec.Struct):
    """How the answer's text must look."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextBody(msgspec.Struct):
    format: FormatBody | None = None
    verbosity: str | None = None


class ReasoningBody(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class ResponsesBody(msgspec.Struct):
    """Body of `POST /v1/responses`. Fields not listed here are passed through to upstreams of the same wire."""

    input: str | list[dict[str, Any]] = []
    model: str = ""
    instructions: str | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextBody | None = None
    reasoning: ReasoningBody | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    include: list[str] = []
    metadata: dict[str, Any] | None = None
    user: str | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    stream: bool = False
    background: bool | None = None


_HANDLED = frozenset(ResponsesBody.__struct_fields__) - {"metadata", "store"}


def parse_request(body: bytes) -> Request:
    """The request in `body`. Raises `InvalidRequest` naming the field."""
    return parse(decode_object(body))


def parse(raw: dict[str, Any], before: Sequence[dict[str, Any]] = ()) -> Request:
    """The request that the JSON object `raw` is; `before` are the items of the conversation it goes on. Raises `InvalidRequest`."""
    body = check(raw, ResponsesBody)
    _refuse(raw, body)
    items = input_items(body.input)
    if not items and not before:
        raise InvalidRequest("input: is required: a text, or at least one item", field="input")
    messages = parse_items([*before, *items], len(before))
    if body.instructions is not None:
        messages = (Message("system", (TextPart(body.instructions),), extra=_INSTRUCTIONS), *messages)
    unknown = rest(raw, _HANDLED)
    choice, raw_choice = parse_choice(body.tool_choice) if body.tool_choice is not None else (None, None)
    if raw_choice is not None:
        unknown["tool_choice"] = raw_choice
    if include := [entry for entry in body.include if entry != LOGPROBS]:
        unknown["include"] = include
    return Request(
        model=body.model,
        messages=messages,
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_output_tokens,
            logprobs=body.top_logprobs or 0 if LOGPROBS in body.include or body.top_logprobs else None,
        ),
        tools=parse_tools(body.tools),
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_parse_format(raw, body.text, unknown),
        reasoning=_parse_reasoning(raw, body.reasoning, unknown),
        stream=body.stream,
        user=body.user,
        metadata=body.metadata,
        extra=Extra(WIRE, unknown),
    )


def input_items(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`input` as a list of items."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    return given


def _refuse(raw: dict[str, Any], body: ResponsesBody) -> None:
    """Raise `InvalidRequest` for what is not here: a clear refusal beats a guess."""
    if body.background and body.store is False:
        raise InvalidRequest(
            "background: needs the response to be kept until somebody comes back for it: leave store out, or set it to true",
            field="background",
        )
    if raw.get("conversation") is not None:
        raise InvalidRequest(
            "conversation: is not kept here yet: send the items, or previous_response_id", field="conversation"
        )
    if raw.get("prompt") is not None:
        raise InvalidRequest(
            "prompt: prompt templates are kept by their maker only: send their text as instructions and input",
            field="prompt",
        )


def _parse_format(raw: dict[str, Any], body: TextBody | None, unknown: dict[str, Any]) -> ResponseFormat | None:
    """The response format; what the domain has no place for of `text` goes into `unknown`."""
    if body is None:
        return None
    text: dict[str, Any] = raw["text"]
    beside = rest(text, frozenset({"format"}))
    form = body.format
    found: ResponseFormat | None = None
    if form is not None and form.type in ("text", "json_object", "json_schema"):
        kind = form.type
        if kind == "json_schema" and form.schema is None:
            raise InvalidRequest("text.format.schema: is required", field="text.format.schema")
        found = ResponseFormat(kind, form.name, form.schema, form.strict, form.description)
    elif form is not None:
        beside["format"] = text["format"]
    if beside:
        unknown["text"] = beside
    return found


def _parse_reasoning(
    raw: dict[str, Any], body: ReasoningBody | None, unknown: dict[str, Any]
) -> ReasoningOptions | None:
    """The reasoning options; what the domain has no place for goes into `unknown`."""
    if body is None:
        return None
    if beside := rest(raw["reasoning"], frozenset({"effort"})):
        unknown["reasoning"] = beside
    return ReasoningOptions(effort=body.effort, visible=True if body.summary else None)


def render_request(request: Request, model: str, *, stream: bool) -> dict[str, Any]:
    """The body that asks an upstream of this wire for `model`. Raises `Unsupported`."""
    _check(request)
    unknown = own(request.extra)
    custom = custom_names(request.tools)
    messages = request.messages
    body: dict[str, Any] = {"model": model}
    if messages and own(messages[0].extra).get("instructions"):
        body["instructions"] = messages[0].text
        messages = messages[1:]
    body["input"] = render_items(messages, custom)
    _render_sampling(request, body)
    if request.tools:
        body["tools"] = [render_tool(tool) for tool in known_tools(request.tools, WIRE)]
    if request.tool_choice is not None:
        body["tool_choice"] = render_choice(request.tool_choice, custom)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    text = {**_render_format(request.response_format), **unknown.get("text", {})}
    if text:
        body["text"] = text
    reasoning = {**_render_reasoning(request.reasoning), **unknown.get("reasoning", {})}
    if reasoning:
        body["reasoning"] = reasoning
    if request.user is not None:
        body["user"] = request.user
    body.update(rest(unknown, frozenset({"text", "reasoning", "include"})))
    if request.extra is None or request.extra.wire != WIRE:
        # Nobody will ask that upstream for the response: what must come back is asked for instead.
        body["store"] = False
        if "reasoning" in body:
            body["include"] = [*body.get("include", ()), ENCRYPTED]
    elif include := unknown.get("include"):
        body["include"] = [*include, *body.get("include", ())]
    if stream:
        body["stream"] = True
    else:
        body.pop("stream_options", None)
    return body


def counted(body: dict[str, Any]) -> dict[str, Any]:
    """The body that asks how many input tokens the request `body` is."""
    return {name: value for name, value in body.items() if name in _COUNTED}


def _check(request: Request) -> None:
    """Raise `Unsupported` for what cannot be left out."""
    if request.sampling.n != 1:
        raise Unsupported("n: the Responses wire gives one answer: ask several times", field="n")
    if request.sampling.stop:
        raise Unsupported('stop: the Responses wire has no stop sequences: speak to this upstream in wire = "chat"')
    if request.prompt is not None and request.prompt.suffix:
        raise Unsupported("suffix: the Responses wire cannot fill in text", field="suffix")


def _render_sampling(request: Request, body: dict[str, Any]) -> None:
    sampling = request.sampling
    known = (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("max_output_tokens", sampling.max_tokens),
    )
    body.update({field: value for field, value in known if value is not None})
    if sampling.logprobs is not None:
        body["include"] = [LOGPROBS]
        if sampling.logprobs:
            body["top_logprobs"] = sampling.logprobs
    for field in ("top_k", "seed", "presence_penalty", "frequency_penalty"):
        if getattr(sampling, field) is not None:
            dropped(WIRE, field)


def _render_format(form: ResponseFormat | None) -> dict[str, Any]:
    if form is None:
        return {}
    body: dict[str, Any] = {"type": form.kind}
    if form.kind == "json_schema":
        body["name"] = form.name or "answer"
        body["schema"] = form.schema or {}
        if form.strict is not None:
            body["strict"] = form.strict
        if form.description is not None:
            body["description"] = form.description
    return {"format": body}


def _render_reasoning(options: ReasoningOptions | None) -> dict[str, Any]:
    if options is None:
        return {}
    body: dict[str, Any] = {}
    if options.effort is not None:
        body["effort"] = options.effort
    elif options.budget_tokens is not None and options.enabled is not False:
        budget = options.budget_tokens
        body["effort"] = "low" if budget < _LOW else "medium" if budget < _MEDIUM else "high"
    elif options.enabled is False:
        dropped(WIRE, "reasoning switched off")
    if options.visible:
        body["summary"] = "auto"
    return body
