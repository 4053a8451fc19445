"""Who is next, where only one can be served at a time."""

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Whoever waits is served in the order they came, but one of each party in turn: nobody is kept waiting by a crowd of one."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, party: str, told: Callable[[int], None]) -> None:
        """Wait for a turn; it must be given back with `release`. If others are before us, `told` learns how many at most."""
        if not self._taken:
            self._taken = True
            return
        told(1 + sum([len(queue) for queue in self._waiting.values()]))
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(party, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It came just as we were called away.
                self.release()
            else:
                self._leave(party, turn)
            raise

    def release(self) -> None:
        """Let the next one in."""
        while self._waiting:
            party = next(iter(self._waiting))
            queue = self._waiting.pop(party)
            turn = queue.popleft()
            if queue:
                # To the end of the line.
                self._waiting[party] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False

    def _leave(self, party: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(party)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[party]
