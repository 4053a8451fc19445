"""What ended is copied into its conversation: once, whoever does it and whatever went wrong before."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from cauce.domain.conversation import Turn
from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Restart, Status, Text, ToolCall
from cauce.domain.errors import Overloaded
from cauce.domain.message import Message, ReasoningPart, TextPart, ToolCallPart
from cauce.domain.request import Request, Scope
from cauce.domain.stream import Commit, NewStream, State, StreamKey
from cauce.engine.streams.conversing import Conversing, new_messages
from cauce.engine.streams.options import StreamOptions
from cauce.ports.stream_log import LogUnavailable
from cauce.stores.inproc.conversations import InprocConversations
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

SCOPE = Scope("a", "web")
KEY = StreamKey(SCOPE.principal, "s")
ASKED = Message("user", (TextPart("hi"),))
REQUEST = Request("m", (ASKED,), conversation_id="c", user="ana")


class Away(InprocConversations):
    """Does not answer so many times."""

    def __init__(self, clock: FakeClock, times: int) -> None:
        super().__init__(clock)
        self.times = times

    async def keep(self, scope: Scope, id: str, turns: Sequence[Turn], begun: float) -> None:
        if self.times:
            self.times -= 1
            raise Overloaded("conversations cannot be used now")
        await super().keep(scope, id, turns, begun)


class Forgetful(InprocStreamLog):
    """Is told once that a stream is settled and does not take it: as if the process had been killed before."""

    told = 0

    async def settle(self, key: StreamKey) -> None:
        self.told += 1
        if self.told == 1:
            raise LogUnavailable("the log does not answer")
        await super().settle(key)


async def ended(
    log: InprocStreamLog,
    clock: FakeClock,
    *deltas: Delta,
    state: State = "completed",
    request: Request = REQUEST,
    key: StreamKey = KEY,
    scope: Scope | None = SCOPE,
    private: bool = False,
) -> None:
    """A stream of that answer, ended in `state`."""
    policy = msgspec.json.encode(StreamOptions(scope=scope, private=private)).decode()
    created = await log.create(NewStream(key, request, b"digest", clock.now(), policy=policy))
    assert created.hold is not None
    attempt = Attempt(1, "up", "m", "primary")
    hold = await log.append(created.hold, Commit((attempt, *deltas), "running"))
    clock.advance(2)
    finish = Finish("stop" if state == "completed" else "error", outcome=state)  # type: ignore[arg-type]
    await log.append(hold, Commit((finish,), state))


async def kept(conversations: InprocConversations, scope: Scope = SCOPE) -> list[tuple[str, str, str]]:
    turns = await conversations.turns(scope, "c", 0, 100)
    return [(turn.message.role, turn.message.text, turn.standing) for turn in turns]


HELLO = [("user", "hi", "complete"), ("assistant", "Hello.", "complete")]


async def test_answer_is_kept_by_a_sweep_where_nobody_heard_of_its_end() -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), InprocConversations(clock)
    begun = clock.now()
    await ended(log, clock, Text("Hel"), Text("lo."))
    await Conversing(log, conversations, clock).sweep()
    assert await kept(conversations) == HELLO and await log.unsettled(10) == []
    asked, answered = await conversations.turns(SCOPE, "c", 0, 10)
    assert (asked.at, answered.at, answered.model, answered.stream_id) == (begun, begun + 2, "up/m", "s")


async def test_several_nodes_settle_a_stream_once() -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), InprocConversations(clock)
    for number in range(5):
        await ended(log, clock, Text("Hello."), key=StreamKey(KEY.principal, f"s{number}"))
    await asyncio.gather(*[Conversing(log, conversations, clock).sweep() for _ in range(3)])
    assert await kept(conversations) == HELLO * 5 and await log.unsettled(10) == []


async def test_answer_whose_store_was_away_is_kept_later() -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), Away(clock, 2)
    conversing = Conversing(log, conversations, clock)
    await ended(log, clock, Text("Hello."))
    conversing.start()
    conversing.hear(KEY)
    await conversing.caught_up()
    assert await kept(conversations) == [] and await log.unsettled(10) == [KEY]
    async with asyncio.timeout(30):
        while await log.unsettled(10):
            await clock.until_waiting()
            clock.advance(30)
            await asyncio.sleep(0)
    await conversing.stop()
    assert await kept(conversations) == HELLO


async def test_answer_is_kept_once_though_it_was_not_settled_after_it_was_copied() -> None:
    clock = FakeClock()
    log, conversations = Forgetful(clock), InprocConversations(clock)
    await ended(log, clock, Text("Hello."))
    await Conversing(log, conversations, clock).sweep()
    assert await log.unsettled(10) == [KEY]
    await Conversing(log, conversations, clock).sweep()
    assert await kept(conversations) == HELLO and await log.unsettled(10) == []


async def test_id_that_comes_again_is_another_stream() -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), InprocConversations(clock)
    await ended(log, clock, Text("Hello."))
    await Conversing(log, conversations, clock).sweep()
    restarted = InprocStreamLog(clock)
    await ended(restarted, clock, Text("Hello."))
    await Conversing(restarted, conversations, clock).sweep()
    assert await kept(conversations) == HELLO * 2


@pytest.mark.parametrize("state", ["incomplete", "cancelled"])
async def test_partial_answer_is_flagged(state: State) -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), InprocConversations(clock)
    call = ToolCall(0, "c1", "look", '{"a')
    await ended(log, clock, Text("Hel"), call, state=state)
    await Conversing(log, conversations, clock).sweep()
    assert await kept(conversations) == [HELLO[0], ("assistant", "Hel", state)]
    (_, answered) = await conversations.turns(SCOPE, "c", 0, 10)
    assert answered.message.parts == (TextPart("Hel"),)


@pytest.mark.parametrize(("state", "deltas"), [("failed", (Reasoning("hm"),)), ("cancelled", ())])
async def test_stream_that_gave_nothing_leaves_nothing(state: State, deltas: tuple[Delta, ...]) -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), InprocConversations(clock)
    await ended(log, clock, *deltas, state=state)
    await Conversing(log, conversations, clock).sweep()
    assert await kept(conversations) == [] and await log.unsettled(10) == []


async def test_answer_of_several_attempts_is_what_was_not_taken_back() -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), InprocConversations(clock)
    begins = (ToolCall(0, "c1", "look", '{"a'), ToolCall(0, "c1", "look", '{"a', "abandoned"))
    again = (Attempt(2, "other", "n", "fallback", reason="cut"), Status("seam"))
    whole = (ToolCall(1, "c2", "look", '{"a":1}'), ToolCall(1, "c2", "look", '{"a":1}', "ready"))
    await ended(log, clock, Text("wrong"), Restart(3, "cut"), Text("Hello."), *begins, *again, *whole)
    await Conversing(log, conversations, clock).sweep()
    (_, answered) = await conversations.turns(SCOPE, "c", 0, 10)
    assert answered.message.parts == (TextPart("Hello."), ToolCallPart("c2", "look", '{"a":1}'))
    assert answered.model == "other/n"


async def test_reasoning_is_kept_with_its_answer() -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), InprocConversations(clock)
    await ended(log, clock, Reasoning("hm"), Text("Hello."))
    await Conversing(log, conversations, clock).sweep()
    (_, answered) = await conversations.turns(SCOPE, "c", 0, 10)
    assert answered.message.parts == (ReasoningPart("hm"), TextPart("Hello."))


async def test_stream_of_an_unknown_owner_is_settled_and_kept_nowhere() -> None:
    clock = FakeClock()
    log, conversations = InprocStreamLog(clock), InprocConversations(clock)
    await ended(log, clock, Text("Hello."), scope=None)
    await Conversing(log, conversations, clock).sweep()
    assert await kept(conversations) == [] and await log.unsettled(10) == []


async def test_what_is_private_is_kept_here_and_nowhere_that_others_see() -> None:
    clock = FakeClock()
    log = InprocStreamLog(clock)
    here, elsewhere = InprocConversations(clock), InprocConversations(clock)
    elsewhere.shared = True
    for conversations, expected in ((here, HELLO), (elsewhere, [])):
        key = StreamKey(KEY.principal, f"s{conversations.shared}")
        await ended(log, clock, Text("Hello."), private=True, key=key)
        await Conversing(log, conversations, clock).sweep()
        assert await kept(conversations) == expected and await log.unsettled(10) == []


def test_new_messages_are_those_after_the_newest_answer() -> None:
    def said(*roles: str) -> list[str]:
        messages = tuple([Message(role, (TextPart(role),)) for role in roles])  # type: ignore[arg-type]
        return [message.role for message in new_messages(Request("m", messages))]

    assert said("system", "user") == ["user"]
    assert said("user", "assistant", "user", "user") == ["user", "user"]
    assert said("user", "assistant", "tool", "tool", "user") == ["tool", "tool", "user"]
    assert said("user", "assistant", "system", "user") == ["user"]
    assert said("user", "assistant") == []
