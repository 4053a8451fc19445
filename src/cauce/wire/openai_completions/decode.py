"""Answers of the completions wire read into deltas: chunks of a stream, or one plain completion. Both have the same shape."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from cauce.domain.delta import Delta, Finish, FinishReason, Text
from cauce.domain.errors import ProviderFailure
from cauce.domain.extra import Extra
from cauce.domain.request import Request
from cauce.domain.usage import Usage
from cauce.wire.decoding import Decoding
from cauce.wire.fields import rest
from cauce.wire.openai_chat.errors import parse_error, to_failure
from cauce.wire.openai_chat.usage import parse_usage
from cauce.wire.openai_completions.logprobs import parse_logprobs
from cauce.wire.openai_completions.request import WIRE
from cauce.wire.sse import Event
from cauce.wire.template import Field, Template

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_CHUNK_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage"})
_CHOICE_FIELDS = frozenset({"index", "text", "finish_reason"})
_TEXT = Field("text")


class CompletionDecoder(Decoding):
    """State of one answer being read; see `ChatDecoder`, whose rules for the end of a stream hold here too."""

    def __init__(
        self, provider: str, estimate: Callable[[Request], int] | None = None, request: Request | None = None
    ) -> None:
        super().__init__(provider, estimate, request)
        self._characters = 0
        self._seen: set[int] = set()
        self._reasons: dict[int, FinishReason] = {}
        self._foreign: dict[str, str] = {}
        self._usage: Usage | None = None
        self._beside: dict[str, Any] = {}
        """Unknown fields of chunks, for the end; of the first delta, before."""
        self._told = False
        self._done = False
        self._template = Template()

    def _events(self, events: Sequence[Event], deltas: list[Delta]) -> None:
        read, count = 0, len(events)
        while read < count:
            if texts := self._template.texts(events, read):
                read += len(texts)
                self._characters += len("".join(texts))
                deltas += [Text(text) for text in texts]
            else:
                self._event(events[read].data, deltas)
                read += 1

    def finish(self) -> list[Delta]:
        """Deltas that remain at the clean end of the bytes, ending with `Finish`. Raises `ProviderFailure` when it was cut."""
        if self._failure is not None:
            raise self._failure
        deltas: list[Delta] = []
        for event in self._sse.finish():
            self._event(event.data, deltas)
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
        for choice in self._choices(value):
            if choice.get("finish_reason") is None:
                choice["finish_reason"] = "stop"
        self._chunk(value, deltas)
        if not self._reasons:
            raise self._broken("the answer has no choices")
        deltas.append(self._finish())
        return deltas

    @property
    def done(self) -> bool:
        """Whether `[DONE]` or an error came: nothing after it belongs to this answer."""
        return self._done or self._failure is not None

    def _event(self, data: bytes, deltas: list[Delta]) -> None:
        if self._done:
            return
        if data.startswith(b"[DONE]"):
            self._done = True
            self._template.forget()
            return
        before = len(deltas)
        chunk = self._object(data)
        self._chunk(chunk, deltas)
        last = deltas[before] if len(deltas) == before + 1 else None
        if isinstance(last, Text) and last.extra is None and not last.choice and not chunk.get("usage"):
            choices = self._choices(chunk)
            if len(choices) == 1 and choices[0].get("finish_reason") is None:
                self._template.learn(data, _TEXT, last.text)

    def _chunk(self, chunk: dict[str, Any], deltas: list[Delta]) -> None:
        if "error" in chunk and (error := parse_error(chunk["error"])) is not None:
            raise to_failure(error, provider=self._provider)
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = parse_usage(cast(dict[str, Any], usage))
        self._beside.update(rest(chunk, _CHUNK_FIELDS))
        for choice in self._choices(chunk):
            self._choice(choice, deltas)

    def _choice(self, choice: dict[str, Any], deltas: list[Delta]) -> None:
        index = choice.get("index") or 0
        text = choice.get("text") or ""
        if type(index) is not int or type(text) is not str:
            raise self._broken("sent a choice of an unknown shape")
        self._seen.add(index)
        data: dict[str, Any] = {}
        if unknown := rest(choice, _CHOICE_FIELDS):
            data["choice"] = unknown
        if self._beside and not self._told:
            data["chunk"] = dict(self._beside)
            self._told = True
        if text or "choice" in data:
            self._characters += len(text)
            tokens = parse_logprobs(choice.get("logprobs")) if data else ()
            deltas.append(Text(text, index, Extra(WIRE, data) if data else None, False, tokens))
        reason = choice.get("finish_reason")
        if reason is not None and index not in self._reasons:
            known = _REASONS.get(str(reason), "stop")
            if reason != known:
                self._foreign[str(index)] = str(reason)
            self._reasons[index] = known

    def _finish(self) -> Finish:
        reasons: tuple[FinishReason, ...] = tuple([self._reasons[index] for index in sorted(self._reasons)])
        data: dict[str, Any] = {"chunk": self._beside} if self._beside else {}
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

    def _choices(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        value: Any = chunk.get("choices") or []
        if type(value) is not list or not all([type(item) is dict for item in cast(list[Any], value)]):
            raise self._broken("sent choices of an unknown shape")
        return cast(list[dict[str, Any]], value)
