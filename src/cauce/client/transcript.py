"""What has come of an answer so far: a fold over frames, without anything of connections."""

from typing import Any

import msgspec

from cauce.client.answer import Answer
from cauce.domain.delta import Delta, Finish, Reasoning, Refusal, Restart, Text, ToolCall
from cauce.domain.message import ToolCallPart
from cauce.wire.native.answer import AttemptBody
from cauce.wire.native.decode import Frame


class Transcript:
    """`whole`: the stream is read from its first record on, so that the pieces together are the text.

    `partial` is the object so far, where JSON was asked for; `finish` the end, once it is there.
    """

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._text: list[tuple[int, str]] = []
        self._reasoning: list[tuple[int, str]] = []
        self._calls: list[tuple[int, ToolCallPart]] = []
        self._end: dict[str, Any] = {}
        self.partial: Any = None
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        """The text so far. Of a stream that is read on, only what has come here, until its end brings the whole."""
        if self._whole or self.finish is None:
            return "".join([text for _, text in self._text])
        return self._end["partial"] if self.finish.error is not None else self._end["data"]

    @property
    def reasoning(self) -> str:
        """What the model has thought so far, as far as it is shown."""
        return "".join([text for _, text in self._reasoning])

    def feed(self, seq: int, frame: Frame) -> None:
        """Take in the frame of record `seq`."""
        delta: Delta = frame.delta
        match delta:
            case Text(text) | Refusal(text):
                self._text.append((seq, text))
                self.partial = frame.told.get("partial", self.partial)
            case Reasoning(text):
                self._reasoning.append((seq, text))
            case ToolCall(_, call_id, name, arguments, "ready"):
                self._calls.append((seq, ToolCallPart(call_id, name, arguments)))
            case ToolCall(_, call_id, mark="abandoned"):
                self._calls = [one for one in self._calls if one[1].call_id != call_id]
            case Restart(from_seq):
                self._text = [one for one in self._text if one[0] < from_seq]
                self._calls = [one for one in self._calls if one[0] < from_seq]
                self.partial = None
            case Finish():
                self.finish = delta
                self._end = frame.told
                self.partial = frame.told.get("parsed", self.partial)
            case _:
                pass

    def answer(self, stream_id: str, request_id: str | None, seconds: float) -> Answer:
        """The whole, which took `seconds`. There must be a `finish`."""
        assert self.finish is not None
        end = self._end
        return Answer(
            self.text,
            end.get("model") or "",
            self.finish.reason,
            self.finish.usage,
            tuple(msgspec.convert(end.get("attempts", []), list[AttemptBody])),
            tuple([call for _, call in self._calls]),
            self.reasoning,
            end.get("parsed"),
            stream_id,
            request_id,
            seconds,
        )
