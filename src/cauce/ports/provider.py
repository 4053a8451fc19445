"""The model provider, the call that is made to it, and the deltas it answers with.

There is one verb, `open`: it returns when the upstream's first delta is in hand. Until then nobody has seen anything, so
policies around `open` may try again or elsewhere; afterwards deltas run straight from the provider to whoever reads.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from cauce.domain.delta import Attempt, CacheUse, Delta, Finish, Level, Outcome, Status
from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.errors import CauceError, ProviderFailure
from cauce.domain.headroom import Headroom
from cauce.domain.model import UNKNOWN, ModelFacts
from cauce.domain.request import Request, Scope
from cauce.domain.stream import Upstream
from cauce.domain.usage import Usage
from cauce.ports.cache import ANY_ANSWER, CacheControl
from cauce.ports.further import NO_TURNS, Turns
from cauce.ports.resilience import COMMON, Resilience

_DAY = 86_400.0


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds: to connect; to the first delta of a streamed call; between bytes of it; between deltas of it, whatever
    else comes; for the whole call; for the whole of one that is in the log, whose answer may well take longer than a connection lasts."""

    connect: float = 5.0
    first_delta: float = 60.0
    idle: float = 30.0
    stalled: float = 300.0
    total: float = 600.0
    logged: float = _DAY


class ModelInfo(msgspec.Struct, frozen=True):
    """One model a provider offers. `context_window` is in tokens, where the provider tells."""

    id: str
    context_window: int | None = None
    loaded: bool | None = None


Overflow = Literal["larger", "error", "truncate", "summarize"]
"""What becomes of a prompt that is too long for a model: a model with a larger window is asked; it is refused; its oldest turns
are left out; a summary takes their place."""


class Candidate(msgspec.Struct, frozen=True):
    """One place a call may go: a provider and a model of it. `level` says what an answer from there counts as."""

    provider: "Provider"
    model: str
    level: Level = "primary"
    timeouts: Timeouts = Timeouts()
    facts: ModelFacts = UNKNOWN
    deployment: str = ""
    """Which of the provider's keys or places this is, where it has several."""
    hedge: float | None = None
    """Seconds without a first delta after which the next candidate is asked too (None: never)."""
    overflow: Overflow = "larger"
    midstream: "Midstream" = "continue"
    resilience: Resilience = COMMON
    label: str = ""
    """Its name, where it has been made already."""
    completes: bool = False
    """It goes on with a prompt as it is."""

    @property
    def name(self) -> str:
        """`provider/model`, or the provider alone where it has but one model."""
        return self.label or named(self.provider.name, self.model)


def named(provider: str, model: str) -> str:
    """The name of a candidate: `provider/model`, or the provider alone where it has but one model."""
    return f"{provider}/{model}" if model else provider


Midstream = Literal["continue", "resume", "restart", "fail"]
"""What becomes of an answer whose provider fails after text of it was shown: any model is asked to continue; only a model that goes
on exactly; it begins anew, where its readers can take back what they have; it ends with the error."""

Notice = Callable[[Status | Attempt], None]
"""Told what is going on while `open` is awaited. It must return at once."""


def unreported() -> Usage:
    """The usage of an answer of which nothing is known."""
    return _UNREPORTED


_UNREPORTED = Usage(estimated=True)


def unplaced() -> Upstream | None:
    """The position in a provider's stream that cannot be attached to again."""
    return None


def unnoticed(_: Status | Attempt) -> None:
    """The notice of a caller who does not care."""


async def always_ours() -> None:
    """The `renewed` of a call whose answer no other process could go on with."""


def unnoticed_admission() -> None:
    """The `admitted` of a call that nobody queues behind."""


class Course(msgspec.Struct):
    """What has become of a request so far. All copies of its call share one.

    `attempts` counts whom it was put to, retries included; `waited` is the seconds it has stood in our queue, `queued` whether it stands there now; `level` is that
    of the attempt, or of the answer out of the cache, that was last. `cache` is what the cache did, `age` the seconds since its
    answer was made. `further` are turns of a structured answer that were denied, or failed.
    """

    attempts: int = 0
    waited: float = 0.0
    queued: bool = False
    level: Level = "primary"
    asked: "Candidate | None" = None
    """Whom that attempt was put to."""
    headroom: "tuple[Candidate, Headroom] | None" = None
    """What the last upstream said of its own limits, and which candidate that was."""
    cache: CacheUse = "none"
    age: float = 0.0
    truncated: int = 0
    """Messages that were left out, since it was too long."""
    bound: int = 0
    """Tokens that an attempt's answer was bound to by what its caller may spend, and not by its request (0: none was)."""
    further: Turns = NO_TURNS
    handed_over: bool = False
    """Another process goes on with its answer: whoever closes the upstream leaves the provider's own stream running."""


class Call(msgspec.Struct, frozen=True):
    """One request on its way. Policies pass on changed copies.

    `deadline` is a reading of the monotonic clock (None: not set yet). Below `fallback`, `candidates` has one entry.
    """

    request: Request
    scope: Scope
    candidates: tuple[Candidate, ...]
    request_id: str = ""
    deadline: float | None = None
    notice: Notice = unnoticed
    patience: float | None = None
    """Seconds the candidate has until its first delta (None: no bound of its own)."""
    streamed: bool = True
    """Ask the upstream for a stream. False: the client wants one plain answer and nobody logs or buffers it."""
    stream_id: str = ""
    """The id its answer is known by: what feedback is given to."""
    cache: CacheControl = ANY_ANSWER
    """What the client says of cached answers."""
    waits: bool = True
    """It would rather wait for a model that is busy than be answered by less. False: it has waited long enough."""
    admitted: Callable[[], None] = unnoticed_admission
    """Called each time the limits have let it through to a candidate: whoever is next in the queue may try."""
    course: Course = msgspec.field(default_factory=Course)
    strategy: str = "open"
    """What the next attempt is to those before it, as `Attempt` tells it: open, retry, fallback, … `same`: the last one, still."""
    after: CauceError | None = None
    """The failure it follows."""
    last: bool = True
    """No other model is left to ask instead but an offline one: waiting for this one is better than leaving it."""
    whole: bool = False
    """Nobody is shown any of its answer before the end."""
    probe: bool = False
    """Ask even a candidate whose breaker is open: no other is left."""
    begun: Sequence[Delta] = ()
    """What its readers have of its answer already, from another process: it is gone on with, not begun."""
    upstream: Upstream | None = None
    """The provider's own stream that `begun` came from, read up to its end, where it can be attached to again."""
    replaces: bool = False
    """Its readers can take back what was shown, or are shown nothing before the end: the answer may begin anew (`Restart`)."""
    withheld: bool = False
    """Its readers are shown nothing before the end, though it is written as it comes: better another answer than two that are joined."""
    abandons: bool = False
    """Its readers are shown only calls of tools that are complete, or can take one back: one that broke off is gone on with."""
    renewed: Callable[[], Awaitable[None]] = always_ours
    """Awaited before another attempt goes on with the answer. It is cancelled there if another process has the answer by now."""
    embedding: EmbeddingRequest | None = None
    """What to make vectors of, where it is vectors that are wanted; `request` then says the same as a message, to be weighed."""
    private: bool = False
    """It stays on this machine: nothing of it or of its answer is written to a store that other machines may share, or read from one."""

    @property
    def candidate(self) -> Candidate:
        """The first candidate."""
        return self.candidates[0]

    @property
    def endpoint(self) -> str:
        """What is asked for: chat, completions, embeddings."""
        if self.embedding is not None:
            return "embeddings"
        return "chat" if self.request.prompt is None else "completions"


class Deltas:
    """An opened answer: batches of deltas, each batch what one read of the upstream gave.

    Read it with `read()` batch by batch, or delta by delta with `async for`; not both. It ends with exactly one `Finish`, or
    raises a `CauceError`. A source that stops without a `Finish` has failed, whatever it sent. `aclose()` closes the upstream;
    a reader that does not reach the end must call it (`contextlib.aclosing`).
    """

    __slots__ = ("_ended", "_first", "_listeners", "_settlers", "_source", "_unread", "_used", "position", "so_far")

    def __init__(
        self,
        source: AsyncGenerator[Sequence[Delta], None] | None,
        first: Sequence[Delta] = (),
        so_far: Callable[[], Usage] = unreported,
        position: "Callable[[], Upstream | None]" = unplaced,
    ) -> None:
        """`first` is the first batch of `source`, where it has been read. Without a source `first` is the whole answer."""
        self.so_far = so_far
        """What it has used by now, as far as can be told: asked only when it does not reach its end."""
        self.position = position
        """How far the provider's own stream has been read with the newest batch that was handed out; None: it cannot be attached to."""
        self._source = source
        self._first = first
        self._listeners: list[Listener] = []
        self._settlers: list[Settler] = []
        self._unread: list[Delta] = []
        self._ended = False
        self._used: Usage | None = None

    @property
    def used(self) -> Usage:
        """What it has used: all of it once it has ended, else what can be told so far."""
        return self._used or self.so_far()

    @classmethod
    async def opened(
        cls,
        source: AsyncGenerator[Sequence[Delta], None],
        provider: str,
        so_far: Callable[[], Usage] = unreported,
        position: "Callable[[], Upstream | None]" = unplaced,
    ) -> "Deltas":
        """Wait for the first batch of `source`. Raises what the source raises, and `ProviderFailure` if it gives nothing."""
        try:
            first = await anext(source)
            while not first:
                first = await anext(source)
        except StopAsyncIteration:
            raise _cut(provider) from None
        except BaseException:
            await source.aclose()
            raise
        return cls(source, first, so_far, position)

    def on_end(self, listener: "Listener") -> None:
        """Have `listener(outcome, usage, error)` called once: on end, error or close, before the terminal delta is handed out."""
        self._listeners.append(listener)

    def on_finish(self, settler: "Settler") -> None:
        """Have the usage pass through `settler` at the end, before anyone sees it: what it cost is known only then."""
        self._settlers.append(settler)

    async def read(self) -> Sequence[Delta]:
        """The next batch; empty after the end. Raises `CauceError`."""
        if self._ended:
            return ()
        batch = self._first
        if batch:
            self._first = ()
        else:
            try:
                batch = await anext(self._source) if self._source is not None else ()
            except StopAsyncIteration:
                error = _cut("upstream")
                await self._cut_short("failed", error)
                raise error from None
            except CauceError as error:
                await self._cut_short("failed", error)
                raise
        last = batch[-1] if batch else None
        if type(last) is Finish:
            usage = last.usage
            for settler in self._settlers:
                usage = settler(usage)
            if usage is not last.usage:
                batch = (*batch[:-1], last.using(usage))
            await self._end(last.outcome, usage)
        return batch

    def __aiter__(self) -> "Deltas":
        return self

    async def __anext__(self) -> Delta:
        while not self._unread:
            batch = await self.read()
            if not batch and self._ended:
                raise StopAsyncIteration
            self._unread = list(reversed(batch))
        return self._unread.pop()

    async def aclose(self) -> None:
        """Close the upstream. Does nothing to an answer that has ended."""
        if not self._ended:
            await self._cut_short("cancelled", None)

    async def _cut_short(self, outcome: Outcome, error: CauceError | None) -> None:
        self._ended = True
        try:
            if self._source is not None:
                await self._source.aclose()
        finally:
            # Asked once it is closed: what is below it has been settled by then.
            usage = self.so_far()
            for settler in self._settlers:
                usage = settler(usage)
            self._used = usage
            await _told(iter(self._listeners), outcome, usage, error)

    async def _end(self, outcome: Outcome, usage: Usage) -> None:
        self._ended = True
        self._used = usage
        try:
            if self._source is not None:
                await self._source.aclose()
        finally:
            await _told(iter(self._listeners), outcome, usage, None)


Settler = Callable[[Usage], Usage]
Listener = Callable[[Outcome, Usage, CauceError | None], Awaitable[None] | None]
"""What it returns is awaited, unless it has done all it had to."""


async def _told(listeners: Iterator[Listener], outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
    """Tell each of `listeners`. One that is given up, since its reader leaves, does not keep it from the others."""
    try:
        for listener in listeners:
            if (more := listener(outcome, usage, error)) is not None:
                await more
    except BaseException:
        await _told(listeners, outcome, usage, error)
        raise


Open = Callable[[Call], Awaitable[Deltas]]
Policy = Callable[[Open], Open]


class Provider(Protocol):
    """A source of models. Errors of the upstream arrive as `ProviderFailure`, never as a driver's own."""

    @property
    def name(self) -> str:
        """The name it is configured under."""
        ...

    async def open(self, call: Call) -> Deltas:
        """Ask `call.candidate.model`. Returns when the first delta is in hand."""
        ...

    async def count_tokens(self, request: Request, model: str) -> int | None:
        """Input tokens of `request` for `model`, exactly; None where the provider has no way to tell. Raises `ProviderFailure`."""
        ...

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models it offers now. Raises `ProviderFailure`."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


def _cut(provider: str) -> ProviderFailure:
    return ProviderFailure(
        "the answer ended without its end marker: it was cut off", failure="transient", provider=provider
    )
