"""Where responses are kept for those who want to read them again or to go on from them."""

from typing import Protocol

import msgspec

from cauce.domain.request import Scope


class KeptResponse(msgspec.Struct, frozen=True):
    """A response that has ended. `created` is in UNIX seconds.

    `body` is the response and `context` the items it was answered to, those of earlier turns included, as JSON of its wire.
    `tape` is what was streamed, so that the same events can be made of it again; empty if the answer came whole.
    """

    id: str
    created: float
    body: bytes
    context: tuple[bytes, ...]
    tape: bytes = b""

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return len(self.body) + len(self.tape) + sum([len(item) for item in self.context])


class Responses(Protocol):
    """Only the owner of a response, the principal of the scope it was put in, gets to see it."""

    async def put(self, scope: Scope, response: KeptResponse) -> None:
        """Keep `response`."""
        ...

    async def get(self, scope: Scope, id: str) -> KeptResponse | None:
        """The response called `id`, None if it is not kept for this scope."""
        ...

    async def delete(self, scope: Scope, id: str) -> bool:
        """Forget the response called `id`; whether it was there."""
        ...
