"""Answers that were given before, and calls that several clients share.

| a request that may be cached | gets |
|---|---|
| has an answer that is fresh enough | that answer, as the stream it was; nobody is asked |
| is asked already, by a call that its own would be no better than | what that call gives, from its first delta on |
| neither | its own call, in a flight that others may join; its answer is kept if it ends well |
| is private | the same, among private calls, out of what no other machine can see |

Nobody waits for a call of another key that waits in the queue itself, nor for one that has far less time left, nor for an answer that the budget
of another cuts short: such a request makes its own call. The first of them that gets to a model answers all.

Whether a request may be cached, and an answer kept, stands in `engine.caching.worth`. All others cost one comparison.
When no model answers, `fallback` asks `stale`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from cauce.domain.delta import Attempt, CacheUse, Delta, Level, Status
from cauce.domain.errors import DENIALS, CauceError, DeadlineExceeded, InternalError, NotCached
from cauce.domain.usage import Usage
from cauce.engine.caching.encoding import decode, decode_vectors, encode, encode_vectors, free, gratis
from cauce.engine.caching.flight import Flight, Moved, owner
from cauce.engine.caching.shelf import Books, Gift, Shelf
from cauce.engine.caching.worth import may_be_cached, may_be_kept
from cauce.engine.embedding import Vectors
from cauce.ports.cache import CachedAnswer
from cauce.ports.provider import Call, Deltas, Open, unreported

ENOUGH = 0.75
"""The part of its own time that a call has to see left of another's to wait for that. The same requests have the same time, but do not come at
the same moment."""

_SLACK = 0.1
"""Seconds by which the time that an upstream is given may end before the call's own."""


class Caching:
    """The cache of completions and of vectors: `policy` goes around a cascade, `stale` into it."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._keys = shelf.keys
        self._books = shelf.books
        self._tally = shelf.tally
        self._flights: dict[bytes, list[Flight]] = {}
        """Those that others may join, the oldest first."""

    def policy(self, open: Open) -> Open:
        """See the module. Raises `NotCached` where nothing else was wanted."""

        def opened(call: Call) -> Awaitable[Deltas]:
            control = call.cache
            if call.request.sampling.temperature != 0 and not control.wanted:
                return open(call)
            key = self._keys.of(call) if may_be_cached(call) else None
            if key is not None:
                return self._looked_up(open, call, key)
            if control.only_cached:
                raise _not_cached("answers to it are never kept here")
            return open(call)

        return opened

    async def stale(self, call: Call) -> Deltas | None:
        """An answer of before, however old, as far as it may still be given; None if there is none."""
        control = call.cache
        if call.request.sampling.temperature != 0 and not control.wanted:
            return None
        if not (control.read or control.stale_if_error is not None) or not may_be_cached(call):
            return None
        key = self._keys.of(call)
        answer = await self._shelf.place(private=call.private).get(key) if key is not None else None
        if answer is None:
            return None
        return self._given(call, answer, "stale") if self._shelf.age(answer) <= self._shelf.oldest(control) else None

    async def _looked_up(self, open: Open, call: Call, key: bytes) -> Deltas:
        control = call.cache
        place = self._shelf.place(private=call.private)
        if control.read and (answer := await place.get(key)) is not None:
            use = self._shelf.use(self._shelf.age(answer), control)
            given = self._given(call, answer, use) if use != "miss" else None
            if given is not None:
                return given
        again = moved = False
        to: Flight | None = None
        while True:
            flight = self._joinable(key, call, to, moved=moved) if control.read else None
            if flight is None:
                if control.only_cached:
                    raise _not_cached("there is none that is fresh enough")
                try:
                    return await self._led(open, call, key)
                except Moved as elsewhere:
                    to = elsewhere.to
                    continue
            try:
                return await self._followed(flight, call)
            except Moved as elsewhere:
                moved, to = True, elsewhere.to
            except CauceError as error:
                now = self._books.clock.monotonic()
                if error is not flight.failed or not _may_ask_anew(flight, call, now, again=again):
                    raise
                again, to = True, None

    async def _led(self, open: Open, call: Call, key: bytes) -> Deltas:
        """What a call of its own gives. Raises its error, and `Moved` where another gives the same sooner."""
        call.course.cache = "miss"
        flight = Flight(call, key, self._shelf.settings.max_answer, self._landed, self._admitted)
        self._flights.setdefault(key, []).append(flight)
        missed = True
        try:
            return await _member(flight, flight.lead(open, self._keep), flight.so_far)
        except Moved:
            missed = False
            raise
        finally:
            self._tally.misses += missed

    def _joinable(self, key: bytes, call: Call, to: Flight | None, *, moved: bool) -> Flight | None:
        """A flight that `call` may wait for: `to`, which it was sent to and which may have landed by now, or one that is under way."""
        flights: Sequence[Flight] = self._flights.get(key, ())
        if to is not None and to.whole and to not in flights:
            flights = (to, *flights)
        if not flights:
            return None
        now = self._books.clock.monotonic()
        for flight in flights:
            if _may_join(flight, call, moved=moved) and _has_time(flight, call, now):
                return flight
        return None

    async def _followed(self, flight: Flight, call: Call) -> Deltas:
        """What another's call gives. Raises its error, `Moved`, and `DeadlineExceeded` when this call has waited long enough."""
        clock = self._books.clock
        began = clock.monotonic()
        try:
            async with clock.timeout(None if call.deadline is None else call.deadline - began):
                deltas = await _member(flight, flight.follow(call))
                if not call.streamed:
                    # Whoever has been shown nothing may still ask anew.
                    deltas = await _whole(deltas)
        except TimeoutError as late:
            raise DeadlineExceeded("the time for this call is used up; the same was asked already") from late
        attempt = flight.attempt
        assert attempt is not None, "an answer has somebody who gave it"
        course, stale = call.course, flight.call.course.cache == "stale"
        level: Level = "offline" if attempt.level == "offline" else "cache"
        course.level, course.truncated = level, flight.call.course.truncated
        course.cache, course.age = ("stale", flight.call.course.age) if stale else ("hit", 0.0)
        self._tally.shared += 1
        strategy = attempt.strategy if attempt.level == "cache" else "shared"
        call.notice(
            Attempt(course.attempts + 1, attempt.provider, attempt.model, level, strategy=strategy, age=int(course.age))
        )
        deltas.on_finish(gratis)
        deltas.on_end(_gift(self._books, call, attempt.provider, attempt.model, began).record)
        return deltas

    def _given(self, call: Call, answer: CachedAnswer, use: CacheUse) -> Deltas | None:
        """`answer`, given to `call`; None if it cannot be read any more."""
        given = _again(call, answer)
        if given is None:
            return None
        course, after = call.course, call.after
        course.cache, course.age, course.level = use, self._shelf.age(answer), "cache"
        if use == "hit":
            self._tally.hits += 1
        else:
            self._tally.stale += 1
        call.notice(
            Attempt(
                course.attempts + 1,
                answer.provider,
                answer.model,
                "cache",
                strategy="cache" if use == "hit" else "stale",
                reason=None if after is None else after.message,
                reason_code=None if after is None else after.code,
                age=int(course.age),
            )
        )
        given.on_end(_gift(self._books, call, answer.provider, answer.model, self._books.clock.monotonic()).record)
        return given

    async def _keep(self, flight: Flight) -> None:
        answer = self._kept(flight)
        if answer is not None:
            self._tally.stored += 1
            await self._shelf.place(private=flight.call.private).put(flight.key, answer, self._shelf.settings.keep)

    def _kept(self, flight: Flight) -> CachedAnswer | None:
        """What is kept of it; None if that is nothing."""
        deltas, attempt, opened = flight.deltas, flight.attempt, flight.opened
        if attempt is None or not may_be_kept(flight.call, deltas, attempt):
            return None
        now = self._books.clock.now()
        if isinstance(opened, Vectors):
            vectors = encode_vectors(opened.embeddings)
            if vectors is None or len(vectors) > self._shelf.settings.max_answer:
                return None
            return CachedAnswer(vectors, now, attempt.provider, attempt.model)
        encoded = encode(deltas)
        if encoded is None:
            return None
        written, pieces = encoded
        kept = free([delta for delta in deltas if not isinstance(delta, Status)])
        return CachedAnswer(written, now, attempt.provider, attempt.model, pieces, kept)

    def _landed(self, flight: Flight) -> None:
        """No more may join `flight`."""
        flights = self._flights.get(flight.key, [])
        if flight in flights:
            flights.remove(flight)
            if not flights:
                del self._flights[flight.key]

    def _admitted(self, flight: Flight) -> None:
        """A model is asked for `flight`: those who wait in the queue to ask the same need not."""
        now = self._books.clock.monotonic()
        for other in tuple(self._flights.get(flight.key, ())):
            waits = other is not flight and not other.asked and not other.begun
            if waits and other.call.cache.read and _has_time(flight, other.call, now):
                other.give_way(flight)


async def _member(
    flight: Flight, batches: AsyncGenerator[Sequence[Delta], None], so_far: Callable[[], Usage] = unreported
) -> Deltas:
    """What a member of `flight` gets, who reads `batches`."""
    deltas = await Deltas.opened(batches, "", so_far)
    opened = flight.opened
    if not isinstance(opened, Vectors):
        return deltas
    # With the first batch all of them are there.
    await deltas.aclose()
    return Vectors(opened.embeddings)


async def _whole(deltas: Deltas) -> Deltas:
    """`deltas`, once all of them are there."""
    if isinstance(deltas, Vectors):
        return deltas
    whole: list[Delta] = []
    async with aclosing(deltas):
        while batch := await deltas.read():
            whole += batch
    return Deltas(None, tuple(whole))


def _again(call: Call, answer: CachedAnswer) -> Deltas | None:
    """`answer` as one to `call`; None if it cannot be read any more."""
    if call.embedding is not None:
        # Read each time: floats take more room than the bytes that are counted.
        made = decode_vectors(answer.deltas)
        return None if made is None else Vectors(made)
    deltas = answer.decoded
    if deltas is None:
        deltas = answer.decoded = decode(answer.deltas)
    return None if deltas is None else Deltas(None, deltas)


def _gift(books: Books, call: Call, provider: str, model: str, began: float) -> Gift:
    """What `call` is given without a price. `Gift` says what else it is."""
    return Gift(
        books,
        call.scope.of(call.request.user),
        call.request_id,
        provider,
        model,
        began,
        call.endpoint,
        call.stream_id,
        call.course.attempts + 1,
        call.course.waited,
    )


def _may_join(flight: Flight, call: Call, *, moved: bool) -> bool:
    """Whether `call` may wait for what `flight` gives: nobody waits behind limits of another key, or is given what the budget of another
    leaves. Where one call has `moved` it does not try to share a budget again."""
    if owner(flight.call) == owner(call):
        return True
    if flight.asked:
        return not flight.call.course.bound
    return not moved and flight.call.scope.principal == call.scope.principal


def _has_time(flight: Flight, call: Call, now: float) -> bool:
    """Whether `flight` has about as much time left as `call` itself."""
    its, own = flight.call.deadline, call.deadline
    return its is None or (own is not None and its - now >= (own - now) * ENOUGH)


def _may_ask_anew(flight: Flight, call: Call, now: float, *, again: bool) -> bool:
    """Whether `call`, which has been shown nothing, need not share the failure of `flight`.

    What a limit, a budget or the time of another caller has ended says nothing of this one. What upstreams failed with is
    tried once more, by one of all who wait: it must not become a call of each of them.
    """
    error, deadline = flight.failed, flight.call.deadline
    if error is None or isinstance(error, InternalError):
        return False
    if isinstance(error, DeadlineExceeded) or (
        error.code == "timeout" and deadline is not None and now >= deadline - _SLACK
    ):
        return True
    if flight.begun:
        return False
    if isinstance(error, DENIALS) and owner(flight.call) != owner(call):
        return True
    return not again and error.failure not in ("bad_request", "content_filter")


def _not_cached(why: str) -> NotCached:
    return NotCached(f"only a cached answer was wanted (Cache-Control: only-if-cached), and {why}")
