"""What a page makes of a UI message stream: the rules of `processUIMessageStream` in the AI SDK, and no more than them."""

from typing import Any

import msgspec

_REQUIRED: dict[str, tuple[str, ...]] = {
    "start": (),
    "start-step": (),
    "finish-step": (),
    "reset-step": (),
    "finish": (),
    "abort": (),
    "error": ("errorText",),
    "message-metadata": ("messageMetadata",),
    "text-start": ("id",),
    "text-delta": ("id", "delta"),
    "text-end": ("id",),
    "reasoning-start": ("id",),
    "reasoning-delta": ("id", "delta"),
    "reasoning-end": ("id",),
    "tool-input-start": ("toolCallId", "toolName"),
    "tool-input-delta": ("toolCallId", "inputTextDelta"),
    "tool-input-available": ("toolCallId", "toolName"),
    "tool-input-error": ("toolCallId", "toolName", "errorText"),
    "tool-output-available": ("toolCallId",),
    "tool-output-error": ("toolCallId", "errorText"),
    "source-url": ("sourceId", "url"),
    "source-document": ("sourceId", "mediaType", "title"),
}
_FINISHES = {"stop", "length", "content-filter", "tool-calls", "error", "other"}
"""Those that every version of the SDK knows."""


class Reader:
    """Reads chunks into a message, and fails where the SDK would."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.parts: list[dict[str, Any]] = []
        self.metadata: dict[str, Any] = {}
        self.transient: list[dict[str, Any]] = []
        self.finish: str | None = None
        self.error: str | None = None
        self.aborted = False
        self.done = False
        self.kinds: list[str] = []
        self._active: dict[tuple[str, str], dict[str, Any]] = {}

    def read(self, raw: bytes) -> "Reader":
        *events, rest = raw.split(b"\n\n")
        assert rest == b"", "an event ends with a blank line"
        for event in events:
            data = [line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")]
            assert len(data) == 1, event
            assert not self.done, "nothing follows [DONE]"
            if data[0] == b"[DONE]":
                self.done = True
            else:
                assert self.error is None, "nothing after an error is read"
                self._chunk(msgspec.json.decode(data[0]))
        return self

    @property
    def text(self) -> str:
        return "".join([part["text"] for part in self.parts if part["type"] == "text"])

    @property
    def reasoning(self) -> str:
        return "".join([part["text"] for part in self.parts if part["type"] == "reasoning"])

    @property
    def tools(self) -> list[dict[str, Any]]:
        return [part for part in self.parts if part["type"].startswith("tool-")]

    def body(self, role: str = "assistant") -> dict[str, Any]:
        """The message as a page posts it with the next one."""
        return {"id": self.id or "made-here", "role": role, "parts": self.parts, "metadata": self.metadata}

    def _chunk(self, chunk: dict[str, Any]) -> None:
        kind = chunk["type"]
        self.kinds.append(kind)
        if kind.startswith("data-"):
            assert chunk["transient"] is True and chunk["data"] is not None
            self.transient.append(chunk["data"])
            return
        for name in _REQUIRED[kind]:
            assert isinstance(chunk[name], str) or name == "messageMetadata", chunk
        self.metadata |= chunk.get("messageMetadata", {})
        match kind:
            case "start":
                self.id = chunk.get("messageId")
            case "start-step":
                self.parts.append({"type": "step-start"})
            case "reset-step":
                del self.parts[self._step() :]
                self._active.clear()
            case "text-start" | "reasoning-start":
                part = {"type": kind.removesuffix("-start"), "text": "", "state": "streaming"}
                self._active[part["type"], chunk["id"]] = part
                self.parts.append(part)
            case "text-delta" | "reasoning-delta":
                self._active[kind.removesuffix("-delta"), chunk["id"]]["text"] += chunk["delta"]
            case "text-end" | "reasoning-end":
                part = self._active.pop((kind.removesuffix("-end"), chunk["id"]))
                part["state"] = "done"
                if "providerMetadata" in chunk:
                    part["providerMetadata"] = chunk["providerMetadata"]
            case "source-url" | "source-document":
                self.parts.append(chunk)
            case "finish":
                assert chunk["finishReason"] in _FINISHES
                self.finish = chunk["finishReason"]
            case "error":
                self.error = chunk["errorText"]
            case "abort":
                self.aborted = True
            case _ if kind.startswith("tool-"):
                self._tool(kind, chunk)
            case _:
                pass

    def _step(self) -> int:
        places = [place for place, part in enumerate(self.parts) if part["type"] == "step-start"]
        return places[-1] + 1 if places else 0

    def _tool(self, kind: str, chunk: dict[str, Any]) -> None:
        call_id = chunk["toolCallId"]
        step = [part for part in self.parts[self._step() :] if part.get("toolCallId") == call_id]
        match kind:
            case "tool-input-start":
                assert not step, "a call begins once"
                named = {"type": f"tool-{chunk['toolName']}", "toolCallId": call_id}
                self.parts.append({**named, "state": "input-streaming", "written": ""})
            case "tool-input-delta":
                assert step[0]["state"] == "input-streaming"
                step[0]["written"] += chunk["inputTextDelta"]
            case "tool-input-available":
                step[0].update(state="input-available", input=chunk["input"])
            case "tool-input-error":
                step[0].update(state="output-error", input=chunk["input"], errorText=chunk["errorText"])
            case "tool-output-available" | "tool-output-error":
                (part,) = [part for part in self.parts if part.get("toolCallId") == call_id]
                part["state"] = kind.removeprefix("tool-")
                part.update({name: chunk[name] for name in ("output", "errorText") if name in chunk})
            case _:
                raise AssertionError(kind)
        if "providerMetadata" in chunk:
            step[0]["callProviderMetadata"] = chunk["providerMetadata"]
