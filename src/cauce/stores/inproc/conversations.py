"""Conversations in memory, bounded in bytes: those that nobody has spoken in for longest are forgotten first."""

from collections.abc import Sequence

import msgspec

from cauce.domain.conversation import Conversation, Turn
from cauce.domain.request import Scope
from cauce.ports.clock import Clock
from cauce.ports.conversations import TOMBSTONE, Place
from cauce.stores.stream_records import encode_value
from cauce.stores.turn_rows import MOST_BYTES

MOST = 64 * 1024 * 1024
_COST = 500
"""Bytes that a turn, or a conversation, takes beside what is said."""

_Key = tuple[str, str, str]


class _Kept:
    def __init__(self, head: Conversation, user: str | None) -> None:
        self.head = head
        self.users = {user}
        """Who made it, and who has spoken in it."""
        self.turns: list[Turn] = []
        self.ids: set[str] = set()
        self.sizes: list[int] = []


class InprocConversations:
    """See `ports.conversations.Conversations`. `keep_for` is in seconds of `clock` (None: until they are deleted)."""

    shared = False

    def __init__(self, clock: Clock, *, keep_for: float | None = None, most_bytes: int = MOST) -> None:
        self._clock = clock
        self._keep_for = keep_for
        self._most = most_bytes
        self._kept: dict[_Key, _Kept] = {}
        """In the order they were spoken in."""
        self._deleted: dict[_Key, float] = {}
        """When each was deleted: what was begun before is in none that follows."""
        self._erased: dict[_Key, float] = {}
        """The same of all that an owner, or a user of his, has said, by tenant, key and user: empty for all of them."""
        self._bytes = 0

    async def stop(self) -> None:
        """Nothing is left to be done."""

    async def keep(self, scope: Scope, id: str, turns: Sequence[Turn], begun: float) -> None:
        key = _key(scope, id)
        erased = [self._erased.get((scope.tenant, scope.key, user)) for user in ("", scope.user or "")]
        if any([over is not None and begun <= over for over in (self._deleted.get(key), *erased)]):
            return
        kept = self._kept.get(key)
        new = [turn for turn in turns if kept is None or turn.id not in kept.ids]
        if not new:
            return
        if kept is None:
            kept = _Kept(Conversation(id, "", new[0].at, new[0].at), scope.user)
            self._bytes += _COST
        kept.users.add(scope.user)
        for turn in new:
            size = len(encode_value(turn.message)) + _COST
            kept.turns.append(msgspec.structs.replace(turn, seq=len(kept.turns) + 1))
            kept.ids.add(turn.id)
            kept.sizes.append(size)
            self._bytes += size
        last = max([kept.head.updated, *[turn.at for turn in new]])
        kept.head = msgspec.structs.replace(kept.head, updated=last, count=len(kept.turns))
        self._put(key, kept)

    async def make(self, scope: Scope, id: str, title: str) -> bool:
        key = _key(scope, id)
        if key in self._kept:
            return False
        now = self._clock.now()
        self._bytes += _COST
        self._put(key, _Kept(Conversation(id, title, now, now), scope.user))
        return True

    async def find(self, scope: Scope, id: str) -> Conversation | None:
        kept = self._kept.get(_key(scope, id))
        return None if kept is None else kept.head

    async def newest(self, scope: Scope, limit: int, after: Place | None = None) -> Sequence[Conversation]:
        mine = [kept.head for key, kept in self._kept.items() if key[:2] == (scope.tenant, scope.key)]
        mine.sort(key=lambda one: (one.updated, one.id), reverse=True)
        rest = mine if after is None else [one for one in mine if (one.updated, one.id) < (after.updated, after.id)]
        return rest[:limit]

    async def turns(self, scope: Scope, id: str, after: int, limit: int) -> Sequence[Turn]:
        kept = self._kept.get(_key(scope, id))
        if kept is None:
            return ()
        some: list[Turn] = []
        size = 0
        for turn in kept.turns[after : after + limit]:
            if size > MOST_BYTES:
                break
            some.append(turn)
            size += kept.sizes[turn.seq - 1]
        return some

    async def rename(self, scope: Scope, id: str, title: str) -> bool:
        kept = self._kept.get(_key(scope, id))
        if kept is None:
            return False
        kept.head = msgspec.structs.replace(kept.head, title=title)
        return True

    async def delete(self, scope: Scope, id: str) -> Sequence[str] | None:
        key = _key(scope, id)
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._forget(key)
        self._deleted[key] = self._clock.now()
        return list(dict.fromkeys([turn.stream_id for turn in kept.turns if turn.stream_id]))

    async def erase(self, scope: Scope, user: str | None = None) -> int:
        self._erased[scope.tenant, scope.key, user or ""] = self._clock.now()
        mine = [key for key in self._kept if key[:2] == (scope.tenant, scope.key)]
        erased = [key for key in mine if user is None or user in self._kept[key].users]
        for key in erased:
            self._forget(key)
            self._deleted[key] = self._clock.now()
        return len(erased)

    async def sweep(self, limit: int) -> int:
        now = self._clock.now()
        over = [key for key, at in self._deleted.items() if at <= now - TOMBSTONE]
        for key in over:
            del self._deleted[key]
        for key in [key for key, at in self._erased.items() if at <= now - TOMBSTONE]:
            del self._erased[key]
        if self._keep_for is None:
            return len(over)
        horizon = now - self._keep_for
        old = [key for key, kept in self._kept.items() if kept.head.updated <= horizon][:limit]
        for key in old:
            self._forget(key)
        return len(old) + len(over)

    def _put(self, key: _Key, kept: _Kept) -> None:
        self._kept.pop(key, None)
        self._kept[key] = kept
        while self._bytes > self._most:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: _Key) -> None:
        self._bytes -= _COST + sum(self._kept.pop(key).sizes)


def _key(scope: Scope, id: str) -> _Key:
    return scope.tenant, scope.key, id
