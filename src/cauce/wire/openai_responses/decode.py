"""Answers of the Responses wire read into deltas: the events of a stream, or one plain response.

A stream is complete once its terminal event has come, and nothing after that is read: some recordings hold several responses
one after the other. Unknown events about an item are passed on raw, all other unknown ones are ignored.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from cauce.domain.delta import Delta, Finish, FinishReason, Text
from cauce.domain.extra import Extra
from cauce.domain.request import Request
from cauce.domain.usage import Usage
from cauce.wire.decoding import Decoding
from cauce.wire.fields import rest
from cauce.wire.making import CallIds
from cauce.wire.openai_responses.content import parse_logprobs
from cauce.wire.openai_responses.errors import failure_in
from cauce.wire.openai_responses.names import WIRE
from cauce.wire.openai_responses.output import OutputReader
from cauce.wire.openai_responses.usage import parse_usage
from cauce.wire.sse import Event

_TEXT = "response.output_text.delta"
_QUIET = frozenset({"response.created", "response.in_progress", "response.queued"})
_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_REASONS: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
    "steered": "stop",
}
"""Of an incomplete response. Others are bounds of some kind."""
_NOT_ECHOED = frozenset({"id", "object", "output", "usage", "error"})


class _TextDelta(msgspec.Struct, gc=False):
    """The event most streams consist of. What else stands in it (an id, obfuscation) says nothing new."""

    type: str
    delta: str
    output_index: int = 0
    content_index: int = 0
    logprobs: list[Any] | None = None


_text_decoder = msgspec.json.Decoder(_TextDelta)


class ResponsesDecoder(Decoding):
    """State of one answer being read; see `Decoding`."""

    def __init__(
        self, provider: str, estimate: Callable[[Request], int] | None = None, request: Request | None = None
    ) -> None:
        super().__init__(provider, estimate, request)
        self._output = OutputReader(CallIds(request))
        self._finish: Finish | None = None

    def _events(self, events: Sequence[Event], deltas: list[Delta]) -> None:
        for event in events:
            self._event(event, deltas)

    def finish(self) -> list[Delta]:
        """Deltas that remain at the clean end of the bytes, ending with `Finish`. Raises `ProviderFailure` when it was cut."""
        if self._failure is not None:
            raise self._failure
        deltas: list[Delta] = []
        for event in self._sse.finish():
            self._event(event, deltas)
        if self._finish is None:
            raise self._broken("the stream ended without its terminal event: it was cut off", shape=False)
        deltas.append(self._finish)
        return deltas

    def completion(self, body: bytes) -> list[Delta]:
        """Deltas of a plain response, ending with `Finish`. Raises `ProviderFailure`."""
        deltas: list[Delta] = []
        value = self._object(body)
        if not isinstance(value.get("output"), list) and value.get("status") not in ("queued", "in_progress"):
            if value.get("error"):
                raise failure_in(value, self._provider)
            raise self._broken("answered with what is no response: does this server speak the Responses wire?")
        for item in cast(list[Any], value.get("output") or []):
            match item:
                case {"type": str()}:
                    continue
                case _:
                    raise self._broken("answered with output of an unknown shape")
        self._terminal(value, deltas)
        assert self._finish is not None
        deltas.append(self._finish)
        return deltas

    @property
    def done(self) -> bool:
        """Whether the terminal event or an error came: nothing after it belongs to this answer."""
        return self._finish is not None or self._failure is not None

    def _event(self, event: Event, deltas: list[Delta]) -> None:
        if self._finish is not None:
            return
        if event.event == _TEXT:
            try:
                piece = _text_decoder.decode(event.data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise self._broken(f"sent a piece of text of an unknown shape: {error}") from error
            output = self._output
            if (piece.output_index, piece.content_index) == output.place and not piece.logprobs:
                text = piece.delta
                output.piece.length += len(text)
                output.characters += len(text)
                deltas.append(Text(text))
                return
            output.text(piece.output_index, piece.content_index, piece.delta, deltas, parse_logprobs(piece.logprobs))
        elif not event.data.startswith(b"[DONE]"):
            self._read(self._object(event.data), deltas)

    def _read(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        kind = event.get("type")
        if not isinstance(kind, str):
            if event.get("error"):
                raise failure_in(event, self._provider)
            return
        if kind in _TERMINAL:
            response = event.get("response")
            if not isinstance(response, dict):
                raise self._broken(f"sent {kind} without a response")
            self._terminal(cast(dict[str, Any], response), deltas, kind.rpartition(".")[2])
        elif kind == "error":
            raise failure_in(event, self._provider)
        elif kind not in _QUIET:
            self._item_event(kind, event, deltas)

    def _item_event(self, kind: str, event: dict[str, Any], deltas: list[Delta]) -> None:
        output = self._output
        index, content = _index(event, "output_index"), _index(event, "content_index")
        match kind:
            case "response.output_item.added" if item := _member(event, "item"):
                output.added(index, item, _unnumbered(event, index), deltas)
            case "response.output_item.done" if item := _member(event, "item"):
                output.done(index, item, deltas)
            case "response.content_part.added":
                output.part(index, content, _member(event, "part"))
            case "response.output_text.delta":
                output.text(index, content, self._delta(event), deltas, parse_logprobs(event.get("logprobs")))
            case "response.output_text.annotation.added":
                if annotation := _member(event, "annotation"):
                    output.annotation(index, content, annotation, deltas)
            case "response.refusal.delta":
                output.refusal(index, content, self._delta(event), deltas)
            case "response.reasoning_summary_text.delta":
                place = _index(event, "summary_index")
                output.reasoning(index, "summary_text", place, self._delta(event), deltas)
            case "response.reasoning_text.delta":
                output.reasoning(index, "reasoning_text", content, self._delta(event), deltas)
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                output.called(index, self._delta(event), deltas)
            case _ if kind in _SAID_AGAIN:
                pass
            case _ if "output_index" in event and kind.isprintable():
                output.beside(index, _unnumbered(event, index), deltas)
            case _:
                pass

    def _terminal(self, response: dict[str, Any], deltas: list[Delta], named: str = "") -> None:
        """The end: `response` as it is then; `named` is the status that the event's name says."""
        status = response.get("status") or named
        if status == "failed" or named == "failed":
            raise failure_in(response, self._provider)
        if status == "cancelled":
            raise self._broken("the answer was cancelled there", shape=False)
        output = self._output
        items = response.get("output")
        changed: dict[str, Any] = {}
        for index, item in enumerate(cast(list[Any], items) if isinstance(items, list) else ()):
            if isinstance(item, dict):
                self._last_look(index, cast(dict[str, Any], item), changed, deltas)
        output.end(deltas)
        usage = response.get("usage")
        told = parse_usage(cast(dict[str, Any], usage)) if isinstance(usage, dict) else None
        data: dict[str, Any] = {"response": rest(response, _NOT_ECHOED)}
        if changed:
            data["items"] = changed
        self._finish = Finish(
            self._reason(status, response),
            self._used(told, self._output.characters),
            extra=Extra(WIRE, data),
        )

    def _last_look(self, index: int, item: dict[str, Any], changed: dict[str, Any], deltas: list[Delta]) -> None:
        """An item of the final response: new, or told already and perhaps different now."""
        known = self._output.items.get(index)
        if known is None or known.done is None:
            self._output.done(index, item, deltas)
            return
        different = {name: value for name, value in item.items() if known.done.get(name) != value}
        identifier = item.get("id")
        if different and isinstance(identifier, str) and identifier == known.done.get("id"):
            # Encrypted contents are encrypted anew each time they are told.
            changed[identifier] = different

    def _reason(self, status: Any, response: dict[str, Any]) -> FinishReason:
        if status == "incomplete":
            details = response.get("incomplete_details")
            word = cast(dict[str, Any], details).get("reason") if isinstance(details, dict) else None
            return _REASONS.get(word, "length") if isinstance(word, str) else "length"
        if self._output.refused:
            return "content_filter"
        return "tool_calls" if self._output.calls else "stop"

    def so_far(self) -> Usage:
        """What the answer has used by now, as far as can be told: figures are reported at the end only."""
        return self._estimated(self._output.characters)

    def _delta(self, event: dict[str, Any]) -> str:
        delta = event.get("delta")
        if not isinstance(delta, str):
            raise self._broken("sent a delta that is no text")
        return delta


_SAID_AGAIN = frozenset(
    {
        "response.content_part.done",
        "response.output_text.done",
        "response.refusal.done",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.done",
        "response.reasoning_text.done",
    }
)
"""Events that repeat what the pieces and the finished item say."""


def _index(event: dict[str, Any], name: str) -> int:
    value = event.get(name)
    return value if type(value) is int else 0


def _member(event: dict[str, Any], name: str) -> dict[str, Any]:
    """A member that is an object; empty where it is none: some servers announce an item without saying which."""
    member = event.get(name)
    return cast(dict[str, Any], member) if isinstance(member, dict) else {}


def _unnumbered(event: dict[str, Any], index: int) -> dict[str, Any]:
    """`event`, about the item at `index`, without its number: it gets one of ours."""
    return {**{name: value for name, value in event.items() if name != "sequence_number"}, "output_index": index}
