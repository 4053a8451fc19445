"""One log made of two: private streams are in the memory of this process, all others in a store that other machines may share.

What is made here stays where it was made: whatever is asked of a private stream is asked of the memory alone.
"""

from collections.abc import Sequence

from cauce.domain.errors import Gone
from cauce.domain.stream import (
    Commit,
    Created,
    Erased,
    Head,
    History,
    Hold,
    NewStream,
    Record,
    Renewed,
    StreamKey,
    Unreadable,
    Whose,
)
from cauce.ports.stream_log import LogUnavailable, Startable, StreamLog
from cauce.stores.inproc.stream_log import InprocStreamLog


class PartedStreamLog:
    """See `ports.stream_log.StreamLog`. Of an id that `here` knows, `shared` is asked nothing."""

    def __init__(self, here: InprocStreamLog, shared: Startable) -> None:
        self._here = here
        self._shared = shared

    async def start(self) -> None:
        """Begin. Raises `LogUnavailable`."""
        await self._shared.start()

    async def stop(self) -> None:
        """Write what waits, and let go."""
        await self._shared.stop()

    async def create(self, new: NewStream) -> Created:
        return await (self._here if new.private else self._of(new.key)).create(new)

    async def append(self, hold: Hold, commit: Commit) -> Hold:
        return await self._of(hold.key).append(hold, commit)

    async def read(self, key: StreamKey, after: int, limit: int) -> Sequence[Record]:
        return await self._of(key).read(key, after, limit)

    async def wait(self, key: StreamKey, after: int, seconds: float | None = None) -> bool:
        return await self._of(key).wait(key, after, seconds)

    async def hears(self, key: StreamKey, seq: int) -> bool:
        return await self._of(key).hears(key, seq)

    async def head(self, key: StreamKey) -> Head | None:
        return await self._of(key).head(key)

    async def newest_open(self, principal: str, group: str) -> StreamKey | None:
        here = await self._here.newest_open(principal, group)
        try:
            shared = await self._shared.newest_open(principal, group)
            if shared is None or self._here.knows(shared):
                return here
            if here is None:
                return shared
            mine, other = await self._here.head(here), await self._shared.head(shared)
        except (LogUnavailable, Gone):
            # What is here can be read all the same.
            if here is None:
                raise
            return here
        return shared if mine is None or (other is not None and other.created > mine.created) else here

    async def history(self, key: StreamKey) -> History:
        return await self._of(key).history(key)

    async def request_cancel(self, key: StreamKey, reason: str = "requested") -> Head | None:
        known = await self._of(key).request_cancel(key, reason)
        if known is None:
            # It may become one of either.
            await self._here.request_cancel(key, reason)
        return known

    async def orphans(self, limit: int) -> Sequence[Head | Unreadable]:
        shared = await self._shared.orphans(limit)
        # Another server may have made one whose id is a private one's here: others take it over.
        others = [head for head in shared if not self._here.knows(head.key)]
        return [*await self._here.orphans(limit), *others][:limit]

    async def claim(self, head: Head | Unreadable, node: str) -> Hold | None:
        return await self._of(head.key).claim(head, node)

    async def renew(self, holds: Sequence[Hold]) -> Sequence[Renewed]:
        here, shared = self._parted(holds)
        return [*await self._here.renew(here), *await self._shared.renew(shared)]

    async def release(self, holds: Sequence[Hold]) -> None:
        here, shared = self._parted(holds)
        await self._here.release(here)
        if shared:
            await self._shared.release(shared)

    def attach(self, key: StreamKey) -> int:
        return self._of(key).attach(key)

    def detach(self, key: StreamKey, reader: int) -> None:
        self._of(key).detach(key, reader)

    def mark(self, key: StreamKey, reader: int, seq: int) -> None:
        self._of(key).mark(key, reader, seq)

    async def seen(self, keys: Sequence[StreamKey]) -> None:
        await self._here.seen(keys)
        if shared := [key for key in keys if not self._here.knows(key)]:
            await self._shared.seen(shared)

    async def unseen(self, key: StreamKey) -> float | None:
        return await self._of(key).unseen(key)

    async def erase(self, whose: Whose) -> Erased:
        if whose.id is not None:
            return await self._of(StreamKey(whose.principal, whose.id)).erase(whose)
        here, shared = await self._here.erase(whose), await self._shared.erase(whose)
        return Erased((*here.deleted, *shared.deleted), (*here.open, *shared.open))

    async def sweep(self, limit: int) -> int:
        return await self._here.sweep(limit) + await self._shared.sweep(limit)

    async def unsettled(self, limit: int) -> Sequence[StreamKey]:
        shared = [key for key in await self._shared.unsettled(limit) if not self._here.knows(key)]
        return [*await self._here.unsettled(limit), *shared][:limit]

    async def settle(self, key: StreamKey) -> None:
        await self._of(key).settle(key)

    def _of(self, key: StreamKey) -> StreamLog:
        return self._here if self._here.knows(key) else self._shared

    def _parted(self, holds: Sequence[Hold]) -> tuple[list[Hold], list[Hold]]:
        here = [hold for hold in holds if self._here.knows(hold.key)]
        return here, [hold for hold in holds if not self._here.knows(hold.key)]
