"""Answers of the Responses wire that are written from a stream's log: the same events for everybody, whenever they are read.

A log knows more than an answer that just passes: that it waits, that a call was given up, that an answer begins anew.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.delta import Delta, Finish, Restart, Status, ToolCall
from cauce.domain.request import Request
from cauce.domain.signature import Signature
from cauce.wire.openai_responses.errors import render_failure
from cauce.wire.openai_responses.render import ResponsesProjector
from cauce.wire.openai_responses.response import Head, response_object
from cauce.wire.openai_responses.tools import custom_names
from cauce.wire.openai_responses.usage import render_usage

INTERRUPTED = "interrupted"
"""Why a response is incomplete whose answer broke, and could not be gone on with."""


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a response repeats of its request, and the items it is answered to, those of earlier turns included.

    It is kept with the stream, so that whoever reads the log writes the same events. `keep`: the response is kept beyond it.
    """

    echo: dict[str, Any]
    context: tuple[msgspec.Raw, ...] = ()
    background: bool = False
    keep: bool = True


def head_of_stream(stream_id: str, created: float, request: Request, asked: Asked) -> Head:
    """The head of the response that the stream is."""
    return Head(stream_id, int(created), asked.echo, custom_names(request.tools))


def standing(head: Head, status: str) -> dict[str, Any]:
    """A response that has not ended: `status` is `queued` or `in_progress`."""
    return response_object(head, status, (), {})


class LoggedProjector(ResponsesProjector):
    """Records in, events out, to be fed from record 1 on. The whole response has the items that are left at the end.

    `queued`: the response waits until somebody is asked for its answer, and says so.
    """

    def __init__(self, head: Head, *, queued: bool = False) -> None:
        super().__init__(head)
        self._waits = queued
        self._seq = 0
        self._begun: list[int] = []
        """By output index, the record that an item began with."""
        self._gone: set[int] = set()
        """Output indices of items that the whole response does not have."""
        self._proofs: dict[str, int] = {}
        """By call id, the output index of its signature."""
        self._discarded: list[str] = []
        """Ids of items whose place the next one takes."""
        self._heirs: dict[int, list[str]] = {}
        """By output index, the ids of the items whose place an item takes."""

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """The events of the records with `deltas`."""
        if len(deltas) == 1:
            self._seq += 1
            return super().feed(deltas)
        return b"".join([self.feed((delta,)) for delta in deltas])

    def _begin(self, out: list[bytes]) -> None:
        if not self._waits:
            super()._begin(out)
            return
        queued = standing(self._head, "queued")
        self._emit(out, "response.created", {"response": queued})
        self._emit(out, "response.queued", {"response": queued})

    def _render(self, delta: Delta, out: list[bytes]) -> None:
        if self._waits and not isinstance(delta, Status | Finish):
            self._waits = False
            self._emit(out, "response.in_progress", {"response": standing(self._head, "in_progress")})
        if isinstance(delta, Restart):
            self._restart(delta, out)
        else:
            super()._render(delta, out)

    def _restart(self, restart: Restart, out: list[bytes]) -> None:
        """Take back what began with `from_seq` or later: such items are incomplete, and the next one says whose place it takes."""
        self._interrupt(out)
        for index, begun in enumerate(self._begun):
            if begun >= restart.from_seq and index not in self._gone:
                self._gone.add(index)
                item = self._output[index]
                self._discarded.extend([item["id"]] if "id" in item else [])
                if item.get("status") != "incomplete":
                    self._done(index, {**item, "status": "incomplete"}, out)

    def _call(self, delta: ToolCall, out: list[bytes]) -> None:
        call = self._calls.get(delta.index)
        super()._call(delta, out)
        if delta.mark == "abandoned" and call is not None:
            self._gone.update([call.index] if call.opened else [])
            self._gone.update([self._proofs[delta.call_id]] if delta.call_id in self._proofs else [])

    def _proof(self, call_id: str, signature: Signature, out: list[bytes]) -> None:
        self._proofs[call_id] = len(self._output)
        super()._proof(call_id, signature, out)

    def _add(self, item: dict[str, Any], out: list[bytes]) -> None:
        index = len(self._output)
        self._begun.append(self._seq)
        if self._discarded:
            self._heirs[index], self._discarded = self._discarded, []
        super()._add(self._inheriting(index, item), out)

    def _done(self, index: int, item: dict[str, Any], out: list[bytes]) -> None:
        super()._done(index, self._inheriting(index, item), out)

    def _inheriting(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        heir = self._heirs.get(index)
        return item if heir is None else {**item, "supersedes": heir}

    def _shown(self) -> list[dict[str, Any]]:
        return [item for index, item in enumerate(self._output) if index not in self._gone]

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        if finish.error is None or finish.outcome != "incomplete":
            super()._finish(finish, out)
            return
        self._interrupt(out)
        _, error = render_failure(finish.error)
        counted = render_usage(finish.usage) if finish.usage.total_tokens else None
        fields = {"incomplete_details": {"reason": INTERRUPTED}, "error": error, "usage": counted}
        self.response = response_object(self._head, "incomplete", self._shown(), fields)
        self._emit(out, "response.incomplete", {"response": self.response})
