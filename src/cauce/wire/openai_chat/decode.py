"""Answers of the chat wire read into deltas: chunks of a stream, or one plain completion.

A stream is complete once a finish reason has come and the bytes end cleanly; `[DONE]` alone proves nothing, since some
servers send it after an error. There is one `Finish`, at the very end, because usage comes after the finish reason and some
servers repeat that reason.
"""

from collections.abc import Callable
from typing import Any, cast

import msgspec

from cauce.domain.delta import Delta, Finish, FinishReason, Reasoning, Text, ToolCall
from cauce.domain.errors import ProviderFailure
from cauce.domain.extra import Extra
from cauce.domain.request import Request
from cauce.domain.tokens import CHARACTERS_PER_TOKEN
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.errors import parse_error, to_failure
from cauce.wire.openai_chat.messages import WIRE
from cauce.wire.openai_chat.template import TextTemplate
from cauce.wire.sse import Event, EventTooLarge, SSEDecoder

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
}
_CHUNK_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage"})
_CHOICE_FIELDS = frozenset({"index", "delta", "message", "finish_reason"})
_CALL_FIELDS = frozenset({"index", "id", "type", "function"})
_FUNCTION_FIELDS = frozenset({"name", "arguments"})
_DELTA_FIELDS = frozenset({"role", "content", "tool_calls", "reasoning_content", "reasoning"})

_NONE: list[Any] = []

_decoder = msgspec.json.Decoder()


class _OpenCall:
    __slots__ = ("arguments", "call_id", "extra", "given_id", "name", "place")

    def __init__(self, place: int, call_id: str, name: str, *, given_id: bool) -> None:
        self.place = place
        self.call_id = call_id
        self.given_id = given_id
        self.name = name
        self.arguments: list[str] = []
        self.extra: Extra | None = None


class ChatDecoder:
    """State of one answer being read. `provider` names the upstream in errors.

    Where it reports no usage, tokens are estimated: those of the answer from its text, those of `request` by `estimate`.
    """

    def __init__(
        self, provider: str, estimate: Callable[[Request], int] | None = None, request: Request | None = None
    ) -> None:
        self._provider = provider
        self._estimate = estimate
        self._request = request
        self._characters = 0
        self._seen: set[int] = set()
        self._foreign: dict[str, str] = {}
        self._sse = SSEDecoder()
        self._reasons: dict[int, FinishReason] = {}
        self._calls: dict[int, list[_OpenCall]] = {}
        self._current: dict[tuple[int, int], _OpenCall] = {}
        self._usage: Usage | None = None
        self._pending: Extra | None = None
        """Unknown fields of chunks that no delta has carried yet."""
        self._shared: Extra | None = None
        """Unknown fields of the last chunk: most servers repeat theirs, and the same object tells so without looking."""
        self._done = False
        self._template = TextTemplate()
        self._template_extra: Extra | None = None

    def feed(self, data: bytes) -> list[Delta]:
        """Deltas of the events that `data` completes. Raises `ProviderFailure` for an error inside the stream."""
        deltas: list[Delta] = []
        try:
            events = self._sse.feed(data)
        except EventTooLarge as error:
            raise self._broken(str(error)) from error
        for event in events:
            self._event(event, deltas)
        return deltas

    def finish(self) -> list[Delta]:
        """Deltas that remain at the clean end of the bytes, ending with `Finish`. Raises `ProviderFailure` when it was cut."""
        deltas: list[Delta] = []
        for event in self._sse.finish():
            self._event(event, deltas)
        if not self._reasons or self._seen - self._reasons.keys():
            raise ProviderFailure(
                f"{self._provider}: the stream ended without a finish reason: it was cut off",
                failure="transient",
                provider=self._provider,
            )
        deltas.append(self._finish())
        return deltas

    def completion(self, body: bytes) -> list[Delta]:
        """Deltas of a plain completion, ending with `Finish`. Raises `ProviderFailure`."""
        deltas: list[Delta] = []
        value = self._object(body)
        for choice in self._list(value.get("choices") or _NONE):
            if choice.get("finish_reason") is None:
                choice["finish_reason"] = "tool_calls" if _member(choice, "message").get("tool_calls") else "stop"
        self._chunk(value, deltas)
        if not self._reasons:
            raise self._broken("the answer has no choices")
        deltas.append(self._finish())
        return deltas

    @property
    def done(self) -> bool:
        """Whether `[DONE]` came: nothing after it belongs to this answer."""
        return self._done

    def _event(self, event: Event, deltas: list[Delta]) -> None:
        if self._done:
            return
        data = event.data
        if self._pending is None and (text := self._template.text(data)):
            self._characters += len(text)
            deltas.append(Text(text, 0, self._template_extra))
        elif data.startswith(b"[DONE]"):
            self._done = True
        else:
            before = len(deltas)
            chunk = self._object(data)
            self._chunk(chunk, deltas)
            if len(deltas) == before + 1 and type(alike := deltas[before]) is Text:
                self._learn(chunk, alike, data)

    def _learn(self, chunk: dict[str, Any], delta: Text, data: bytes) -> None:
        """Take `data` as the template of chunks to come, if what it says beside its text holds for each of them."""
        first, *others = chunk["choices"]
        own = None if chunk.keys() <= _CHUNK_FIELDS else self._shared
        if delta.extra is own and not (others or delta.choice or first.get("finish_reason") or chunk.get("usage")):
            self._template.learn(data, delta.text)
            self._template_extra = delta.extra

    def _object(self, data: bytes) -> dict[str, Any]:
        try:
            value = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._broken(f"sent invalid JSON: {error}") from error
        if not isinstance(value, dict):
            raise self._broken("sent JSON that is not an object")
        return cast(dict[str, Any], value)

    def _chunk(self, chunk: dict[str, Any], deltas: list[Delta]) -> None:
        if "error" in chunk and (error := parse_error(chunk["error"])) is not None:
            raise to_failure(error, provider=self._provider)
        usage = chunk.get("usage")
        if usage is not None or "x_groq" in chunk:
            self._read_usage(usage or _member(chunk, "x_groq").get("usage"))
        if not chunk.keys() <= _CHUNK_FIELDS:
            unknown = _unknown(chunk, _CHUNK_FIELDS)
            if self._shared is None or self._shared.data["chunk"] != unknown:
                self._shared = Extra(WIRE, {"chunk": unknown})
            if unknown and self._pending is not None:
                self._pending = Extra(WIRE, {"chunk": {**self._pending.data["chunk"], **unknown}})
            elif unknown:
                self._pending = self._shared
        for choice in self._list(chunk.get("choices") or _NONE):
            self._choice(choice, deltas)

    def _choice(self, choice: dict[str, Any], deltas: list[Delta]) -> None:
        index = choice.get("index") or 0
        delta: dict[str, Any] = choice.get("delta") or choice.get("message") or {}
        if type(delta) is not dict or type(index) is not int:
            raise self._broken("sent a choice of an unknown shape")
        self._seen.add(index)
        extra, self._pending = self._pending, None
        if not (choice.keys() <= _CHOICE_FIELDS and delta.keys() <= _DELTA_FIELDS):
            extra = _with_levels(extra, choice, delta)
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            self._characters += len(reasoning)
            deltas.append(Reasoning(reasoning, None, index, extra))
            extra = None
        content = delta.get("content")
        if content:
            if type(content) is str:
                self._characters += len(content)
                deltas.append(Text(content, index, extra))
            else:
                self._parts(content, index, extra, deltas)
            extra = None
        if calls := delta.get("tool_calls"):
            for call in self._list(calls):
                self._tool_call(call, index, extra, deltas)
                extra = None
        if extra is not None:
            if extra.data.keys() == {"chunk"}:
                self._pending = extra
            else:
                deltas.append(Text("", index, extra))
        reason = choice.get("finish_reason")
        if reason is not None and index not in self._reasons:
            self._ready(index, deltas)
            known = _REASONS.get(str(reason), "stop")
            if reason != known:
                # A word of one server's own, or of an older time: clients of this wire get to see it.
                self._foreign[str(index)] = str(reason)
            self._reasons[index] = known

    def _parts(self, content: Any, index: int, extra: Extra | None, deltas: list[Delta]) -> None:
        """List-typed content, as Mistral's reasoning models send it."""
        for part in self._list(content):
            match part:
                case {"type": "text", "text": str(text)} if text:
                    deltas.append(Text(text, index, extra))
                    extra = None
                case {"type": "thinking", "thinking": thinking}:
                    text = "".join([str(piece.get("text") or "") for piece in self._list(thinking)])
                    if text:
                        deltas.append(Reasoning(text, None, index, extra))
                        extra = None
                case _:
                    continue

    def _tool_call(self, raw: dict[str, Any], choice: int, extra: Extra | None, deltas: list[Delta]) -> None:
        function = _member(raw, "function") or _custom(raw)
        name = str(function.get("name") or "")
        call = self._call(raw, choice, name)
        if name and not call.name:
            call.name = name
        arguments = function.get("arguments")
        piece = arguments if isinstance(arguments, str) else "" if arguments is None else _text(arguments)
        call.arguments.append(piece)
        self._characters += len(piece)
        if own := _own_fields(raw, function):
            call.extra = Extra(WIRE, {**(call.extra.data if call.extra is not None else {}), **own})
            extra = Extra(WIRE, {**(extra.data if extra is not None else {}), **own})
        deltas.append(ToolCall(call.place, call.call_id, call.name, piece, "piece", choice, extra))

    def _call(self, raw: dict[str, Any], choice: int, name: str) -> _OpenCall:
        """The call a piece belongs to: the one under its index, unless it brings another id."""
        calls = self._calls.setdefault(choice, [])
        call_id = raw.get("id")
        index = raw.get("index")
        if type(index) is not int:
            # Servers that leave the index out send one whole call per piece, or go on with the last one.
            index = len(calls) if call_id or not calls else len(calls) - 1
        known = self._current.get((choice, index))
        if known is None or (call_id and known.given_id and call_id != known.call_id):
            place = len(calls)
            known = _OpenCall(place, str(call_id or f"call_{choice}_{place}"), name, given_id=bool(call_id))
            calls.append(known)
            self._current[(choice, index)] = known
        return known

    def _ready(self, choice: int, deltas: list[Delta]) -> None:
        for call in self._calls.get(choice, ()):
            arguments = "".join(call.arguments)
            deltas.append(ToolCall(call.place, call.call_id, call.name, arguments, "ready", choice, call.extra))

    def _finish(self) -> Finish:
        if "error" in self._reasons.values():
            # Some servers say in the finish reason that they broke, and then end cleanly.
            raise self._broken("ended its answer with the finish reason error")
        reasons: tuple[FinishReason, ...] = tuple([self._reasons[index] for index in sorted(self._reasons)])
        data = dict(self._pending.data) if self._pending is not None else {}
        if self._foreign:
            data["finish_reasons"] = self._foreign
        return Finish(
            reasons[0],
            self._usage or self._estimated(),
            reasons if len(reasons) > 1 else (),
            extra=Extra(WIRE, data) if data else None,
        )

    def _estimated(self) -> Usage:
        written = -(-self._characters // CHARACTERS_PER_TOKEN)
        asked = self._estimate(self._request) if self._estimate is not None and self._request is not None else 0
        return Usage(asked, written, estimated=True)

    def _read_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage = parse_usage(cast(dict[str, Any], usage))

    def _list(self, value: Any) -> list[dict[str, Any]]:
        if type(value) is not list:
            raise self._broken("sent an object or a value where a list belongs")
        for item in cast(list[Any], value):
            if type(item) is not dict:
                raise self._broken("sent a list of an unknown shape")
        return cast(list[dict[str, Any]], value)

    def _broken(self, what: str) -> ProviderFailure:
        return ProviderFailure(f"{self._provider}: {what}", failure="transient", provider=self._provider)


def _unknown(raw: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in known and value is not None}


def _custom(raw: dict[str, Any]) -> dict[str, Any]:
    """A call of a custom tool, whose input is free text, seen as one of a function."""
    custom = _member(raw, "custom")
    return {"name": custom.get("name"), "arguments": custom.get("input")} if custom else {}


def _own_fields(raw: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
    """What only this wire knows of a tool call and of its function."""
    call = _unknown(raw, _CALL_FIELDS)
    if raw.get("type") not in (None, "function"):
        call["type"] = raw["type"]
    levels = (("call", call), ("function", _unknown(function, _FUNCTION_FIELDS)))
    return {level: unknown for level, unknown in levels if unknown}


def _with_levels(extra: Extra | None, choice: dict[str, Any], delta: dict[str, Any]) -> Extra | None:
    """`extra` and the unknown fields of a choice and its delta; None if there are none at all."""
    data = {} if extra is None else dict(extra.data)
    for level, unknown in (("choice", _unknown(choice, _CHOICE_FIELDS)), ("delta", _unknown(delta, _DELTA_FIELDS))):
        if unknown:
            data[level] = unknown
    if extra is not None and len(data) == 1:
        return extra
    return Extra(WIRE, data) if data else None


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    member = value.get(name)
    return cast(dict[str, Any], member) if isinstance(member, dict) else {}


def _text(arguments: Any) -> str:
    """Arguments that a server sent as an object instead of a string."""
    return msgspec.json.encode(arguments).decode()


def parse_usage(usage: dict[str, Any]) -> Usage:
    """Usage in normal form; figures that are no integers count as zero. A `cost` (OpenRouter) is the provider's own, in USD."""
    prompt = _member(usage, "prompt_tokens_details")
    completion = _member(usage, "completion_tokens_details")
    cost = usage.get("cost")
    reported = isinstance(cost, int | float)
    return Usage(
        input_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        cached_tokens=_count(prompt, "cached_tokens"),
        cache_write_tokens=_count(prompt, "cache_write_tokens"),
        reasoning_tokens=_count(completion, "reasoning_tokens"),
        cost=float(cost) if isinstance(cost, int | float) else 0.0,
        cost_source="reported" if reported else "unpriced",
        extra=Extra(WIRE, usage),
    )


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0
