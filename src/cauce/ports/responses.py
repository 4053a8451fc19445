"""Where responses are kept for those who want to read them again or to go on from them."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from cauce.domain.request import Scope
from cauce.domain.stream import StreamKey


class KeptResponse(msgspec.Struct, frozen=True):
    """A response that has ended. `created` is in UNIX seconds.

    `body` is the response and `context` the items it was answered to, those of earlier turns included, as JSON of its wire.
    `tape` is what was streamed, so that the same events can be made of it again; empty if the answer came whole. `user` is who asked, as
    `Scope.known_as` has it.
    """

    id: str
    created: float
    body: bytes
    context: tuple[bytes, ...]
    tape: bytes = b""
    user: str | None = None
    private: bool = False
    """It stays on this machine, and so does what goes on from it."""

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return len(self.body) + len(self.tape) + sum([len(item) for item in self.context])


class Responses(Protocol):
    """Only the owner of a response, the principal of the scope it was put in, gets to see it.

    A response that is the answer of a logged stream is promised when the stream begins, and settled when it has ended. Until then
    its log is read, which may be there for a while after: so what was deleted is remembered, for as long as it would have been kept.
    """

    async def put(self, scope: Scope, response: KeptResponse) -> None:
        """Keep `response`, in place of what is there. It can be got at once; a file may have it a moment later."""
        ...

    async def get(self, scope: Scope, id: str) -> KeptResponse | None:
        """The response called `id`, None if it is not kept for this scope."""
        ...

    async def delete(self, scope: Scope, id: str) -> bool:
        """Forget the response called `id`; whether it was there, or promised."""
        ...

    async def erase(self, principal: str, user: str | None) -> int:
        """Delete all that is kept for `principal`, or what its `user` has asked; returns how many. Those that are promised stay so."""
        ...

    async def deleted(self, scope: Scope, id: str) -> bool:
        """Whether it was there, and was deleted."""
        ...

    async def promise(self, key: StreamKey, created: float) -> None:
        """The answer of this stream will be settled. Nothing changes if it was promised, settled or deleted before."""
        ...

    async def promised(self, limit: int) -> Sequence[StreamKey]:
        """Streams whose answers are not settled yet, at most `limit`, the oldest first."""
        ...

    async def settle(self, key: StreamKey, response: KeptResponse) -> None:
        """Keep the answer of an ended stream, promised or not, unless it was deleted. Idempotent.

        Returns once it outlives the process, where anything here does. Raises `Overloaded` when it cannot be written.
        """
        ...

    async def renounce(self, key: StreamKey) -> None:
        """The answer of this stream will not come. Nothing changes unless it is promised."""
        ...
