"""Every stream log keeps the contract, and agrees with a model of ten lines."""

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cauce.domain.delta import Finish, Text
from cauce.domain.stream import Commit, Hold
from cauce.ports.stream_log import Cancelled, Fenced, StreamLog
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.stream_log_contract import KEY, StreamLogContract, created


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestInprocStreamLog(StreamLogContract):
    @pytest.fixture
    def log(self, clock: FakeClock) -> StreamLog:
        return InprocStreamLog(clock)

    async def test_oldest_ended_streams_go_first_when_memory_is_short(self, clock: FakeClock) -> None:
        log = InprocStreamLog(clock, max_bytes=1024)
        await log.append(
            await log.append(await created(log), Commit((Text("x" * 2000),), "running")),
            Commit((Finish("stop"),), "completed"),
        )
        assert await log.sweep() == 1


class LogMachine(RuleBasedStateMachine):
    """The model is a list of texts, a flag and an end."""

    def __init__(self) -> None:
        super().__init__()
        self.log = InprocStreamLog(FakeClock())
        self.hold = asyncio.run(created(self.log))
        self.texts: list[str] = []
        self.cancelled = False
        self.ended = False

    def append(self, hold: Hold, commit: Commit) -> type[Exception] | None:
        try:
            fresh = asyncio.run(self.log.append(hold, commit))
        except (Fenced, Cancelled) as refused:
            return type(refused)
        self.hold = fresh
        return None

    @rule(words=st.lists(st.text(max_size=3), min_size=1, max_size=3))
    def write(self, words: list[str]) -> None:
        refused = self.append(self.hold, Commit(tuple([Text(word) for word in words]), "running"))
        expected = Fenced if self.ended else Cancelled if self.cancelled else None
        assert refused is expected
        if refused is None:
            self.texts += words

    @rule(behind=st.integers(1, 3))
    def write_with_a_stale_hold(self, behind: int) -> None:
        stale = Hold(KEY, self.hold.epoch, self.hold.tail - behind)
        assert self.append(stale, Commit((Text("stale"),), "running")) is Fenced

    @rule()
    def cancel(self) -> None:
        asyncio.run(self.log.request_cancel(KEY))
        self.cancelled = self.cancelled or not self.ended

    @precondition(lambda self: self.texts or self.cancelled)
    @rule()
    def finish(self) -> None:
        outcome = "cancelled" if self.cancelled else "completed"
        refused = self.append(self.hold, Commit((Finish("stop", outcome=outcome),), outcome))
        assert refused is (Fenced if self.ended else None)
        self.ended = True

    @invariant()
    def log_is_the_model(self) -> None:
        records = asyncio.run(self.log.read(KEY, 0, 10_000))
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert [record.delta.text for record in records if isinstance(record.delta, Text)] == self.texts
        assert sum(isinstance(record.delta, Finish) for record in records) == int(self.ended)


TestLogMachine = LogMachine.TestCase
