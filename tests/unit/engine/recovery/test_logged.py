"""Attempts of an answer that broke, in the log: each stands behind what the one before it gave."""

from typing import Any

import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Status, Text
from cauce.domain.request import Scope
from cauce.domain.usage import Usage
from cauce.engine.recovery.recovery import recovery
from cauce.engine.streams.streams import Streams
from cauce.ports.provider import Call, Deltas
from cauce.ports.resilience import RecoverySettings
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.scripted import ScriptedProvider
from cauce.testing.stream_samples import KEY, whole
from tests.unit.engine.guarded import ONCE, Guarded, failing

pytestmark = pytest.mark.anyio


class Broken(Guarded):
    """A turn whose answer breaks and is gone on with."""

    def __init__(self, *providers: ScriptedProvider) -> None:
        super().__init__(*providers, retries=ONCE)
        self._recovered = recovery(self.clock, RecoverySettings(), self.chance)(self.open)

    def call_of(self, request: Any, scope: Scope, **_: Any) -> Call:
        return super().call()

    async def answer(self, call: Call) -> Deltas:
        return await self._recovered(call)


class Turn:
    def __init__(self, broken: Broken) -> None:
        self.call = broken.call_of
        self.open = broken.answer


async def test_attempt_is_written_behind_the_text_of_the_one_that_broke() -> None:
    spoken = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep for a long and quiet time. "
    more = (Text("and then it wakes up again in the morning."), Finish("stop", Usage(1, 1)))
    broken = Broken(ScriptedProvider("p", (Text("a "), Text(spoken), failing())), ScriptedProvider("q", more))
    log = InprocStreamLog(broken.clock)
    turn: Any = Turn(broken)
    streams = Streams(log, turn, broken.clock)
    await streams.start(KEY, broken.call().request, Scope(), "req")
    while not isinstance((records := await whole(log))[-1].delta, Finish):
        await log.wait(KEY, records[-1].seq)
    deltas: list[Delta] = [record.delta for record in records]
    told = [
        delta.provider if isinstance(delta, Attempt) else delta.text if isinstance(delta, Text) else delta.kind
        for delta in deltas
        if isinstance(delta, Attempt | Text | Status)
    ]
    assert told == ["accepted", "p", "a " + spoken, "q", "seam", more[0].text]
