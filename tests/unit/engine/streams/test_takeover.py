"""Streams that another process left open: what the call is given that goes on with them, and which of them end instead."""

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Restart, Status, Text, ToolCall, ToolResult
from cauce.domain.errors import CauceError, Gone, ModelNotFound
from cauce.domain.message import Message, TextPart
from cauce.domain.model import ModelFacts
from cauce.domain.price import Prices, Rates
from cauce.domain.request import Prompt, Request, Scope
from cauce.domain.stream import (
    ERASED,
    AttemptRow,
    Commit,
    History,
    Hold,
    Renewed,
    StreamKey,
    Unreadable,
    Upstream,
    Whose,
)
from cauce.domain.usage import Usage
from cauce.engine.estimator import Estimator
from cauce.engine.recovery.recovery import recovery
from cauce.engine.streams.bills import Bills
from cauce.engine.streams.commits import NOWHERE
from cauce.engine.streams.options import StreamOptions
from cauce.engine.streams.settings import Life
from cauce.engine.streams.streams import Streams
from cauce.engine.streams.takeover import AT_ONCE
from cauce.ports.cache import NO_CACHE
from cauce.ports.ledger import Entry
from cauce.ports.provider import Call, Candidate, Deltas, Open, Timeouts
from cauce.ports.resilience import RecoverySettings, Resilience
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.stores.sqlite.stream_log import SqliteStreamLog
from cauce.testing.chance import FakeChance
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider
from cauce.testing.stream_samples import KEY, bills, head_of, new_stream, whole

pytestmark = pytest.mark.anyio

REQUEST = Request("m", (Message("user", (TextPart("Tell me a tale, please."),)),))
FIRST = Attempt(1, "up", "m", "primary")
POLICY = msgspec.json.encode(StreamOptions(scope=Scope("acme", "web"), request_id="req-7", replaces=True)).decode()


class Telling:
    """Stands for a turn: keeps the calls it gets, and answers each with `deltas`."""

    def __init__(self, *deltas: Delta, error: CauceError | None = None) -> None:
        self.deltas = deltas
        self.error = error
        self.calls: list[Call] = []
        self.opened: Open | None = None
        """What it is asked through."""
        self.candidates = (Candidate(ScriptedProvider("up"), "m"),)

    def call(self, request: Request, scope: Scope, **named: Any) -> Call:
        if self.error is not None:
            raise self.error
        private = request.privacy == "local"
        return Call(request, scope, self.candidates, named["request_id"], cache=named["cache"], private=private)

    async def open(self, call: Call) -> Deltas:
        return await (self.opened or self.told)(call)

    async def told(self, call: Call) -> Deltas:
        self.calls.append(call)
        return Deltas(None, self.deltas)


class Attachable(ScriptedProvider):
    """A provider whose answers go on by themselves."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.given_up: list[Upstream] = []

    def give_up(self, upstream: Upstream) -> None:
        self.given_up.append(upstream)


class Kept:
    """A ledger."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def record(self, entry: Entry) -> None:
        self.entries.append(entry)


class Left:
    """A log with one stream that nobody holds, and a process that looks at it."""

    def __init__(self, turn: Telling, life: Life = Life(lasting=True)) -> None:  # noqa: B008
        self.clock = FakeClock()
        self.log = InprocStreamLog(self.clock)
        self.turn, self.ledger = turn, Kept()
        given: Any = turn
        self.streams = Streams(self.log, given, self.clock, "b", life, Bills(self.ledger, Estimator()))

    async def leave(
        self, *deltas: Delta, policy: str = POLICY, request: Request = REQUEST, ahead: float = 0.0, **facts: Any
    ) -> Hold:
        """`ahead`: seconds that the clock of the process that left it is before ours."""
        created = self.clock.now() + ahead
        new = msgspec.structs.replace(new_stream(), policy=policy, request=request, created=created)
        hold = (await self.log.create(new)).hold
        assert hold is not None
        made = [one for one in deltas if isinstance(one, Attempt)]
        rows = tuple([AttemptRow(one.n, one.provider, one.model, deployment=one.deployment) for one in made])
        if deltas:
            hold = await self.log.append(hold, Commit(deltas, "running", attempts=rows, **facts))
        await self.log.release([hold])
        return hold

    async def adopted(self) -> Sequence[Delta]:
        """What follows in the log, to its end."""
        before = (await head_of(self.log)).tail
        await self.streams.adopt()
        async with asyncio.timeout(5):
            while not (await head_of(self.log)).ended:
                await asyncio.sleep(0)
        return [record.delta for record in await whole(self.log)][before:]


REST = (Attempt(2, "up", "m", "primary", strategy="prefill", reason="stopped"), Text("there was"), Finish("stop"))


async def test_call_that_goes_on_is_given_all_that_readers_have() -> None:
    left = Left(Telling(*REST))
    upstream = Upstream("up", "resp_1", "17")
    shown = (FIRST, Text("Once "), Text("upon "))
    await left.leave(*shown, upstream=upstream)
    assert await left.adopted() == [*REST[:2], (await whole(left.log))[-1].delta]
    (call,) = left.turn.calls
    assert call.begun[0] == Status("accepted", facts={"model": "m", "created": int(left.clock.now())})
    assert tuple(call.begun[1:]) == shown and call.upstream == upstream
    assert (call.replaces, call.abandons, call.course.attempts, call.cache) == (True, True, 1, NO_CACHE)
    assert (call.scope, call.request_id) == (Scope("acme", "web"), "req-7")
    head = await head_of(left.log)
    assert (head.state, head.epoch) == ("completed", 2)


@pytest.mark.parametrize(("missed", "use"), [(True, "miss"), (False, "none")], ids=["miss", "none"])
async def test_whoever_goes_on_with_an_answer_says_the_same_of_the_cache(missed: bool, use: str) -> None:
    left = Left(Telling(*REST))
    await left.leave(msgspec.structs.replace(FIRST, missed=missed), Text("Once "))
    await left.adopted()
    (call,) = left.turn.calls
    assert call.course.cache == use


async def test_attempt_that_went_down_is_in_the_ledger_once_and_in_the_sum() -> None:
    left = Left(Telling(*REST[:-1], Finish("stop", Usage(3, 4))))
    first = msgspec.structs.replace(FIRST, level="fallback")
    await left.leave(first, Text("Once upon a time in a land far away "))
    finish = (await left.adopted())[-1]
    (entry,) = left.ledger.entries
    assert (entry.outcome, entry.n, entry.request_id, entry.stream_id) == ("failed", 1, "req-7", KEY.id)
    assert entry.level == "fallback"
    assert entry.scope == Scope("acme", "web") and entry.usage.estimated and entry.usage.output_tokens > 5
    first, second = await bills(left.log)
    assert (first.outcome, first.usage) == ("failed", entry.usage) and second.outcome == "completed"
    assert isinstance(finish, Finish) and finish.usage.output_tokens == entry.usage.output_tokens + 4


async def test_answer_that_lacked_only_its_end_is_in_the_sum_once() -> None:
    left = Left(Telling(Finish("stop", Usage(3, 10, estimated=True))))
    await left.leave(FIRST, Text("Once upon a time in a land far away "))
    finish = (await left.adopted())[-1]
    (entry,) = left.ledger.entries
    assert isinstance(finish, Finish) and finish.outcome == "completed" and finish.usage == entry.usage


PRICED = ModelFacts(prices=Prices(Rates.given(1_000.0, 10_000.0), snapshot="of-today"))


@pytest.mark.parametrize(("asked", "charged"), [("west", "west"), ("", "")], ids=["told", "of an earlier version"])
async def test_attempt_that_went_down_is_charged_to_its_deployment_by_the_prices_of_its_model(
    asked: str, charged: str
) -> None:
    left = Left(Telling(*REST))
    left.turn.candidates = tuple(
        [Candidate(ScriptedProvider("up"), "m", facts=PRICED, deployment=name) for name in ("east", "west")]
    )
    await left.leave(msgspec.structs.replace(FIRST, deployment=asked), Text("Once upon a time "))
    await left.adopted()
    (entry,) = left.ledger.entries
    assert (entry.deployment, entry.price_snapshot, entry.endpoint) == (charged, "of-today", "chat")
    assert entry.listed_cost == entry.usage.cost > 0


async def test_attempt_of_an_earlier_version_is_charged_to_the_only_deployment_there_is() -> None:
    left = Left(Telling(*REST))
    left.turn.candidates = (Candidate(ScriptedProvider("up"), "m", deployment="east"),)
    prompt = msgspec.structs.replace(REQUEST, prompt=Prompt("Tell me a tale, please."))
    await left.leave(FIRST, Text("Once "), request=prompt)
    await left.adopted()
    (entry,) = left.ledger.entries
    assert (entry.deployment, entry.endpoint, entry.listed_cost, entry.price_snapshot) == (
        "east",
        "completions",
        None,
        "",
    )


async def test_stream_that_gave_nothing_is_opened_anew() -> None:
    for deltas in ((), (FIRST,)):
        left = Left(Telling(Attempt(1 + len(deltas), "up", "m", "primary"), Text("a"), Finish("stop")))
        await left.leave(*deltas)
        assert isinstance((await left.adopted())[-1], Finish)
        (call,) = left.turn.calls
        assert (tuple(call.begun), call.upstream, call.course.attempts) == ((), None, len(deltas))


async def test_tool_that_ran_when_its_process_ended_has_an_unknown_outcome() -> None:
    left = Left(Telling(Finish("stop")))
    ready = ToolCall(0, "c1", "pay", "{}", "ready")
    started = [Status("tool_started", facts={"call_id": id, "name": "pay"}) for id in ("c0", "c1")]
    await left.leave(FIRST, ready, started[0], ToolResult("c0", "pay", "done"), started[1])
    assert (await left.adopted())[0] == ToolResult("c1", "pay", "", "outcome unknown")


@pytest.mark.parametrize(
    ("life", "request_", "policy"),
    [
        (Life(recovery=RecoverySettings(attempts=0)), REQUEST, POLICY),
        (Life(), REQUEST, ""),
        (Life(), REQUEST, "{"),
    ],
    ids=["recovery is off", "of an earlier version", "unreadable"],
)
async def test_what_may_not_go_on_ends_as_what_it_is(life: Life, request_: Request, policy: str) -> None:
    left = Left(Telling(*REST), life)
    await left.leave(FIRST, Text("Once"), request=request_, policy=policy)
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "incomplete" and left.turn.calls == []
    assert finish.error is not None and finish.error.code == "overloaded" and finish.usage.output_tokens > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (StreamOptions(), (False, False)),
        (StreamOptions(replaces=True), (True, False)),
        (StreamOptions(buffer=True), (True, True)),
    ],
    ids=["shown", "readers can take it back", "shown whole"],
)
async def test_call_that_goes_on_says_what_its_readers_are_shown(
    options: StreamOptions, told: tuple[bool, bool]
) -> None:
    left = Left(Telling(*REST))
    policy = msgspec.json.encode(msgspec.structs.replace(options, scope=Scope("acme", "web"))).decode()
    await left.leave(FIRST, Text("Once "), policy=policy)
    await left.adopted()
    (call,) = left.turn.calls
    assert (call.replaces, call.withheld) == told


@pytest.mark.parametrize(
    ("options", "begun", "goes_on"),
    [
        (StreamOptions(replaces=True), Text("Once"), True),
        (StreamOptions(buffer=True), Text("Once"), True),
        (StreamOptions(), Reasoning("Hm"), True),
        (StreamOptions(), Text("Once"), False),
    ],
    ids=["readers can take it back", "shown whole", "nothing that counts", "shown"],
)
async def test_several_answers_begin_anew_where_nobody_is_shown_two_of_them(
    options: StreamOptions, begun: Delta, goes_on: bool
) -> None:
    turn = Telling(Text("one"), Text("two", choice=1), Finish("stop"))
    left = Left(turn)
    given: Any = turn
    turn.opened = recovery(left.clock, RecoverySettings(), FakeChance(0.5))(turn.told)
    left.streams = Streams(left.log, given, left.clock, "b", Life(lasting=True), Bills(left.ledger, Estimator()))
    policy = msgspec.json.encode(msgspec.structs.replace(options, scope=Scope("acme", "web"))).decode()
    several = msgspec.structs.replace(REQUEST, sampling=msgspec.structs.replace(REQUEST.sampling, n=2))
    await left.leave(FIRST, begun, request=several, policy=policy)
    *answer, finish = await left.adopted()
    assert isinstance(finish, Finish)
    if goes_on:
        restarted = isinstance(begun, Text)
        assert [type(delta) for delta in answer] == [Restart] * restarted + [Text, Text] and finish.reason == "stop"
    else:
        assert answer == [] and finish.outcome == "incomplete" and turn.calls == []
        assert finish.error is not None and finish.error.code == "overloaded"


_WAS_PRIVATE = msgspec.json.encode(StreamOptions(scope=Scope("acme", "web"), private=True)).decode()


async def test_stream_that_was_private_when_it_was_made_stays_so_whatever_its_route_says_now() -> None:
    left = Left(Telling(*REST))
    await left.leave(FIRST, Text("Once "), policy=_WAS_PRIVATE)
    await left.adopted()
    [call] = left.turn.calls
    assert call.private and call.request.privacy == "local"


@pytest.mark.parametrize(
    ("request_", "policy"),
    [(REQUEST, _WAS_PRIVATE), (msgspec.structs.replace(REQUEST, privacy="local"), POLICY)],
    ids=["when it was made", "as it is seen here"],
)
async def test_private_stream_in_a_log_that_others_read_is_ended_and_nobody_is_asked(
    request_: Request, policy: str
) -> None:
    left = Left(Telling(*REST), Life(lasting=True, lease=10.0, private_here=True))
    await left.leave(FIRST, Text("Once"), request=request_, policy=policy)
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "incomplete" and left.turn.calls == []


async def test_route_that_forbids_it_ends_as_what_it_is() -> None:
    turn = Telling(*REST)
    turn.candidates = (msgspec.structs.replace(turn.candidates[0], midstream="fail"),)
    left = Left(turn)
    await left.leave(FIRST, Text("Once"))
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "incomplete" and turn.calls == []


@pytest.mark.parametrize(
    ("own", "common", "goes_on"),
    [
        (RecoverySettings(attempts=0), RecoverySettings(), False),
        (RecoverySettings(), RecoverySettings(attempts=0), True),
        (RecoverySettings(age=10), RecoverySettings(), False),
        (RecoverySettings(age=3600), RecoverySettings(age=10), True),
    ],
    ids=["its route never", "its route does", "too old for its route", "young enough for its route"],
)
async def test_stream_is_gone_on_with_as_its_own_route_says(
    own: RecoverySettings, common: RecoverySettings, goes_on: bool
) -> None:
    turn = Telling(*REST)
    turn.candidates = (msgspec.structs.replace(turn.candidates[0], resilience=Resilience(recovery=own)),)
    left = Left(turn, Life(lasting=True, recovery=common))
    await left.leave(FIRST, Text("Once"))
    left.clock.advance(60)
    finish = (await left.adopted())[-1]
    assert isinstance(finish, Finish)
    assert (finish.outcome, len(turn.calls)) == (("completed", 1) if goes_on else ("incomplete", 0))


async def test_stream_is_given_up_when_its_own_route_has_no_takeovers_left() -> None:
    turn = Telling(*REST)
    own = Resilience(recovery=RecoverySettings(attempts=4))
    turn.candidates = (msgspec.structs.replace(turn.candidates[0], resilience=own),)
    left = Left(turn)
    await left.leave()
    for _ in range(5):
        claimed = await left.log.claim(await head_of(left.log), "dying")
        assert claimed is not None
        await left.log.release([claimed])
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "failed" and turn.calls == []


async def test_last_one_to_write_a_stream_says_how_far_it_is_gone_on_with() -> None:
    turn = Telling(*REST)
    never = Resilience(recovery=RecoverySettings(attempts=0))
    turn.candidates = (*turn.candidates, Candidate(ScriptedProvider("other"), "m", resilience=never))
    left = Left(turn)
    await left.leave(FIRST, Text("Once"), Attempt(2, "other", "m", "fallback", strategy="continue"), Text("upon"))
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "incomplete" and turn.calls == []


async def test_answer_that_is_too_old_is_not_gone_on_with() -> None:
    left = Left(Telling(*REST))
    await left.leave(FIRST, Text("Once"))
    left.clock.advance(RecoverySettings().age + 1)
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "incomplete" and left.turn.calls == []


@pytest.mark.parametrize(("asked", "configured"), [(30.0, 600.0), (None, 30.0)], ids=["its client's", "configured"])
@pytest.mark.parametrize("shown", [(), (Text("Once"),)], ids=["nothing shown", "text shown"])
async def test_time_of_a_call_goes_on_where_another_process_goes_on_with_it(
    asked: float | None, configured: float, shown: tuple[Delta, ...]
) -> None:
    turn = Telling(*REST)
    timeouts = Timeouts(total=configured)
    turn.candidates = (msgspec.structs.replace(turn.candidates[0], timeouts=timeouts),)
    left = Left(turn)
    await left.leave(FIRST, *shown, request=msgspec.structs.replace(REQUEST, timeout=asked))
    left.clock.advance(20)
    await left.adopted()
    (call,) = turn.calls
    assert call.deadline == pytest.approx(left.clock.monotonic() + 10)


async def test_call_whose_time_is_over_is_not_made_again_and_says_so() -> None:
    left = Left(Telling(*REST))
    await left.leave(FIRST, Text("Once"), request=msgspec.structs.replace(REQUEST, timeout=30.0))
    left.clock.advance(31)
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "incomplete" and left.turn.calls == []
    assert finish.error is not None and finish.error.code == "timeout"


async def test_clock_that_is_behind_that_of_who_began_it_gives_a_call_no_more_time() -> None:
    left = Left(Telling(*REST))
    await left.leave(FIRST, Text("Once"), request=msgspec.structs.replace(REQUEST, timeout=30.0), ahead=60)
    await left.adopted()
    (call,) = left.turn.calls
    assert call.deadline == pytest.approx(left.clock.monotonic() + 30)


async def test_request_that_is_too_old_is_not_made_again_though_nothing_was_shown() -> None:
    left = Left(Telling(*REST))
    await left.leave(FIRST)
    left.clock.advance(RecoverySettings().age + 1)
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "failed" and left.turn.calls == []


class Failing(InprocStreamLog):
    """Fails `failures` times, one after the other, when a stream is claimed; None: its records are of another version."""

    def __init__(self, clock: FakeClock, *failures: Exception | None) -> None:
        super().__init__(clock)
        self.failures = list(failures)

    async def history(self, key: StreamKey) -> History:
        history = await super().history(key)
        failure = self.failures.pop(0) if self.failures else history
        if isinstance(failure, Exception):
            raise failure
        return failure or msgspec.structs.replace(history, deltas=None)


def failing(*failures: Exception | None) -> Left:
    left = Left(Telling(*REST))
    left.log = Failing(left.clock, *failures)
    given: Any = left.turn
    left.streams = Streams(left.log, given, left.clock, "b", Life(lasting=True), Bills(left.ledger, Estimator()))
    return left


async def tended(left: Left) -> None:
    """Have the process look again and again, until the stream has ended."""
    tending = asyncio.create_task(left.streams.sweep_forever())
    try:
        async with asyncio.timeout(5):
            while not (await head_of(left.log)).ended:
                left.clock.advance(1)
                await asyncio.sleep(0)
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)


async def test_stream_that_was_claimed_and_could_not_be_read_then_is_claimed_again() -> None:
    left = failing(LogUnavailable("the disk does not answer"))
    await left.leave(FIRST, Text("Once"))
    await tended(left)
    head = await head_of(left.log)
    assert (head.state, head.epoch, len(left.turn.calls)) == ("completed", 3, 1)


async def test_stream_that_fails_as_it_is_taken_over_ends_with_that() -> None:
    left = failing(RuntimeError("nobody understands it"))
    await left.leave(FIRST, Text("Once"))
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "incomplete" and left.turn.calls == []
    assert finish.error is not None and finish.error.code == "internal"


async def test_streams_that_were_taken_over_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    left = Left(Telling(*REST))
    for number in range(11):
        new = msgspec.structs.replace(new_stream(), key=StreamKey("web", f"s-{number:02}"), policy=POLICY)
        hold = (await left.log.create(new)).hold
        assert hold is not None
        await left.log.release([hold])
        if number == 9:
            await left.streams.adopt()
    await left.streams.adopt()
    ten, one = [record.getMessage() for record in caplog.records if "took over" in record.getMessage()]
    assert ten.startswith("took over 10 streams") and ten.endswith(": " + ", ".join([f"s-{n:02}" for n in range(10)]))
    assert one.startswith("took over 1 stream ") and one.endswith(": s-10")
    assert left.streams.taken_over == 11


async def test_stream_of_another_version_is_left_to_it_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    left = failing(None, None)
    await left.leave(FIRST, Text("Once"))
    for _ in range(3):
        await left.streams.adopt()
    head = await head_of(left.log)
    assert (head.ended, head.epoch, left.turn.calls) == (False, 2, [])
    assert len([record for record in caplog.records if "cannot be read" in record.getMessage()]) == 1


@pytest.mark.parametrize(("why", "outcome"), [("cancelled", "cancelled"), ("too old", "incomplete")])
async def test_stream_of_another_version_ends_once_nobody_may_go_on_with_it(why: str, outcome: str) -> None:
    left = failing(None)
    await left.leave(FIRST, Text("Once"))
    if why == "cancelled":
        await left.log.request_cancel(KEY)
    else:
        left.clock.advance(RecoverySettings().age + 1)
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == outcome


@pytest.mark.parametrize("why", ["cancelled", "too old"])
async def test_stream_of_another_version_that_was_left_alone_is_looked_at_again_once_it_may_end(why: str) -> None:
    left = failing(None, None)
    await left.leave(FIRST, Text("Once"))
    await left.streams.adopt()
    await left.streams.adopt()
    if why == "cancelled":
        await left.log.request_cancel(KEY)
    else:
        left.clock.advance(RecoverySettings().age + 1)
    await tended(left)
    assert (await head_of(left.log)).state == ("cancelled" if why == "cancelled" else "incomplete")


@contextlib.asynccontextmanager
async def unreadable_on_disk(path: Path) -> AsyncGenerator[tuple[Left, SqliteStreamLog]]:
    """A log in a file with a stream that nobody holds and whose request cannot be read."""
    left = Left(Telling(*REST))
    log = SqliteStreamLog(path, left.clock, "b")
    given: Any = left.turn
    left.log = fake = cast(Any, log)
    left.streams = Streams(fake, given, left.clock, "b", Life(lasting=True), Bills(left.ledger, Estimator()))
    await log.start()
    await left.leave(FIRST, Text("Once"))
    log.writer.database.execute("UPDATE streams SET request = '{\"no\"'")
    yield left, log
    await log.stop()


async def test_stream_whose_request_cannot_be_read_is_left_and_told_of_once_and_ends_with_its_age(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with unreadable_on_disk(tmp_path / "streams.db") as (left, log):
        other = StreamKey("p", "other")
        hold = (
            await log.create(msgspec.structs.replace(new_stream(other, created=left.clock.now()), policy=POLICY))
        ).hold
        assert hold is not None
        await log.release([hold])
        for _ in range(3):
            await left.streams.adopt()
        # It keeps nobody from what can be read.
        assert (await head_of(left.log, other)).epoch == 2
        (orphan,) = await log.orphans(10)
        assert isinstance(orphan, Unreadable) and orphan.epoch == 1
        told = [record for record in caplog.records if f"{KEY.id!r} cannot be read" in record.getMessage()]
        assert len(told) == 1
        left.clock.advance(RecoverySettings().age + 1)
        await left.streams.adopt()
        assert not await log.orphans(10)
        finish = (await whole(left.log))[-1].delta
        assert isinstance(finish, Finish) and finish.outcome == "incomplete" and finish.error is not None
        assert finish.error.code == "gone"


async def test_stream_whose_request_cannot_be_read_ends_at_once_where_it_was_cancelled(tmp_path: Path) -> None:
    async with unreadable_on_disk(tmp_path / "streams.db") as (left, log):
        await left.streams.adopt()
        with pytest.raises(Gone):
            await left.streams.cancel(KEY)
        await log.erase(Whose(KEY.principal))
        await left.streams.adopt()
        finish = (await whole(left.log))[-1].delta
        assert isinstance(finish, Finish) and (finish.outcome, finish.cause) == ("cancelled", ERASED)
        assert not await log.orphans(10) and left.turn.calls == []


class Damaged(InprocStreamLog):
    """Its records cannot be read while it is `damaged`, its bills can."""

    damaged = False

    async def history(self, key: StreamKey) -> History:
        history = await super().history(key)
        return msgspec.structs.replace(history, deltas=None) if self.damaged else history


async def test_attempt_of_a_stream_that_cannot_be_read_is_billed_all_the_same() -> None:
    left = Left(Telling(*REST))
    log = left.log = Damaged(left.clock)
    given: Any = left.turn
    left.streams = Streams(log, given, left.clock, "b", Life(lasting=True), Bills(left.ledger, Estimator()))
    await left.leave(FIRST, Text("Once"))
    left.clock.advance(RecoverySettings().age + 1)
    log.damaged = True
    await left.streams.adopt()
    log.damaged = False
    (entry,) = left.ledger.entries
    (row,) = await bills(log)
    finish = (await whole(log))[-1].delta
    assert isinstance(finish, Finish) and finish.usage == entry.usage == row.usage
    assert row.outcome == "failed" and entry.usage.estimated and entry.usage.input_tokens


class Renewing(InprocStreamLog):
    """It is slow to be read. Counts how many do so at a time, and keeps what is renewed."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, lease=2.0)
        self.reading = self.most = 0
        self.renewed: set[StreamKey] = set()
        self.let = asyncio.Event()

    async def history(self, key: StreamKey) -> History:
        self.reading += 1
        self.most = max(self.most, self.reading)
        await self.let.wait()
        self.reading -= 1
        return await super().history(key)

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        self.renewed |= {hold.key for hold in holds}
        return await super().renew(holds)


async def test_few_of_many_are_claimed_at_a_time_and_kept_while_they_are_read() -> None:
    left = Left(Telling(Text("a"), Finish("stop")))
    log = left.log = Renewing(left.clock)
    given: Any = left.turn
    life = Life(lasting=True, lease=2.0)
    left.streams = Streams(log, given, left.clock, "b", life, Bills(left.ledger, Estimator()))
    keys = [StreamKey("p", str(number)) for number in range(3 * AT_ONCE)]
    for key in keys:
        new = msgspec.structs.replace(new_stream(key), policy=POLICY, created=left.clock.now())
        hold = (await log.create(new)).hold
        assert hold is not None
        await log.release([hold])
    tending = asyncio.create_task(left.streams.sweep_forever())
    async with asyncio.timeout(5):
        while log.reading < AT_ONCE or len(log.renewed) < AT_ONCE:
            left.clock.advance(0.1)
            await asyncio.sleep(0)
        log.let.set()
        while len(left.turn.calls) < len(keys) or left.streams.open_streams:
            left.clock.advance(0.1)
            await asyncio.sleep(0)
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    assert log.most == AT_ONCE
    assert [head.epoch for key in keys if (head := await log.head(key))] == [2] * len(keys)


async def test_orphan_is_adopted_within_lease_and_scan() -> None:
    left = Left(Telling(Text("a"), Finish("stop")))
    life = Life(lasting=True, lease=10.0)
    log = left.log = InprocStreamLog(left.clock, lease=10.0)
    given: Any = left.turn
    left.streams = Streams(log, given, left.clock, "b", life, Bills(left.ledger, Estimator()))
    await log.create(msgspec.structs.replace(new_stream(), policy=POLICY, created=left.clock.now()))
    began = left.clock.monotonic()
    tending = asyncio.create_task(left.streams.sweep_forever())
    async with asyncio.timeout(5):
        while (await head_of(log)).epoch == 1:
            left.clock.advance(0.1)
            for _ in range(10):
                await asyncio.sleep(0)
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    assert 10.0 <= left.clock.monotonic() - began <= 10.0 + life.tick + 0.2


async def test_cancel_that_was_requested_is_all_that_follows() -> None:
    left = Left(Telling(*REST))
    await left.leave(FIRST, Text("Once"))
    await left.log.request_cancel(KEY, "abandoned")
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and (finish.outcome, finish.cause) == ("cancelled", "abandoned")
    assert left.turn.calls == [] and finish.usage.output_tokens > 0 and len(left.ledger.entries) == 1


async def test_stream_that_every_process_ends_with_is_given_up() -> None:
    left = Left(Telling(*REST))
    hold = await left.leave()
    for _ in range(RecoverySettings().attempts):
        claimed = await left.log.claim(await head_of(left.log), "dying")
        assert claimed is not None
        hold = claimed
        await left.log.release([hold])
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.outcome == "failed" and left.turn.calls == []


async def test_model_that_is_not_there_yet_is_waited_for() -> None:
    turn = Telling(*REST, error=ModelNotFound("there is no model ollama/x"))
    left = Left(turn)
    await left.leave(FIRST, Text("Once"))
    await left.streams.adopt()
    assert (await head_of(left.log)).epoch == 1, "it is left to the next look"
    turn.error = None
    assert isinstance((await left.adopted())[-1], Finish) and len(turn.calls) == 1


async def test_model_that_does_not_come_is_told_in_the_end() -> None:
    left = Left(Telling(*REST, error=ModelNotFound("there is no model ollama/x")))
    await left.leave(FIRST, Text("Once"))
    left.clock.advance(11)
    (finish,) = await left.adopted()
    assert isinstance(finish, Finish) and finish.error is not None and finish.error.code == "model_not_found"


async def test_what_was_taken_back_is_told_as_it_is() -> None:
    left = Left(Telling(*REST))
    deltas = (FIRST, Text("wrong"), Attempt(2, "up", "m", "primary"), Restart(3, "anew"), Text("right"))
    await left.leave(*deltas)
    await left.adopted()
    (call,) = left.turn.calls
    assert tuple(call.begun[1:]) == deltas and call.course.attempts == 2


async def test_each_of_many_is_taken_over() -> None:
    left = Left(Telling(Text("a"), Finish("stop")))
    for number in range(150):
        new = msgspec.structs.replace(new_stream(StreamKey("p", str(number))), policy=POLICY, created=left.clock.now())
        hold = (await left.log.create(new)).hold
        assert hold is not None
        await left.log.release([hold])
    await left.streams.adopt()
    async with asyncio.timeout(10):
        while left.streams.open_streams:
            await asyncio.sleep(0)
    assert len(left.turn.calls) == 150 and await left.log.orphans(10) == []


@pytest.mark.parametrize("why", ["cancelled", "too old", "forbidden", "it goes on"])
async def test_provider_s_own_stream_is_given_up_where_nobody_goes_on_with_it(why: str) -> None:
    turn, provider = Telling(*REST), Attachable("up")
    turn.candidates = (Candidate(provider, "m", midstream="fail" if why == "forbidden" else "continue"),)
    left = Left(turn)
    await left.leave(FIRST, Text("Once"), upstream=Upstream("up", "resp_1", "17"))
    if why == "cancelled":
        await left.log.request_cancel(KEY)
    elif why == "too old":
        left.clock.advance(RecoverySettings().age + 1)
    await left.adopted()
    assert provider.given_up == ([] if why == "it goes on" else [Upstream("up", "resp_1", "17")])


async def test_place_in_the_provider_s_stream_is_forgotten_once_another_answer_goes_on() -> None:
    left = Left(Telling(*REST))
    await left.leave(FIRST, Text("Once"), upstream=Upstream("up", "resp_1", "17"))
    await left.adopted()
    assert (await head_of(left.log)).upstream == NOWHERE


async def test_past_of_a_stream_is_counted_once_while_it_is_gone_on_with() -> None:
    left = Left(Going(REST[0], Text("there was")))
    await left.leave(FIRST, Text("Once upon a time"))
    before = (await head_of(left.log)).tail
    await left.streams.adopt()
    async with asyncio.timeout(5):
        while (await head_of(left.log)).tail < before + 2:
            await asyncio.sleep(0)
        await left.streams.cancel(KEY)
    finish = (await whole(left.log))[-1].delta
    assert isinstance(finish, Finish) and finish.usage == ALL


ALL = Usage(70, 80)


class Going(Telling):
    """Its answers stall, and say what all attempts have used, those of the past too."""

    async def open(self, call: Call) -> Deltas:
        async def source() -> AsyncGenerator[Sequence[Delta], None]:
            yield self.deltas
            await asyncio.Event().wait()

        self.calls.append(call)
        return Deltas(source(), so_far=lambda: ALL)


class Decoding(InprocStreamLog):
    """Makes what is read of a stream's past anew, as a log does that is not in memory."""

    async def history(self, key: StreamKey) -> History:
        found = await super().history(key)
        anew = tuple([msgspec.structs.replace(delta) for delta in found.deltas or ()])
        return msgspec.structs.replace(found, deltas=anew)


class Stalling(Telling):
    """Gives its deltas, and then nothing."""

    async def told(self, call: Call) -> Deltas:
        self.calls.append(call)
        return Deltas(self._source())

    async def _source(self) -> AsyncGenerator[Sequence[Delta], None]:
        yield self.deltas
        await asyncio.Event().wait()


async def test_stream_that_was_taken_over_holds_little_more_of_its_past_than_its_text() -> None:
    # More of it than is held back to see whether it goes on.
    rest = Text(" and on to the sea, where it ends in many arms" * 6)
    left = Left(Stalling(Attempt(2, "up", "m", "primary", strategy="continue", reason="stopped"), rest))
    log = left.log = Decoding(left.clock)
    turn: Any = left.turn
    left.streams = Streams(log, turn, left.clock, "b", Life(lasting=True), Bills(left.ledger, Estimator()))
    turn.opened = recovery(left.clock, RecoverySettings(), FakeChance(0.5))(turn.told)
    count = 20_000
    hold = await left.leave(FIRST, *[Text(f"{number:06} ") for number in range(count)])
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        await left.streams.adopt()
        async with asyncio.timeout(30):
            while (await head_of(log)).tail < hold.tail + 3:
                await asyncio.sleep(0)
        assert left.ledger.entries, "the bill of the attempt that went down is written"
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    await left.streams.drain(0)
    assert left.turn.calls[0].begun == ()
    assert kept < 2 * count * 7 + 100_000
