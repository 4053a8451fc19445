"""Where answers are kept, how old they may be, and the rows that tell of those that were given again."""

import msgspec

from cauce.domain.delta import CacheUse, Outcome
from cauce.domain.errors import CauceError
from cauce.domain.request import Scope
from cauce.domain.usage import Usage
from cauce.engine.caching.key import Keys
from cauce.engine.caching.settings import CacheSettings
from cauce.ports.cache import Cache, CacheControl, CachedAnswer
from cauce.ports.clock import Clock
from cauce.ports.ledger import Entry, Ledger


class Tally(msgspec.Struct):
    """What the cache has done since the start. `shared` are answers of a call that somebody else had made already."""

    hits: int = 0
    shared: int = 0
    stale: int = 0
    misses: int = 0
    stored: int = 0


class Books(msgspec.Struct, frozen=True):
    """The time, and where answers that nobody pays for are written down."""

    clock: Clock
    ledger: Ledger


class Shelf(msgspec.Struct, frozen=True):
    """What everything that keeps answers shares. `own` is the part of `cache` that no other machine can see: private calls use that alone."""

    cache: Cache
    own: Cache
    settings: CacheSettings
    keys: Keys
    books: Books
    tally: Tally

    def place(self, *, private: bool) -> Cache:
        """Where an answer is looked for and kept."""
        return self.own if private else self.cache

    def age(self, answer: CachedAnswer) -> float:
        """Seconds since it was made."""
        return max(0.0, self.books.clock.now() - answer.stored)

    def use(self, age: float, control: CacheControl) -> CacheUse:
        """What an answer of that age is for the client; `miss`: nothing it wants."""
        lifetime = self._lifetime(control)
        if age <= lifetime - control.min_fresh:
            return "hit"
        return "stale" if control.max_stale is not None and age <= lifetime + control.max_stale else "miss"

    def oldest(self, control: CacheControl) -> float:
        """Seconds that an answer may be old where no model answers."""
        oldest = self.settings.stale
        return (
            oldest if control.stale_if_error is None else min(oldest, self._lifetime(control) + control.stale_if_error)
        )

    def _lifetime(self, control: CacheControl) -> float:
        return self.settings.ttl if control.max_age is None else control.max_age


class Gift(msgspec.Struct, frozen=True):
    """An answer that nobody was asked for: whose it once was, who gets it, and since when (monotonic seconds)."""

    books: Books
    scope: Scope
    request_id: str
    provider: str
    model: str
    began: float
    endpoint: str = "chat"
    stream_id: str = ""
    n: int = 1
    waited: float = 0.0

    def record(self, outcome: Outcome, usage: Usage, error: CauceError | None = None) -> None:
        """Write one row, at no cost. See `Deltas.on_end`."""
        clock = self.books.clock
        latency = clock.monotonic() - self.began
        self.books.ledger.record(
            Entry(
                clock.now(),
                self.request_id,
                self.scope,
                self.provider,
                self.model,
                "cache",
                outcome,
                None if error is None else error.code,
                usage,
                latency,
                latency,
                stream_id=self.stream_id,
                endpoint=self.endpoint,
                n=self.n,
                waited=self.waited,
            )
        )
