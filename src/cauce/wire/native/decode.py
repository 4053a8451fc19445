"""Stream frames of the native wire read back into deltas, as its clients need them.

What a frame does not carry does not come back: signatures of reasoning, and the content of opaque blocks.
"""

from typing import Any, cast

import msgspec

from cauce.domain.delta import (
    Attempt,
    Citation,
    Delta,
    Failed,
    Finish,
    Reasoning,
    Refusal,
    Restart,
    Status,
    Text,
    ToolCall,
    ToolResult,
)
from cauce.domain.errors import ProviderFailure
from cauce.domain.usage import Usage
from cauce.wire.sse import Event, EventTooLarge, SSEDecoder

_SHOWN = frozenset({"id", "seq", "type", "data", "epoch"})


class Frame(msgspec.Struct, frozen=True):
    """One frame. `told` is its JSON, as it came; `seq` is None where the frame stands for no record of the stream."""

    seq: int | None
    delta: Delta
    told: dict[str, Any]


class NativeDecoder:
    """State of one stream being read. `cursor` is the sequence number of the last frame: what to resume from."""

    def __init__(self) -> None:
        self._sse = SSEDecoder()
        self._attempts = 0
        self._calls: dict[str, int] = {}
        self.cursor = 0

    def feed(self, data: bytes) -> list[Delta]:
        """Deltas of the frames that `data` completes. Raises `ProviderFailure` for what is no frame."""
        return [frame.delta for frame in self.frames(data)]

    def frames(self, data: bytes) -> list[Frame]:
        """The same with what stands beside the deltas."""
        try:
            return [self._frame(event) for event in self._sse.feed(data)]
        except EventTooLarge as error:
            raise _broken(str(error)) from error

    def reconnected(self) -> None:
        """What comes now comes over another connection: what the last one left half said is dropped."""
        self._sse = SSEDecoder()

    def _frame(self, event: Event) -> Frame:
        try:
            frame = msgspec.json.decode(event.data, type=dict[str, Any])
            seq: int | None = frame.get("seq")
            self.cursor = max(self.cursor, seq or 0)
            delta = self._read(frame, {name: value for name, value in frame.items() if name not in _SHOWN})
            return Frame(seq, delta, frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as error:
            raise _broken(f"sent what is no frame: {error!r}") from error

    def _read(self, frame: dict[str, Any], beside: dict[str, Any]) -> Delta:
        data = frame["data"]
        match frame["type"]:
            case "start":
                return Status("resumed" if beside.get("resumed") else "accepted", facts=beside)
            case "content":
                return Refusal(data) if beside.get("refusal") else Text(data)
            case "thinking":
                return Reasoning(data)
            case "tool_call":
                index = self._calls.setdefault(data["call_id"], len(self._calls))
                return ToolCall(index, data["call_id"], data["name"], data["arguments"], beside["mark"])
            case "tool_result":
                return ToolResult(data["call_id"], data["name"], data["content"], beside.get("error"))
            case "status":
                return self._status(data, beside)
            case "error" if beside.get("retrying"):
                return self._attempt(beside, reason=data)
            case "complete" | "cancelled" | "error":
                return _finish(frame["type"], data, beside)
            case other:
                # A newer server may say more than we know.
                return Status(str(other), str(data), beside)

    def _status(self, data: str, beside: dict[str, Any]) -> Delta:
        kind = beside.pop("status")
        if kind == "attempt":
            return self._attempt(beside, reason=None)
        if kind == "citation":
            return msgspec.convert(beside, Citation)
        if kind == "restart":
            return Restart(beside["from_seq"], data)
        return Status(kind, data, beside)

    def _attempt(self, beside: dict[str, Any], reason: str | None) -> Attempt:
        self._attempts += 1
        provider: str = beside["provider"]
        model = cast(str, beside["model"]).removeprefix(provider).removeprefix("/")
        return Attempt(
            self._attempts,
            provider,
            model,
            beside["level"],
            strategy=beside.get("strategy", "open"),
            reason=reason,
            reason_code=beside.get("error_code"),
        )


def _finish(kind: str, data: str, beside: dict[str, Any]) -> Finish:
    usage = msgspec.convert(
        {**beside["usage"], "cost": beside.get("cost", 0.0), "cost_source": beside.get("cost_source", "unpriced")},
        Usage,
    )
    if kind == "complete":
        return Finish(beside["finish_reason"], usage)
    if kind == "cancelled":
        reason = beside.get("reason", "cancelled")
        return Finish("cancelled", usage, outcome="cancelled", cause="" if reason == "cancelled" else reason)
    failed = Failed(beside["error_code"], data, beside.get("retry_after"))
    return Finish("error", usage, outcome="incomplete" if beside["partial"] else "failed", error=failed)


def _broken(what: str) -> ProviderFailure:
    return ProviderFailure(f"the stream {what}", failure="transient", provider="cauce")
