"""Streams and their log: what nobody writes any more gets an end, what is another's is left alone."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Text
from cauce.domain.errors import Overloaded
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, Scope
from cauce.domain.signature import Signature
from cauce.domain.stream import AttemptRow, Commit, Head, Hold, StreamKey, StreamLimits, Upstream
from cauce.domain.usage import Usage
from cauce.engine.streams.bills import Bills
from cauce.engine.streams.settings import ALONE, Life
from cauce.engine.streams.streams import Streams
from cauce.ports.ledger import Entry
from cauce.ports.provider import Call, Deltas
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock
from cauce.testing.stream_samples import KEY, LEASE, bills, created, head_of, new_stream, text, whole

pytestmark = pytest.mark.anyio

REQUEST = Request("m", (Message("user", (TextPart("hi"),)),))
LASTING = Life(lasting=True, lease=LEASE)


class Answer:
    """Stands for a turn: gives `batches` (`slowly`: each in its own time) and then, unless told to `stall`, nothing more."""

    def __init__(self, *batches: Sequence[Delta], stall: bool = False, slowly: bool = False) -> None:
        self._batches = batches
        self._stall = stall
        self._slowly = slowly
        self.calls: list[Call] = []
        self.closed = asyncio.Event()

    def call(self, request: Request, scope: Scope, **named: Any) -> Call:
        return Call(request, scope, (), named["request_id"])

    async def open(self, call: Call) -> Deltas:
        self.calls.append(call)
        return Deltas(self._source())

    async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
        try:
            for batch in self._batches:
                yield batch
                for _ in range(20 * self._slowly):
                    await asyncio.sleep(0)
            if self._stall:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


def streams(
    log: InprocStreamLog, clock: FakeClock, answer: Answer | None = None, node: str = "a", life: Life = ALONE
) -> Streams:
    turn: Any = answer or Answer()
    return Streams(log, turn, clock, node, life)


@contextlib.asynccontextmanager
async def tended(some: Streams) -> Any:
    """Within it, holds are renewed and what is orphaned is ended."""
    task = asyncio.create_task(some.sweep_forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def start(some: Streams) -> None:
    await some.start(KEY, REQUEST, Scope(), "req")


async def until_text(log: InprocStreamLog) -> None:
    while not any(isinstance(record.delta, Text) for record in await whole(log)):
        await log.wait(KEY, (await head_of(log)).tail)


async def until_ended(log: InprocStreamLog) -> Finish:
    while True:
        records = await whole(log)
        if isinstance(records[-1].delta, Finish):
            return records[-1].delta
        await log.wait(KEY, len(records))


async def passing(clock: FakeClock, what: asyncio.Event | asyncio.Task[Any]) -> None:
    """Let time go on until `what` has come."""
    waiting = what if isinstance(what, asyncio.Task) else asyncio.create_task(what.wait())
    while not waiting.done():
        if clock.waiting:
            clock.advance(3)
        await asyncio.sleep(0)


async def test_orphans_are_ended_as_incomplete_failed_or_cancelled() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    holds: dict[str, Hold] = {}
    for id in ("with text", "without", "cancelled", "ended"):
        hold = await created(log, StreamKey("tenant/key", id))
        opened = (Attempt(1, "up", "m", "primary"), Text("a")) if id != "without" else ()
        rows = (AttemptRow(1, "up", "m"),) if opened else ()
        holds[id] = await log.append(hold, Commit(opened, "running" if opened else None, attempts=rows))
    await log.request_cancel(holds["cancelled"].key)
    holds["ended"] = await log.append(holds["ended"], Commit((Finish("stop"),), "completed"))
    await log.release(list(holds.values()))
    await streams(log, clock).adopt()
    states = {id: (await head_of(log, hold.key)).state for id, hold in holds.items()}
    assert states == {"with text": "incomplete", "without": "failed", "cancelled": "cancelled", "ended": "completed"}
    (bill,) = await bills(log, holds["with text"].key)
    assert bill.outcome == "failed" and bill.usage is not None
    assert bill.usage.estimated and bill.usage.input_tokens > 0 and bill.usage.output_tokens > 0
    assert await log.orphans(10) == []


async def test_more_orphans_than_are_ended_at_a_time_are_all_ended() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    await log.release([await created(log, StreamKey("tenant/key", str(number))) for number in range(250)])
    await streams(log, clock).adopt()
    assert await log.orphans(10) == []


async def test_cancel_on_any_node_reaches_the_holder() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    holder, other = streams(log, clock, answer), streams(log, clock, node="b")
    async with tended(holder):
        await start(holder)
        await until_text(log)
        cancelling = asyncio.create_task(other.cancel(KEY))
        await passing(clock, answer.closed)
        assert (await until_ended(log)).outcome == "cancelled"
        await passing(clock, cancelling)


async def test_silent_stream_keeps_its_lease_while_its_holder_works() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    holder = streams(log, clock, answer)
    async with tended(holder):
        await start(holder)
        await until_text(log)
        for _ in range(10):
            await clock.until_waiting(4)
            clock.advance(3)
            assert await log.orphans(10) == []
        assert not answer.closed.is_set()
    await holder.drain(0)


async def test_zombie_closes_its_upstream_and_writes_nothing_more() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    zombie = streams(log, clock, answer)
    await start(zombie)
    await until_text(log)
    clock.advance(LEASE + 1)
    hold = await log.claim((await log.orphans(1))[0], "b")
    assert hold is not None
    hold = await log.append(hold, text("b"))
    async with tended(zombie):
        await passing(clock, answer.closed)
        while zombie.open_streams:
            await asyncio.sleep(0)
    assert [record.delta for record in await whole(log)][1:] == [Text("a"), Text("b")]


class Refusing(InprocStreamLog):
    """Takes nothing while `full`."""

    full = False

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        if self.full:
            raise LogUnavailable("the disk is full")
        return await super().append(hold, commit)


async def test_stream_that_cannot_be_written_closes_its_upstream_and_is_opened_anew_once_it_can() -> None:
    clock = FakeClock()
    log = Refusing(clock)
    answer = Answer((Text("a"),), (Finish("stop"),))
    some = streams(log, clock, answer)
    log.full = True
    await start(some)
    await answer.closed.wait()
    while some.open_streams:
        await asyncio.sleep(0)
    assert not (await head_of(log)).ended
    log.full = False
    async with tended(some):
        ending = asyncio.create_task(until_ended(log))
        await passing(clock, ending)
        assert ending.result().outcome == "completed"
    assert [record.delta for record in await whole(log)][1:2] == [Text("a")]


async def test_terminal_and_the_bills_of_all_attempts_are_one_commit() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    first, second = Attempt(1, "up", "m", "primary"), Attempt(2, "two", "n", "fallback", reason="busy")
    some = streams(log, clock, Answer((first,), (second, Text("a")), (Finish("stop", Usage(3, 4)),)))
    await start(some)
    await until_ended(log)
    assert await bills(log) == [
        AttemptRow(1, "up", "m", outcome="failed"),
        AttemptRow(2, "two", "n", usage=Usage(3, 4), outcome="completed"),
    ]


@pytest.mark.parametrize(
    ("batches", "outcome"),
    [
        ([(Text("x" * 500),)] * 100, "incomplete"),
        ([(Reasoning("x" * 500),)] * 100, "failed"),
        ([(Reasoning("x" * 500),)] * 4 + [(Text("x" * 9_000),)], "failed"),
    ],
    ids=["text", "reasoning", "text that is not in the log"],
)
async def test_answer_that_is_too_long_for_a_stream_ends_it(batches: list[tuple[Delta]], outcome: str) -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, limits=StreamLimits(bytes=4_000))
    answer = Answer(*batches, stall=True, slowly=True)
    some = streams(log, clock, answer)
    await start(some)
    finish = await until_ended(log)
    assert finish.outcome == outcome and finish.error is not None and finish.error.code == "payload_too_large"
    assert any([isinstance(record.delta, Text) for record in await whole(log)]) == (outcome == "incomplete")
    await answer.closed.wait()


async def test_record_keeps_the_epoch_it_was_written_in() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    hold = await log.append((await log.create(new_stream())).hold or Hold(KEY, 0, 0), text("a"))
    await log.release([hold])
    some = streams(log, clock)
    await some.adopt()
    assert [await some.epoch(KEY, seq) for seq in (1, 2, 3, 4)] == [1, 1, 2, 0]
    batches = [batch async for batch in some.follow(KEY, 0)]
    assert [[record.epoch for record in batch] for batch in batches] == [[1, 1], [2]]


class Gone(InprocStreamLog):
    """Answers nothing while `gone`."""

    gone = False

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Any]:
        if self.gone:
            raise LogUnavailable("no server")
        return await super().renew(holds)


async def test_node_that_cannot_reach_its_log_for_a_lease_closes_its_upstreams() -> None:
    clock = FakeClock()
    log = Gone(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    some = streams(log, clock, answer, life=LASTING)
    async with tended(some):
        await start(some)
        await until_text(log)
        log.gone = True
        for _ in range(round(LEASE)):
            await clock.until_waiting()
            clock.advance(1)
            await asyncio.sleep(0)
        assert not answer.closed.is_set()
        await passing(clock, answer.closed)
        while some.open_streams:
            await asyncio.sleep(0)
    assert not (await head_of(log)).ended, "whoever reaches it goes on"


class Stuck(InprocStreamLog):
    """Keeps whoever asks waiting until it is `freed`, once it is `stuck`."""

    stuck = False

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, lease=LEASE)
        self.freed = asyncio.Event()

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Any]:
        if self.stuck:
            await self.freed.wait()
        return await super().renew(holds)


async def test_node_that_is_kept_waiting_by_its_log_closes_its_upstreams_after_a_lease() -> None:
    clock = FakeClock()
    log = Stuck(clock)
    answer = Answer((Text("a"),), stall=True)
    some = streams(log, clock, answer, life=LASTING)
    async with tended(some):
        await start(some)
        await until_text(log)
        log.stuck = True
        await passing(clock, answer.closed)
        assert not (await head_of(log)).ended
        log.stuck = False
        log.freed.set()
        while len(answer.calls) < 2:
            # It is nobody's once that has been told, and is gone on with.
            if clock.waiting:
                clock.advance(1)
            await asyncio.sleep(0)


async def test_stream_that_is_handed_over_says_what_it_has_used_and_is_an_orphan_at_once() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    turn: Any = Answer((Attempt(1, "up", "m", "primary"), Text("a")), stall=True)
    received = Bills()
    some = Streams(log, turn, clock, "a", LASTING, received)
    await start(some)
    await until_text(log)
    reader = asyncio.create_task(anext(some.follow(KEY, 3)))
    await asyncio.sleep(0)
    received.record(
        Entry(0.0, "req", Scope(), "up", "m", "primary", "cancelled", None, Usage(7, 9, estimated=True), 1.0, None)
    )
    await some.drain(0)
    (orphan,) = await log.orphans(10)
    assert orphan.state == "recovering" and not orphan.ended
    (row,) = await bills(log)
    assert (row.outcome, row.usage) == ("cancelled", Usage(7, 9, estimated=True))
    assert turn.closed.is_set()
    with pytest.raises(asyncio.CancelledError):
        await reader
    with pytest.raises(Overloaded):
        await some.start(StreamKey("tenant/key", "other"), REQUEST, Scope(), "req")


async def test_place_in_the_provider_s_stream_is_committed_with_what_was_read_up_to_it() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    read = 0

    async def source() -> AsyncGenerator[Sequence[Delta], None]:
        nonlocal read
        for word in "abc":
            read += 1
            yield (Text(word),)
            await until_tail(log, read + 1)
        await asyncio.Event().wait()

    class Placed(Answer):
        async def open(self, call: Call) -> Deltas:
            return Deltas(source(), position=lambda: Upstream("up", "resp_1", str(read)))

    some = streams(log, clock, Placed())
    await start(some)
    for count in (1, 2, 3):
        head = await until_tail(log, count + 1)
        assert head.upstream == Upstream("up", "resp_1", str(head.tail - 1))
    await some.drain(0)


async def until_tail(log: InprocStreamLog, tail: int) -> Head:
    while (head := await head_of(log)).tail < tail:
        await log.wait(KEY, head.tail)
    return head


async def test_holder_that_learns_of_a_cancel_while_it_writes_tells_its_cause() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    gate = asyncio.Event()

    class Gated(Answer):
        async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
            yield (Text("a"),)
            await gate.wait()
            yield (Text("b"),)
            await asyncio.Event().wait()

    some = streams(log, clock, Gated())
    await start(some)
    await until_text(log)
    await log.request_cancel(KEY, "abandoned")
    gate.set()
    finish = await until_ended(log)
    assert (finish.outcome, finish.cause) == ("cancelled", "abandoned")
    assert [record.delta for record in await whole(log)][1:-1] == [Text("a")]


@pytest.mark.parametrize("how", ["handed over", "lost", "cancelled"])
async def test_provider_s_own_stream_is_left_running_for_whoever_goes_on_with_the_answer(how: str) -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    some = streams(log, clock, answer, life=LASTING)
    await start(some)
    await until_text(log)
    if how == "handed over":
        await some.drain(0)
    elif how == "cancelled":
        await some.cancel(KEY)
    else:
        clock.advance(LEASE + 1)
        assert await log.claim((await log.orphans(1))[0], "b") is not None
        async with tended(some):
            await passing(clock, answer.closed)
    (call,) = answer.calls
    assert answer.closed.is_set() and call.course.handed_over == (how != "cancelled")


class Slow(InprocStreamLog):
    """Looks for orphans, and gives holds up, only when it is let."""

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        super().__init__(clock, **options)
        self.let = asyncio.Event()
        self.let.set()
        self.releasing, self.looking = asyncio.Event(), asyncio.Event()
        self.full = self.broken = False

    async def orphans(self, limit: int) -> Sequence[Head]:
        self.looking.set()
        await self.let.wait()
        return await super().orphans(limit)

    async def release(self, holds: Sequence[Hold]) -> None:
        self.releasing.set()
        await self.let.wait()
        await super().release(holds)

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        if self.full:
            raise LogUnavailable("the disk is full")
        return await super().append(hold, commit)

    async def claim(self, head: Head, node: str) -> Hold | None:
        if self.broken and head.key == KEY:
            raise RuntimeError("nobody understands it")
        return await super().claim(head, node)


async def test_takeover_that_takes_long_does_not_keep_a_cancel_from_being_heard() -> None:
    clock = FakeClock()
    log = Slow(clock, lease=LEASE)
    answer = Answer((Text("a"),), stall=True)
    holder = streams(log, clock, answer)
    async with tended(holder):
        await start(holder)
        await until_text(log)
        log.let.clear()
        async with asyncio.timeout(5):
            await passing(clock, log.looking)
            await log.request_cancel(KEY)
            await passing(clock, answer.closed)


async def test_stream_that_fails_while_others_are_given_up_is_given_up_too() -> None:
    clock = FakeClock()
    log = Slow(clock)
    some = streams(log, clock, Answer((Text("a"),), (Finish("stop"),)))
    late = StreamKey(KEY.principal, "late")
    log.full = True
    await start(some)
    while some.open_streams:
        await asyncio.sleep(0)
    log.let.clear()
    async with tended(some), asyncio.timeout(5):
        await passing(clock, log.releasing)
        await some.start(late, REQUEST, Scope(), "req")
        while some.open_streams:
            await asyncio.sleep(0)
        log.full = False
        log.let.set()
        while not (await head_of(log, late)).ended:
            clock.advance(3)
            await asyncio.sleep(0)


async def test_stream_that_cannot_be_taken_over_keeps_nobody_from_the_others() -> None:
    clock = FakeClock()
    log = Slow(clock)
    log.broken = True
    other = StreamKey(KEY.principal, "other")
    await log.release([await created(log), await created(log, other)])
    await streams(log, clock).adopt()
    assert (await head_of(log, other)).ended and not (await head_of(log)).ended


class Down(InprocStreamLog):
    """No cancel is taken while it is `down`."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.down = False

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        if self.down:
            raise LogUnavailable("the disk is full")
        return await super().request_cancel(key, reason)


async def test_cancel_that_the_log_does_not_take_closes_the_upstream_all_the_same() -> None:
    clock = FakeClock()
    log = Down(clock)
    answer = Answer((Text("a"),), stall=True)
    some = streams(log, clock, answer)
    await start(some)
    await until_text(log)
    log.down = True
    with pytest.raises(LogUnavailable):
        await some.cancel(KEY)
    async with asyncio.timeout(5):
        await answer.closed.wait()


async def test_cancel_that_overtakes_its_start_is_remembered_though_its_repetition_fails() -> None:
    clock = FakeClock()
    log = Down(clock)
    some = streams(log, clock, Answer((Text("a"),), stall=True))
    assert await some.cancel(KEY) is None
    log.down = True
    with pytest.raises(LogUnavailable):
        await some.cancel(KEY)
    log.down = False
    await start(some)
    async with asyncio.timeout(5):
        assert (await until_ended(log)).outcome == "cancelled"


async def test_reasoning_that_waits_together_is_one_record() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    signature = Signature("openai-chat", "sig")
    batch = (Reasoning("a"), Reasoning("b"), Reasoning("c", signature), Reasoning("d", begins=True), Finish("stop"))
    some = streams(log, clock, Answer(batch))
    await start(some)
    await until_ended(log)
    thought = [record.delta for record in await whole(log) if isinstance(record.delta, Reasoning)]
    assert thought == [Reasoning("abc", signature), Reasoning("d", begins=True)]


@pytest.mark.parametrize("when", ["as it opens", "as it is read"])
async def test_stream_whose_upstream_is_cancelled_by_somebody_else_ends(when: str) -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)

    class Cancelled(Answer):
        async def open(self, call: Call) -> Deltas:
            if when == "as it opens":
                raise asyncio.CancelledError
            return await super().open(call)

        async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
            yield (Text("a"),)
            raise asyncio.CancelledError

    turn: Any = Cancelled()
    streams = Streams(log, turn, clock)
    await start(streams)
    async with asyncio.timeout(5):
        while streams.open_streams:
            await asyncio.sleep(0)
    finish = (await whole(log))[-1].delta
    assert isinstance(finish, Finish) and finish.error is not None and finish.error.code == "internal"
