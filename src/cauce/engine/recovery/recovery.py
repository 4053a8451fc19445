"""After the first delta: an answer whose provider fails is gone on with, as exactly as the models left allow it.

| what the reader has | what follows |
|---|---|
| nothing that counts: reasoning, a status | the request is opened anew |
| text | a model that takes its own beginning goes on with it; else any model is asked to continue, behind the seam |
| complete calls of tools | the step ends with them |
| a call that is not complete, a refusal, several answers, a structured one | the error |

How far it goes is the route's `midstream`: `resume` (only what is exact), `continue`, `fail` (never). Each attempt is told by an
`Attempt` and has its row in the ledger; the answer's usage is the sum of all.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec

from cauce.domain.delta import Delta, Finish, Outcome, Reasoning, Status, Text, ToolCall
from cauce.domain.errors import TREATMENT, CauceError, DeadlineExceeded, ProviderFailure
from cauce.domain.usage import Usage, summed
from cauce.engine.recovery.delivered import Delivered, fold
from cauce.engine.recovery.prompt import asked_to_continue, continued
from cauce.engine.recovery.seam import Seam, begins_anew
from cauce.engine.recovery.settings import RecoverySettings
from cauce.ports.clock import Clock
from cauce.ports.provider import NO_CACHE, Call, Candidate, Deltas, Open, Policy

MOST_KEPT_BATCHES = 50_000
"""Batches of an answer that are kept for it. A longer one is not gone on with."""

MOST_KEPT = 4 * 1024 * 1024
"""Characters of an answer beyond which it is not gone on with: they are held in memory for it."""

_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
"""Seconds before another try at going on, growing, where nobody could."""

logger = logging.getLogger("cauce.calls")


def recovery(clock: Clock, settings: RecoverySettings) -> Policy:
    """Go on with streamed answers that break. Plain ones have shown nothing: they are retried where they are opened."""

    def policy(open: Open) -> Open:
        async def opened(call: Call) -> Deltas:
            deltas = await open(call)
            if not call.streamed or not settings.attempts or not _may_be_kept(call):
                return deltas
            answer = _Answer(clock, settings, open, call)
            # Read up to its first batch: what has not begun could not close what it has opened.
            return await Deltas.opened(answer.batches(deltas), "upstream", answer.so_far)

        return opened

    return policy


def _may_be_kept(call: Call) -> bool:
    """Whether the answer to `call` may be gone on with at all: several at once never are, nor where the route forbids it."""
    return call.candidates[0].midstream != "fail" and call.request.sampling.n == 1


class _Answer:
    """One answer, whoever gives it."""

    def __init__(self, clock: Clock, settings: RecoverySettings, open: Open, call: Call) -> None:
        self._clock = clock
        self._settings = settings
        self._open = open
        self._call = call
        self._seen: list[Sequence[Delta]] = []
        self._began = self._progress = clock.monotonic()
        self._seen_before = 0
        self._recoveries = 0
        self._spent: Usage | None = None
        """What the attempts before this one used."""
        self._current: Deltas | None = None

    def so_far(self) -> Usage:
        """What all attempts have used by now, as far as can be told."""
        if self._current is None:
            return self._spent or Usage(estimated=True)
        return self._total(self._current.used)

    async def batches(self, deltas: Deltas) -> AsyncGenerator[Sequence[Delta], None]:
        """The answer, from its first batch to its `Finish`. Raises the error that nothing bridges."""
        self._attended(deltas)
        seen = self._seen
        try:
            while True:
                try:
                    while True:
                        batch = await deltas.read()
                        last = batch[-1]
                        if type(last) is Finish:
                            # One that ends as cancelled has been added up by now.
                            total = self._total(last.usage) if self._current is not None else self._spent or last.usage
                            yield batch if total is last.usage else (*batch[:-1], last.using(total))
                            return
                        if len(seen) < MOST_KEPT_BATCHES:
                            seen.append(batch)
                        yield batch
                except CauceError as error:
                    delivered = fold(seen)
                    if delivered.ready and not delivered.begun:
                        # The calls are whole: what the model wanted to do is known, and nothing may be asked twice.
                        yield (Finish("tool_calls", self._spent or Usage(estimated=True)),)
                        return
                    deltas = self._current = await self._bridged(error, delivered)
        finally:
            if self._current is not None:
                await self._current.aclose()

    def _attended(self, deltas: Deltas) -> Deltas:
        """`deltas`, which are of the attempt that is made now; what it uses in vain is added up."""

        async def ended(outcome: Outcome, usage: Usage, _: CauceError | None) -> None:
            if outcome in ("failed", "cancelled"):
                self._spent = self._total(usage)
                self._current = None

        deltas.on_end(ended)
        self._current = deltas
        return deltas

    def _total(self, usage: Usage) -> Usage:
        return usage if self._spent is None else summed(self._spent, usage)

    async def _bridged(self, error: CauceError, delivered: Delivered) -> Deltas:
        """What goes on with the answer, its first delta in hand. Raises `error` where nothing does."""
        if len(self._seen) > self._seen_before:
            self._seen_before, self._progress = len(self._seen), self._clock.monotonic()
        latest = error
        while self._may_go_on(latest, delivered):
            if latest is not error:
                await self._clock.sleep(min(_LONGEST_PAUSE, _PAUSE * self._recoveries))
            self._recoveries += 1
            try:
                return await self._next(latest, delivered)
            except CauceError as failed:
                logger.info("%s: nobody goes on with the answer: %s", self._call.request_id, failed.message)
                latest = failed
        raise error from (latest if latest is not error else None)

    def _may_go_on(self, error: CauceError, delivered: Delivered) -> bool:
        call, settings, now = self._call, self._settings, self._clock.monotonic()
        if not _passes(error) or delivered.otherwise or delivered.begun or delivered.ready:
            return False
        if self._recoveries >= settings.attempts or now - self._began > settings.age:
            return False
        if now - self._progress > settings.no_progress:
            return False
        if len(self._seen) >= MOST_KEPT_BATCHES:
            return False
        if len(delivered.text) > MOST_KEPT or (call.deadline is not None and now >= call.deadline):
            return False
        request = call.request
        structured = request.response_format is not None and request.response_format.kind != "text"
        # A text that goes on from a prompt is no answer: nobody can be asked to go on with it.
        return not delivered.text or not (structured or request.prompt is not None)

    async def _next(self, error: CauceError, delivered: Delivered) -> Deltas:
        """The next attempt, with its first delta in hand."""
        call = msgspec.structs.replace(self._call, cache=NO_CACHE, after=error)
        if not delivered.text:
            return self._attended(await self._open(msgspec.structs.replace(call, strategy="again")))
        models = [candidate for candidate in call.candidates if candidate.level != "offline"]
        exact = [candidate for candidate in models if candidate.facts.prefill]
        refused = error
        if exact:
            try:
                return await self._prefilled(call, exact, delivered.text)
            except CauceError as failed:
                if not _passes(failed) and failed.code != "invalid_request":
                    raise
                refused = failed
        if call.candidates[0].midstream != "continue" or not models:
            raise refused
        return await self._prompted(msgspec.structs.replace(call, after=refused), models, delivered.text)

    async def _prefilled(self, call: Call, models: list[Candidate], text: str) -> Deltas:
        asked = msgspec.structs.replace(
            call, request=continued(call.request, text), candidates=tuple(models), strategy="prefill"
        )
        deltas = self._attended(await self._open(asked))
        return await Deltas.opened(_exact(deltas, text), models[0].provider.name, _used(deltas))

    async def _prompted(self, call: Call, models: list[Candidate], text: str) -> Deltas:
        # Whoever has just failed comes last: the others are there.
        models = [*models[1:], models[0]]
        while True:
            asked = msgspec.structs.replace(
                call, request=asked_to_continue(call.request, text), candidates=tuple(models), strategy="continue"
            )
            deltas = self._attended(await self._open(asked))
            try:
                return await Deltas.opened(_stitched(deltas, text), models[0].provider.name, _used(deltas))
            except _BegunAnew:
                if len(models) == 1:
                    raise
                models = models[1:]


class _BegunAnew(ProviderFailure):
    """A model that was to go on with the answer began another one."""


def _passes(error: CauceError) -> bool:
    """Whether another attempt may do better."""
    if isinstance(error, DeadlineExceeded):
        return False
    return error.failure is not None and TREATMENT[error.failure].next_candidate


async def _exact(deltas: Deltas, text: str) -> AsyncGenerator[Sequence[Delta], None]:
    """What a model adds to the beginning it was given: `text` without the white space at its end, which it may write again."""
    blank = text[len(text.rstrip()) :]
    told, checked, head = False, False, ""
    async with aclosing(deltas):
        while batch := await deltas.read():
            shown: list[Delta] = []
            for delta in batch:
                if type(delta) is Reasoning:
                    # The thoughts of one attempt are not the thoughts of another.
                    continue
                if type(delta) is Text and not checked:
                    head += delta.text
                    anew = begins_anew(text, head)
                    if anew:
                        raise _BegunAnew(
                            "a model that was given the beginning of its answer began it anew",
                            failure="transient",
                            provider="upstream",
                        )
                    if anew is None:
                        continue
                    checked = True
                    delta = msgspec.structs.replace(delta, text=head)
                elif head and not checked and (type(delta) is Finish or type(delta) is ToolCall):
                    checked = True
                    if not told:
                        told = True
                        shown.append(_seam("exact", 0))
                    kept, blank = _without(head, blank)
                    if kept:
                        shown.append(Text(kept))
                if type(delta) is Text and blank:
                    kept, blank = _without(delta.text, blank)
                    if not kept:
                        continue
                    delta = msgspec.structs.replace(delta, text=kept, begins=False)
                elif type(delta) is Text and delta.begins:
                    delta = msgspec.structs.replace(delta, begins=False)
                if not told and type(delta) is not Status:
                    told = True
                    shown.append(_seam("exact", 0))
                shown.append(delta)
            if shown:
                yield shown


def _without(text: str, blank: str) -> tuple[str, str]:
    """`text` without the beginning of it that equals that of `blank`, and what is left of `blank`."""
    common = 0
    while common < min(len(text), len(blank)) and text[common] == blank[common]:
        common += 1
    return text[common:], blank[common:] if common == len(text) else ""


async def _stitched(deltas: Deltas, text: str) -> AsyncGenerator[Sequence[Delta], None]:
    """What a model adds that was asked to continue, behind the seam. Raises `ProviderFailure` when it begins anew."""
    seam: Seam | None = Seam(text)
    async with aclosing(deltas):
        while batch := await deltas.read():
            shown: list[Delta] = []
            for delta in batch:
                if type(delta) is Reasoning:
                    continue
                if seam is None:
                    shown.append(delta)
                    continue
                if type(delta) is Text:
                    verdict, kept = seam.feed(delta.text)
                elif type(delta) is Finish or type(delta) is ToolCall:
                    # What is held comes before it.
                    verdict, kept = seam.finish()
                else:
                    shown.append(delta)
                    continue
                if verdict == "refuse":
                    raise _BegunAnew(
                        "a model that was to go on with an answer began it anew",
                        failure="transient",
                        provider="upstream",
                    )
                if verdict == "go on":
                    shown.append(_seam("stitched", seam.dropped))
                    seam = None
                    if kept:
                        shown.append(Text(kept))
                if type(delta) is not Text:
                    shown.append(delta)
            if shown:
                yield shown


def _used(deltas: Deltas) -> Callable[[], Usage]:
    return lambda: deltas.used


def _seam(quality: str, dropped: int) -> Status:
    words = "The answer goes on exactly where it stopped" if quality == "exact" else "The answer goes on after a break"
    return Status("seam", words, {"quality": quality, "dropped": dropped})
