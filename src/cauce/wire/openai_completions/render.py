"""Answers of the completions wire written from deltas: chunks of a stream, or one plain completion."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.completion import Completion
from cauce.domain.delta import Delta, Finish, FinishReason, Refusal, Text
from cauce.domain.extra import Extra
from cauce.domain.usage import Usage
from cauce.wire.openai_chat.answer import Head
from cauce.wire.openai_chat.errors import render_failed
from cauce.wire.openai_chat.usage import render_usage
from cauce.wire.openai_completions.logprobs import render_logprobs
from cauce.wire.openai_completions.request import WIRE
from cauce.wire.sse import one_line

_encode = msgspec.json.Encoder().encode
_DONE = b"data: [DONE]\n\n"
_AFTER_TEXT = b"}]}\n\n"

_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "content_filter": "content_filter",
    "cancelled": "stop",
    "error": "stop",
}


class CompletionProjector:
    """Deltas in, chunks out. `echo` is shown before the answer. What a model thinks or wants called has no place here."""

    def __init__(self, head: Head, *, include_usage: bool = False, echo: str = "") -> None:
        self._head = _head(head)
        opening = b',"choices":[{"index":0,"logprobs":null,"finish_reason":null,"text":'
        self._before = b"data: " + _encode(self._head)[:-1] + opening
        self._include_usage = include_usage
        self._echo = echo
        self._lengths: dict[int, int] = {}
        self._opened: set[int] = set()

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The chunks of `deltas`, ready to be written at once."""
        out: list[bytes] = []
        for delta in deltas:
            if (
                type(delta) is Text
                and delta.extra is None
                and not delta.choice
                and not delta.logprobs
                and 0 in self._opened
            ):
                out.append(self._before + _encode(delta.text) + _AFTER_TEXT)
            elif isinstance(delta, Text | Refusal):
                self._text(delta, out)
            elif isinstance(delta, Finish):
                self._finish(delta, out)
        return one_line(b"".join(out))

    def _text(self, delta: Text | Refusal, out: list[bytes]) -> None:
        self._open(delta.choice, out)
        offset = self._lengths.get(delta.choice, 0)
        tokens = delta.logprobs if isinstance(delta, Text) else ()
        if tokens:
            self._lengths[delta.choice] = offset + sum([len(token.token) for token in tokens])
        logprobs = render_logprobs(tokens, offset) if tokens else None
        out.append(self._chunk({**_choice(delta.choice, delta.text), "logprobs": logprobs}, delta.extra))

    def _open(self, choice: int, out: list[bytes]) -> None:
        if choice not in self._opened:
            self._opened.add(choice)
            self._lengths[choice] = len(self._echo)
            if self._echo:
                out.append(self._chunk(_choice(choice, self._echo), None))

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        if finish.error is not None:
            out.append(b"data: " + _encode(render_failed(finish.error)) + b"\n\n")
            return
        for choice, reason in enumerate(finish.reasons or (finish.reason,)):
            self._open(choice, out)
            out.append(self._chunk(_choice(choice, "", _reason(choice, reason, finish.extra)), finish.extra))
        if self._include_usage:
            beside = _own(finish.extra).get("chunk", {})
            chunk: dict[str, Any] = {**beside, **self._head, "choices": [], "usage": render_usage(finish.usage)}
            out.append(b"data: " + _encode(chunk) + b"\n\n")
        out.append(_DONE)

    def _chunk(self, choice: dict[str, Any], extra: Extra | None) -> bytes:
        kept = _own(extra)
        beside, own = kept.get("chunk", {}), kept.get("choice", {})
        return b"data: " + _encode({**beside, **self._head, "choices": [{**choice, **own}]}) + b"\n\n"


def render_completions(completions: Sequence[Completion], head: Head, echoes: Sequence[str]) -> bytes:
    """The plain answer to one or several prompts, as JSON: the choices of the first, then those of the next."""
    body = _head(head)
    choices: list[dict[str, Any]] = []
    for completion, echo in zip(completions, echoes, strict=True):
        for number, choice in enumerate(completion.choices):
            reason = _reason(number, choice.finish_reason, completion.extra)
            one = _choice(len(choices), echo + (choice.text or choice.refusal), reason)
            if choice.logprobs:
                one["logprobs"] = render_logprobs(choice.logprobs, len(echo))
            for extra in choice.extras:
                one.update(_own(extra).get("choice", {}))
            choices.append(one)
        body = {**_own(completion.extra).get("chunk", {}), **body}
    body["choices"] = choices
    body["usage"] = render_usage(_sum([completion.usage for completion in completions]))
    return _encode(body)


def _sum(usages: list[Usage]) -> Usage:
    if len(usages) == 1:
        return usages[0]
    return Usage(
        sum([usage.input_tokens for usage in usages]),
        sum([usage.output_tokens for usage in usages]),
        sum([usage.cached_tokens for usage in usages]),
        sum([usage.cache_write_tokens for usage in usages]),
        sum([usage.reasoning_tokens for usage in usages]),
    )


def _head(head: Head) -> dict[str, Any]:
    return {"id": head.id, "object": "text_completion", "created": head.created, "model": head.model}


def _choice(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _reason(choice: int, reason: FinishReason, extra: Extra | None) -> str:
    words: dict[str, str] = _own(extra).get("finish_reasons", {})
    return words.get(str(choice), _REASONS[reason])


def _own(extra: Extra | None) -> dict[str, Any]:
    return extra.data if extra is not None and extra.wire == WIRE else {}
