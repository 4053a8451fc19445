"""What every store of conversations must do: one suite, run over each adapter.

    class TestMyConversations(ConversationsContract):
        @pytest.fixture
        async def stores(self, clock): yield lambda: MyConversations(..., keep_for=KEEP_FOR)

`stores` makes stores of the same conversations, as several servers would have them. Needs pytest with the anyio plugin and a fixture
`clock` of type `FakeClock`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from cauce.domain.conversation import Turn
from cauce.domain.message import ImagePart, Message, ReasoningPart, TextPart, ToolCallPart
from cauce.domain.request import Scope
from cauce.ports.conversations import TOMBSTONE, Conversations, Place
from cauce.testing.clock import FakeClock

OWNER = Scope("a", "web", "ana")
STRANGERS = (Scope("a", "other"), Scope("b", "web"))
KEEP_FOR = 86_400.0

Stores = Callable[[], Awaitable[Conversations]]


def exchanged(clock: FakeClock, stream_id: str = "s", *texts: str) -> list[Turn]:
    """What was asked and answered in a stream."""
    asked, answered = texts or ("hi", "Hello.")
    at = clock.now()
    return [
        Turn(f"{stream_id}/0", Message("user", (TextPart(asked),)), at, stream_id=stream_id),
        Turn(f"{stream_id}/1", Message("assistant", (TextPart(answered),)), at, stream_id=stream_id, model="up/m"),
    ]


def numbered(turns: Sequence[Turn], first: int = 1) -> list[Turn]:
    """`turns` as they are read."""
    return [msgspec.structs.replace(turn, seq=seq) for seq, turn in enumerate(turns, first)]


class ConversationsContract:
    """See the module."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    async def store(self, stores: Stores) -> Conversations:
        """One of them."""
        return await stores()

    async def test_turns_that_are_kept_are_read_as_they_were_by_all(self, stores: Stores, clock: FakeClock) -> None:
        store, other = await stores(), await stores()
        turns = exchanged(clock)
        await store.keep(OWNER, "c", turns, clock.now())
        assert list(await other.turns(OWNER, "c", 0, 10)) == numbered(turns)
        found = await other.find(OWNER, "c")
        assert found is not None
        assert (found.id, found.title, found.count) == ("c", "", 2)
        assert found.created == found.updated == clock.now()

    async def test_whole_message_is_kept(self, store: Conversations, clock: FakeClock) -> None:
        messages = (
            Message("user", (TextPart("look"), ImagePart("data:image/png;base64,AAAA")), name="ana"),
            Message("user", (TextPart("plain, with a name"),), name="ana"),
            Message("assistant", (ReasoningPart("hm"), ToolCallPart("c1", "look", '{"a":1}'))),
            Message("tool", (TextPart("seen"),), call_id="c1", failed=True),
            Message("assistant", ()),
            Message("user", (TextPart("nothing: \0, half a character: \ud83d"),)),
        )
        turns = [Turn(f"s/{place}", message, clock.now()) for place, message in enumerate(messages)]
        await store.keep(OWNER, "c", turns, clock.now())
        read = [turn.message for turn in await store.turns(OWNER, "c", 0, 10)]
        assert read[:-1] == list(messages[:-1])
        assert read[-1].text in ("nothing: \0, half a character: \ud83d", "nothing: \0, half a character: \ufffd")

    async def test_same_turns_are_kept_once(self, stores: Stores, clock: FakeClock) -> None:
        some = [await stores() for _ in range(3)]
        turns = exchanged(clock)
        await asyncio.gather(*[store.keep(OWNER, "c", turns, clock.now()) for store in some for _ in range(3)])
        assert list(await some[0].turns(OWNER, "c", 0, 10)) == numbered(turns)

    async def test_numbers_of_turns_have_no_holes_whoever_keeps_them(self, stores: Stores, clock: FakeClock) -> None:
        some = [await stores() for _ in range(3)]
        streams = [f"s{number}" for number in range(12)]
        await asyncio.gather(
            *[
                some[place % 3].keep(OWNER, "c", exchanged(clock, stream), clock.now())
                for place, stream in enumerate(streams)
            ]
        )
        read = await some[0].turns(OWNER, "c", 0, 100)
        assert [turn.seq for turn in read] == list(range(1, 25))
        # What was said together stays together.
        assert [one.stream_id for one in read[::2]] == [one.stream_id for one in read[1::2]]
        assert {turn.stream_id for turn in read} == set(streams)

    async def test_turns_are_read_page_by_page(self, store: Conversations, clock: FakeClock) -> None:
        for number in range(3):
            await store.keep(OWNER, "c", exchanged(clock, f"s{number}"), clock.now())
        pages = [[turn.seq for turn in await store.turns(OWNER, "c", after, 4)] for after in (0, 4, 6)]
        assert pages == [[1, 2, 3, 4], [5, 6], []]

    async def test_page_of_large_turns_is_shorter_and_never_empty(self, store: Conversations, clock: FakeClock) -> None:
        large = "x" * (3 * 1024 * 1024)
        await store.keep(OWNER, "c", exchanged(clock, "s0", large, large), clock.now())
        await store.keep(OWNER, "c", exchanged(clock, "s1", large, large), clock.now())
        read: list[int] = []
        while page := [turn.seq for turn in await store.turns(OWNER, "c", read[-1] if read else 0, 10)]:
            assert len(page) < 4
            read += page
        assert read == [1, 2, 3, 4]

    async def test_conversation_is_its_owners_alone(self, store: Conversations, clock: FakeClock) -> None:
        await store.keep(OWNER, "c", exchanged(clock), clock.now())
        for stranger in STRANGERS:
            assert await store.find(stranger, "c") is None
            assert list(await store.turns(stranger, "c", 0, 10)) == []
            assert list(await store.newest(stranger, 10)) == []
            assert not await store.rename(stranger, "c", "mine")
            assert await store.delete(stranger, "c") is None
            await store.keep(stranger, "c", exchanged(clock, "theirs"), clock.now())
        assert [turn.stream_id for turn in await store.turns(OWNER, "c", 0, 10)] == ["s", "s"]

    async def test_list_begins_with_what_was_spoken_in_last(self, store: Conversations, clock: FakeClock) -> None:
        for name in ("c1", "c2", "c3", "c4"):
            await store.keep(OWNER, name, exchanged(clock, name), clock.now())
            clock.advance(name != "c3")
        await store.keep(OWNER, "c1", exchanged(clock, "again"), clock.now())
        read: list[str] = []
        place: Place | None = None
        while page := await store.newest(OWNER, 2, place):
            assert len(page) <= 2
            read += [one.id for one in page]
            place = Place(page[-1].updated, page[-1].id)
        assert read == ["c1", "c4", "c3", "c2"]

    async def test_conversation_is_made_once(self, store: Conversations, clock: FakeClock) -> None:
        assert await store.make(OWNER, "c", "A title")
        assert not await store.make(OWNER, "c", "Another")
        await store.keep(OWNER, "c", exchanged(clock), clock.now())
        found = await store.find(OWNER, "c")
        assert found is not None and (found.title, found.count) == ("A title", 2)

    async def test_title_can_be_changed(self, store: Conversations, clock: FakeClock) -> None:
        assert not await store.rename(OWNER, "c", "no")
        await store.make(OWNER, "c", "")
        assert await store.rename(OWNER, "c", "Claves \0 ñ")
        found = await store.find(OWNER, "c")
        assert found is not None and found.title.startswith("Claves ")

    async def test_deleted_conversation_is_gone_and_tells_its_streams(
        self, store: Conversations, clock: FakeClock
    ) -> None:
        await store.keep(OWNER, "c", exchanged(clock, "s1"), clock.now())
        await store.keep(OWNER, "c", exchanged(clock, "s2"), clock.now())
        assert sorted(await store.delete(OWNER, "c") or ()) == ["s1", "s2"]
        assert await store.delete(OWNER, "c") is None
        assert await store.find(OWNER, "c") is None
        assert list(await store.turns(OWNER, "c", 0, 10)) == [] == list(await store.newest(OWNER, 10))

    async def test_what_was_begun_before_a_conversation_was_deleted_does_not_bring_it_back(
        self, stores: Stores, clock: FakeClock
    ) -> None:
        store, other = await stores(), await stores()
        begun = clock.now()
        await store.keep(OWNER, "c", exchanged(clock), begun)
        clock.advance(1)
        await other.delete(OWNER, "c")
        clock.advance(1)
        await store.keep(OWNER, "c", exchanged(clock), begun)
        await store.keep(OWNER, "c", exchanged(clock, "late"), begun)
        assert await other.find(OWNER, "c") is None
        later = exchanged(clock, "new")
        await store.keep(OWNER, "c", later, clock.now())
        assert list(await other.turns(OWNER, "c", 0, 10)) == numbered(later)

    @pytest.mark.parametrize("how", ["made", "spoken in"])
    async def test_what_was_begun_before_it_was_deleted_is_not_in_the_conversation_that_follows(
        self, store: Conversations, clock: FakeClock, how: str
    ) -> None:
        begun = clock.now()
        await store.keep(OWNER, "c", exchanged(clock), begun)
        clock.advance(1)
        await store.delete(OWNER, "c")
        clock.advance(1)
        later = exchanged(clock, "new")
        if how == "made":
            await store.make(OWNER, "c", "")
        else:
            await store.keep(OWNER, "c", later, clock.now())
        await store.keep(OWNER, "c", exchanged(clock, "late"), begun)
        await store.keep(OWNER, "c", later, clock.now())
        assert list(await store.turns(OWNER, "c", 0, 10)) == numbered(later)

    async def test_deleted_conversation_can_be_made_again(self, store: Conversations, clock: FakeClock) -> None:
        await store.make(OWNER, "c", "first")
        await store.delete(OWNER, "c")
        assert await store.make(OWNER, "c", "second")
        found = await store.find(OWNER, "c")
        assert found is not None and (found.title, found.count) == ("second", 0)

    async def test_all_conversations_of_an_owner_or_of_one_user_can_be_erased(
        self, store: Conversations, clock: FakeClock
    ) -> None:
        ben = Scope(OWNER.tenant, OWNER.key, "ben")
        begun = clock.now()
        for scope, name in ((OWNER, "c1"), (OWNER, "c2"), (ben, "c3"), (STRANGERS[0], "c1")):
            await store.keep(scope, name, exchanged(clock, name), begun)
        assert [await store.erase(OWNER, "ana"), await store.erase(OWNER, "ana")] == [2, 0]
        await store.keep(OWNER, "c1", exchanged(clock, "late"), begun)
        assert [one.id for one in await store.newest(OWNER, 10)] == ["c3"]
        assert [await store.erase(OWNER), await store.erase(OWNER)] == [1, 0]
        assert list(await store.newest(OWNER, 10)) == [] == list(await store.turns(OWNER, "c3", 0, 10))
        assert [one.id for one in await store.newest(STRANGERS[0], 10)] == ["c1"]

    async def test_what_was_begun_before_an_erasure_begins_no_conversation_after_it(
        self, stores: Stores, clock: FakeClock
    ) -> None:
        store, other = await stores(), await stores()
        ben = Scope(OWNER.tenant, OWNER.key, "ben")
        begun = clock.now()
        clock.advance(1)
        assert await other.erase(OWNER, "ana") == 0
        await store.keep(OWNER, "hers", exchanged(clock, "hers"), begun)
        await store.keep(ben, "his", exchanged(clock, "his"), begun)
        assert [one.id for one in await store.newest(OWNER, 10)] == ["his"]
        clock.advance(1)
        await other.erase(OWNER)
        await store.keep(ben, "other", exchanged(clock, "other"), begun)
        assert list(await store.newest(OWNER, 10)) == []
        clock.advance(1)
        await store.keep(OWNER, "later", exchanged(clock, "later"), clock.now())
        assert [one.id for one in await store.newest(OWNER, 10)] == ["later"]

    async def test_conversation_is_erased_with_whoever_has_spoken_in_it(
        self, store: Conversations, clock: FakeClock
    ) -> None:
        nobody, ben = Scope(OWNER.tenant, OWNER.key), Scope(OWNER.tenant, OWNER.key, "ben")
        await store.make(nobody, "made", "")
        for scope, name in (
            (OWNER, "made"),
            (ben, "two"),
            (OWNER, "two"),
            (nobody, "three"),
            (OWNER, "three"),
            (ben, "four"),
        ):
            await store.keep(scope, name, exchanged(clock, f"{scope.user} in {name}"), clock.now())
        assert [await store.erase(nobody, "ana"), await store.erase(nobody, "ana")] == [3, 0]
        assert [one.id for one in await store.newest(nobody, 10)] == ["four"]

    async def test_conversation_is_kept_for_its_time_after_the_last_turn(
        self, store: Conversations, clock: FakeClock
    ) -> None:
        for name in ("old", "spoken in"):
            await store.keep(OWNER, name, exchanged(clock, name), clock.now())
        clock.advance(KEEP_FOR - 1)
        await store.keep(OWNER, "spoken in", exchanged(clock, "again"), clock.now())
        assert await store.sweep(10) == 0
        clock.advance(2)
        assert await store.sweep(10) == 1 and await store.sweep(10) == 0
        assert [one.id for one in await store.newest(OWNER, 10)] == ["spoken in"]
        assert list(await store.turns(OWNER, "old", 0, 10)) == []

    async def test_that_it_was_deleted_is_forgotten_in_the_end(self, store: Conversations, clock: FakeClock) -> None:
        await store.make(OWNER, "c", "")
        await store.delete(OWNER, "c")
        assert await store.sweep(10) == 0
        clock.advance(TOMBSTONE + 1)
        assert await store.sweep(10) == 1 and await store.sweep(10) == 0
