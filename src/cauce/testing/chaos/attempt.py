"""One request to the oracle and what became of it: the book that a run is judged by."""

from typing import Literal

import msgspec

from cauce.testing.chaos.faults import ProviderFault
from cauce.testing.chaos.kept import Connections
from cauce.testing.chaos.text import nonce

Kind = Literal["open", "prefill", "prompt"]


class Attempt(msgspec.Struct):
    """One request and what became of it. Offsets are characters of the answer, times the loop's."""

    stream: str
    number: int
    """Of all of this run: it names the attempt in the text."""
    node: str
    kind: Kind
    began: float
    prefix: str = ""
    fault: ProviderFault = "none"
    status: int = 200
    served: int = 0
    """Up to which character."""
    tokens: int = 0
    """Pieces that were sent, as its usage says them."""
    weight: float = 0.0
    """Tokens of what was sent, as somebody who was not told them has to guess."""
    called: int = 0
    """How many calls of tools were written to their end."""
    told: bool = False
    """The reason why it ends was sent: all there is of it has come."""
    whole: bool = False
    """Its terminal was sent."""
    over: bool = False
    """All was done that was to be: who asked had not left before."""
    closed: float | None = None
    """When its connection was seen to end."""
    lot: tuple[str, int] = ("", 0)
    """Its name in the schedule of faults: the number of its stream in the run, and which of the stream's it is, from 0 on."""
    kept: Connections | None = None
    """Of one that is kept: who came back for it."""

    @property
    def nodes(self) -> set[str]:
        """Those that it was read by."""
        return {self.node} if self.kept is None else {self.node, *[node for _, node in self.kept.attached]}

    def holder(self, at: float) -> str:
        """The node that read it last before `at`."""
        return self.node if self.kept is None else self.kept.holder((self.began, self.node), at)

    @property
    def nonce(self) -> str:
        """Its name in the text."""
        return nonce(self.number)


class Noted(msgspec.Struct, frozen=True):
    """Something it was sent that it never said."""

    stream: str
    message: str
