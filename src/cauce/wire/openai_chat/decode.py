"""Answers of the chat wire read into deltas: chunks of a stream, or one plain completion.

A stream is complete once a finish reason has come and the bytes end cleanly; `[DONE]` alone proves nothing, since some
servers send it after an error. There is one `Finish`, at the very end, because usage comes after the finish reason and some
servers repeat that reason.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

from cauce.domain.delta import Delta, Finish, FinishReason, Reasoning, Refusal, Text, TokenLogprob, ToolCall
from cauce.domain.errors import ProviderFailure
from cauce.domain.extra import Extra
from cauce.domain.request import Request
from cauce.domain.usage import Usage
from cauce.wire.decoding import Decoding
from cauce.wire.fields import rest
from cauce.wire.making import CallIds
from cauce.wire.openai_chat.assembly import Calls, OpenCall, goes_on
from cauce.wire.openai_chat.citations import parse_annotations
from cauce.wire.openai_chat.errors import parse_error, to_failure
from cauce.wire.openai_chat.extras import WIRE, member, with_level
from cauce.wire.openai_chat.logprobs import parse_logprobs
from cauce.wire.openai_chat.members import PLAIN_FIELDS, THOUGHTS, carried
from cauce.wire.openai_chat.reasoning import signature_of, signatures, words
from cauce.wire.openai_chat.usage import parse_usage
from cauce.wire.sse import Event
from cauce.wire.template import Field, Template

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
}
_CHUNK_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage"})
_CHOICE_FIELDS = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
_READ_OF_CHOICE = _CHOICE_FIELDS - {"logprobs"}
_SAID, _PLAIN_REASONS = frozenset({"role", "content"}), frozenset({"stop", "length"})
_CONTENT = Field("content")
_ARGUMENTS = Field("arguments")
_THOUGHT_FIELDS = {name: Field(name) for name in THOUGHTS}

_NONE: list[Any] = []


class ChatDecoder(Decoding):
    """State of one answer being read; see `Decoding`."""

    _characters = 0
    _usage: Usage | None = None
    _plain = _done = False
    _pending: Extra | None = None
    """Unknown fields of chunks that no delta has carried yet."""
    _shared: Extra | None = None
    """Unknown fields of the last chunk: most servers repeat theirs, and the same object tells so without looking."""
    _alike: type[Text] | type[Reasoning] | OpenCall = Text
    """What a chunk like the template gives: text, reasoning, or a piece of that call."""
    _template_extra: Extra | None = None

    def __init__(
        self, provider: str, estimate: Callable[[Request], int] | None = None, request: Request | None = None
    ) -> None:
        super().__init__(provider, estimate, request)
        self._foreign: dict[str, str] = {}
        self._reasons: dict[int, FinishReason] = {}
        self._seen, self._refused = set[int](), set[int]()
        self._thoughts: dict[int, str] = {}
        """What the upstream calls the field its reasoning comes in, by choice."""

    @cached_property
    def _template(self) -> Template:
        return Template()

    @cached_property
    def _calls(self) -> Calls:
        return Calls(CallIds(self._request))

    def _events(self, events: Sequence[Event], deltas: list[Delta]) -> None:
        template = self._template
        read, count = 0, len(events)
        while read < count:
            texts = template.texts(events, read) if self._pending is None else _NONE
            if not texts:
                self._event(events[read], deltas)
                read += 1
                continue
            read += len(texts)
            self._characters += len("".join(texts))
            if self._alike is Text:
                extra = self._template_extra
                deltas += [Text(text, 0, extra) for text in texts]
            else:
                deltas += [self._like(text) for text in texts]

    def finish(self) -> list[Delta]:
        """Deltas that remain at the clean end of the bytes, ending with `Finish`. Raises `ProviderFailure` when it was cut."""
        if self._failure is not None:
            raise self._failure
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
        self._plain = True
        deltas: list[Delta] = []
        value = self._object(body)
        choices = self._list(value.get("choices") or _NONE)
        if len(choices) == 1 and "error" not in value and (simple := self._simple(value, choices[0])) is not None:
            return simple
        self._calls.whole()
        for choice in choices:
            if choice.get("finish_reason") is None:
                choice["finish_reason"] = "tool_calls" if member(choice, "message").get("tool_calls") else "stop"
        self._chunk(value, deltas)
        if not self._reasons:
            raise self._broken("the answer has no choices")
        deltas.append(self._finish())
        return deltas

    def _simple(self, value: dict[str, Any], choice: dict[str, Any]) -> list[Delta] | None:
        """The deltas of an answer that is one text and nothing else, as nearly all are; None: it is more than that."""
        message, reason = choice.get("message"), choice.get("finish_reason")
        if type(message) is not dict or reason not in _PLAIN_REASONS or "x_groq" in value or choice.get("index"):
            return None
        said = cast(dict[str, Any], message)
        content = said.get("content")
        if type(content) is not str or not content:
            return None
        if rest(said, _SAID) or choice.get("logprobs") is not None or not choice.keys() <= _CHOICE_FIELDS:
            return None
        self._characters = len(content)
        unknown = rest(value, _CHUNK_FIELDS)
        self._read_usage(value.get("usage"))
        text = Text(content, 0, Extra(WIRE, {"chunk": unknown}) if unknown else None)
        return [text, Finish(reason, self._used(self._usage, self._characters))]

    @property
    def done(self) -> bool:
        """Whether `[DONE]` or an error came: nothing after it belongs to this answer."""
        return self._done or self._failure is not None

    def _event(self, event: Event, deltas: list[Delta]) -> None:
        if self._done:
            return
        data = event.data
        if data.startswith(b"[DONE]"):
            self._done = True
            self._template.forget()
            return
        before = len(deltas)
        chunk = self._object(data)
        call = self._chunk(chunk, deltas)
        if call is not None and call is not self._alike:
            # A call may begin at the index of one before it: what looks like a piece of that one is a piece of this.
            self._template.forget()
        if len(deltas) == before + 1:
            self._learn(chunk, deltas[before], call, data)

    def _like(self, text: str) -> Delta:
        """The delta of a chunk like the template, which is not one of text, with `text` in its place."""
        if self._alike is Reasoning:
            return Reasoning(text, None, 0, self._template_extra)
        call = cast(OpenCall, self._alike)
        call.arguments.append(text)
        return ToolCall(call.place, call.call_id, call.name, text, "piece", 0, self._template_extra)

    def _learn(self, chunk: dict[str, Any], delta: Delta, call: OpenCall | None, data: bytes) -> None:
        """Take `data` as the template of chunks to come, if what it says beside its text holds for each of them."""
        first, *others = chunk["choices"]
        own = None if chunk.keys() <= _CHUNK_FIELDS else self._shared
        if delta.extra is not own or others or delta.choice or first.get("finish_reason") or chunk.get("usage"):
            return
        alike: type[Text] | type[Reasoning] | OpenCall
        if type(delta) is Text:
            field, text, alike = _CONTENT, delta.text, Text
        elif type(delta) is Reasoning and delta.signature is None and 0 in self._thoughts:
            field, text, alike = _THOUGHT_FIELDS[self._thoughts[0]], delta.text, Reasoning
        elif type(delta) is ToolCall and call is not None and goes_on(first):
            field, text, alike = _ARGUMENTS, delta.arguments, call
        else:
            return
        if self._template.learn(data, field, text):
            self._alike = alike
            self._template_extra = delta.extra

    def _chunk(self, chunk: dict[str, Any], deltas: list[Delta]) -> OpenCall | None:
        """Read `chunk`. Returns the call its last piece belongs to, if it holds one."""
        if "error" in chunk and (error := parse_error(chunk["error"])) is not None:
            raise to_failure(error, provider=self._provider)
        usage = chunk.get("usage")
        if usage is not None or "x_groq" in chunk:
            self._read_usage(usage or member(chunk, "x_groq").get("usage"))
        if not chunk.keys() <= _CHUNK_FIELDS:
            unknown = rest(chunk, _CHUNK_FIELDS)
            if self._shared is None or self._shared.data["chunk"] != unknown:
                self._shared = Extra(WIRE, {"chunk": unknown})
            if unknown and self._pending is not None:
                self._pending = Extra(WIRE, {"chunk": {**self._pending.data["chunk"], **unknown}})
            elif unknown:
                self._pending = self._shared
        call: OpenCall | None = None
        for choice in self._list(chunk.get("choices") or _NONE):
            call = self._choice(choice, deltas)
        return call

    def _choice(self, choice: dict[str, Any], deltas: list[Delta]) -> OpenCall | None:
        index = choice.get("index") or 0
        delta: dict[str, Any] = choice.get("delta") or choice.get("message") or {}
        if type(delta) is not dict or type(index) is not int:
            raise self._broken("sent a choice of an unknown shape")
        self._seen.add(index)
        extra, self._pending = self._pending, None
        tokens: tuple[TokenLogprob, ...] = ()
        if not choice.keys() <= _CHOICE_FIELDS or choice.get("logprobs") is not None:
            extra = with_level(extra, "choice", rest(choice, _READ_OF_CHOICE))
            tokens = parse_logprobs(choice.get("logprobs"))
        if not delta.keys() <= PLAIN_FIELDS:
            extra = self._rare(delta, index, extra, deltas)
        elif thought := delta.get("reasoning_content"):
            extra = self._thought(thought, "reasoning_content", index, extra, deltas)
        content = delta.get("content")
        if content:
            if type(content) is str:
                self._characters += len(content)
                deltas.append(Text(content, index, extra, False, tokens))
            else:
                self._parts(content, index, extra, deltas)
            extra = None
        if annotations := delta.get("annotations"):
            deltas.extend(parse_annotations(annotations, index))
        call: OpenCall | None = None
        if calls := delta.get("tool_calls"):
            for raw in self._list(calls):
                call = self._tool_call(raw, index, extra, deltas)
                extra = None
        if extra is not None:
            if extra.data.keys() == {"chunk"}:
                self._pending = extra
            else:
                deltas.append(Text("", index, extra))
        reason = choice.get("finish_reason")
        if reason is not None and index not in self._reasons:
            deltas.extend(self._calls.ready(index))
            self._reasons[index] = self._reason(index, str(reason))
        return call

    def _rare(self, delta: dict[str, Any], index: int, extra: Extra | None, deltas: list[Delta]) -> Extra | None:
        """Read the members of `delta` that few have; returns what is left of `extra` with the unknown ones."""
        extra = with_level(extra, "delta", carried(delta, plain=self._plain))
        refusal = delta.get("refusal")
        names = [name for name in THOUGHTS if delta.get(name)]
        thought = delta.get(names[0]) if names else None
        details = delta.get("reasoning_details")
        if thought or details:
            name = names[0] if names else ""
            extra = self._thought(thought or words(details), name, index, extra, deltas, details)
        if refusal and isinstance(refusal, str):
            self._characters += len(refusal)
            self._refused.add(index)
            deltas.append(Refusal(refusal, index, extra))
            extra = None
        if isinstance(called := delta.get("function_call"), dict) and called:
            self._tool_call({"index": 0, "function": called}, index, extra, deltas)
            extra = None
        return extra

    def _thought(
        self, text: Any, name: str, index: int, extra: Extra | None, deltas: list[Delta], details: Any = None
    ) -> Extra | None:
        """Reasoning in the field `name`; returns `extra` if nothing took it."""
        text = text if isinstance(text, str) else ""
        proofs = signatures(details) if details else _NONE
        if not text and not proofs:
            return extra
        if name and index not in self._thoughts:
            self._thoughts[index] = name
            if name != THOUGHTS[0]:
                extra = Extra(WIRE, {**(extra.data if extra is not None else {}), "field": name})
        self._characters += len(text)
        deltas.append(Reasoning(text, proofs[0] if proofs else None, index, extra))
        deltas.extend([Reasoning("", proof, index, None, True) for proof in proofs[1:]])
        return None

    def _parts(self, content: Any, index: int, extra: Extra | None, deltas: list[Delta]) -> None:
        """List-typed content, as Mistral's reasoning models send it."""
        for part in self._list(content):
            match part:
                case {"type": "text", "text": str(text)} if text:
                    self._characters += len(text)
                    deltas.append(Text(text, index, extra))
                    extra = None
                case {"type": "thinking", "thinking": thinking}:
                    text = "".join([str(piece.get("text") or "") for piece in self._list(thinking)])
                    proof = signature_of({"type": "reasoning.text", "signature": part.get("signature")})
                    if text or proof is not None:
                        self._characters += len(text)
                        deltas.append(Reasoning(text, proof, index, extra))
                        extra = None
                case _:
                    continue

    def _tool_call(self, raw: dict[str, Any], choice: int, extra: Extra | None, deltas: list[Delta]) -> OpenCall:
        call, delta = self._calls.piece(raw, choice, extra)
        self._characters += len(delta.arguments)
        deltas.append(delta)
        return call

    def _reason(self, index: int, reason: str) -> FinishReason:
        """The domain's word for `reason`. Words of one server's own are kept: clients of this wire get to see them."""
        known = _REASONS.get(reason, "stop")
        if index in self._refused and known == "stop":
            known = "content_filter"
        if reason not in (known, "function_call"):
            self._foreign[str(index)] = reason
        return known

    def _finish(self) -> Finish:
        if "error" in self._reasons.values():
            # Some servers say in the finish reason that they broke, and then end cleanly.
            raise self._broken("ended its answer with the finish reason error", shape=False)
        reasons: tuple[FinishReason, ...] = tuple([self._reasons[index] for index in sorted(self._reasons)])
        data = dict(self._pending.data) if self._pending is not None else {}
        if self._foreign:
            data["finish_reasons"] = self._foreign
        return Finish(
            reasons[0],
            self._used(self._usage, self._characters),
            reasons if len(reasons) > 1 else (),
            extra=Extra(WIRE, data) if data else None,
        )

    def so_far(self) -> Usage:
        """What the answer has used by now, as far as can be told."""
        return self._used_so_far(self._usage, self._characters)

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

    def _broken(self, what: str, *, shape: bool = True) -> ProviderFailure:
        return ProviderFailure(f"{self._provider}: {what}", failure="transient", provider=self._provider, shape=shape)
