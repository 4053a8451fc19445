"""After the first delta: an answer whose provider fails is gone on with, as exactly as the models left allow it.

| what the reader has | what follows |
|---|---|
| nothing that counts: reasoning, a status | the request is opened anew |
| text | a model that takes its own beginning goes on with it; else any model is asked to continue, behind the seam |
| text that nobody goes on with, or that is not shown before the end | another answer, where readers can take back what they have |
| the completion of a prompt | a server of prompts goes on with the prompt and the text |
| complete calls of tools | the step ends with them |
| a call that is not complete | where readers can take it: it is abandoned, and the text before it gone on with |
| a refusal, a structured answer, or any text where the route says so | another answer, where readers can take back what they have |
| anything else | the error |

How far it goes is the route's `midstream`: `resume` (only what is exact), `continue`, `restart`, `fail` (never). An answer that
another process began (`Call.begun`) is gone on with in the same way; there the provider's own stream comes first, where it can be
attached to. Each attempt is told by an `Attempt` and has its row in the ledger; the answer's usage is the sum of all.

Whose settings bound it: those of the candidate that broke, which are its route's where the route says something.
"""

import logging
from collections.abc import AsyncGenerator, Sequence

import msgspec

from cauce.domain.delta import Delta, Finish, Outcome, ToolCall
from cauce.domain.errors import TREATMENT, CauceError, DeadlineExceeded
from cauce.domain.stream import Upstream
from cauce.domain.usage import Usage, summed
from cauce.engine import ending
from cauce.engine.recovery import joining
from cauce.engine.recovery.delivered import MOST_KEPT, TOGETHER, Called, Delivered, Seen
from cauce.engine.recovery.order import Order, behind
from cauce.engine.recovery.past import attachable, past, spoke_last, was_begun
from cauce.engine.recovery.patience import Patience
from cauce.engine.recovery.prefills import Prefills
from cauce.engine.recovery.prompt import asked_to_continue, continued
from cauce.engine.recovery.rungs import Rungs, rungs
from cauce.ports.attachable import give_up
from cauce.ports.cache import NO_CACHE
from cauce.ports.chance import Chance
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Deltas, Open, Policy, unplaced
from cauce.ports.resilience import RecoverySettings

_MOST_BEGUN_ANEW = 3
"""How often everybody who is left may begin anew in place of going on, which is paid for each time."""

_CANNOT = frozenset({"invalid_request", "context_length_exceeded"})
"""What is said by who cannot go on, and may well answer anew: the request that asks for it is longer."""

logger = logging.getLogger("cauce.calls")


def recovery(clock: Clock, common: RecoverySettings, chance: Chance) -> Policy:
    """Go on with streamed answers that break, as far as the settings of who broke allow it, else the `common` ones.

    Plain answers have shown nothing: they are retried where they are opened.
    """

    def policy(open: Open) -> Open:
        prefills = Prefills(clock, open)

        async def opened(call: Call) -> Deltas:
            if call.begun:
                if was_begun(call.begun):
                    answer = _Answer(clock, common, chance, open, call, prefills)
                    return await Deltas.opened(answer.batches(None), "upstream", answer.so_far, answer.position)
                # It has only waited so far: it is opened like any other.
                call = msgspec.structs.replace(call, begun=(), upstream=None)
            deltas = await open(call)
            speaker = call.course.asked or call.candidate
            if not call.streamed or not (speaker.resilience.recovery or common).attempts:
                return deltas
            answer = _Answer(clock, common, chance, open, call, prefills)
            # Read up to its first batch: what has not begun could not close what it has opened.
            return await Deltas.opened(answer.batches(deltas), "upstream", answer.so_far, answer.position)

        return opened

    return policy


class _Answer:
    """One answer, whoever gives it."""

    def __init__(
        self, clock: Clock, common: RecoverySettings, chance: Chance, open: Open, call: Call, prefills: Prefills
    ) -> None:
        self._clock = clock
        self._common = common
        self._settings = call.candidate.resilience.recovery or common
        """Of who speaks, or has spoken last."""
        self._open = open
        self._call = call
        self._prefills = prefills
        self._seen = Seen()
        self._patience = Patience(clock, chance, call.deadline)
        self._seen_before = 0
        self._strategy = call.strategy
        self._order = Order(call.candidates)
        self._spent: Usage | None = None
        """What the attempts before this one used."""
        self._newest: Usage | None = None
        """What the last attempt of a process before this one used, unless its own stream is attached to."""
        self._current: Deltas | None = None
        self._position = unplaced
        self._upstream: Upstream | None = None
        """The provider's own stream that a process before this one read."""
        if call.begun:
            self._take_over()

    def so_far(self) -> Usage:
        """What all attempts have used by now, as far as can be told."""
        if self._current is None:
            return self._spent or Usage(estimated=True)
        return self._total(self._current.used)

    def position(self) -> Upstream | None:
        """See `Deltas.position`. None while a text is gone on with: the stream of that attempt does not begin where the answer does."""
        return self._position()

    async def batches(self, deltas: Deltas | None) -> AsyncGenerator[Sequence[Delta], None]:
        """The answer, from its first batch to its `Finish`. Raises the error that nothing bridges.

        Without `deltas` it is gone on with from what its readers have: the process that read it has ended.
        """
        if deltas is not None:
            self._attended(deltas)
        seen = self._seen
        new = seen.new
        try:
            while True:
                try:
                    if deltas is None:
                        raise ending.cut_off()
                    while True:
                        batch = await deltas.read()
                        last = batch[-1]
                        if type(last) is Finish:
                            # One that ends as cancelled has been added up by now.
                            total = self._total(last.usage) if self._current is not None else self._spent or last.usage
                            yield batch if total is last.usage else (*batch[:-1], last.using(total))
                            return
                        new.append(batch)
                        if len(new) >= TOGETHER:
                            seen.fold()
                        yield batch
                except CauceError as error:
                    self._position = unplaced
                    if seen.count > self._seen_before:
                        self._seen_before = seen.count
                        self._patience.progressed()
                    deltas = await self._attached_again(error)
                    if deltas is not None:
                        continue
                    delivered = seen.delivered()
                    if (last_batch := self._cut_after_call(delivered)) is not None:
                        yield last_batch
                        return
                    abandoned = self._abandoned(error, delivered)
                    if abandoned:
                        new.append(abandoned)
                        self._seen_before += 1
                        yield abandoned
                    deltas = self._current = await self._bridged(error, delivered)
        finally:
            # Whoever holds the answer may do so until the collector comes round.
            self._seen.clear()
            if self._current is not None:
                await self._current.aclose()

    def _take_over(self) -> None:
        """Go on from what another process has written: its past counts."""
        call, before = self._call, past(self._call)
        call.course.attempts = max(call.course.attempts, before.attempts)
        self._seen.new.append(call.begun)
        self._seen_before = self._seen.count
        self._patience.tries = before.recoveries
        self._settings = spoke_last(call, before.last).resilience.recovery or self._common
        if before.last is not None:
            self._order.broke_at(before.last)
        if before.created is not None:
            self._patience.began(max(0.0, self._clock.now() - before.created))
        self._spent, self._newest = before.before, before.newest
        self._upstream = attachable(call.begun, call.upstream)
        if self._upstream is None:
            give_up(call.candidates, call.upstream)
        # What it says is known now, and it is as long as the answer.
        self._call = msgspec.structs.replace(call, begun=())

    async def _attached_again(self, error: CauceError) -> Deltas | None:
        """What the provider's own stream gives after what a process before this one has read of it; None where it cannot be had."""
        upstream, self._upstream = self._upstream, None
        call = self._call
        places = tuple(
            [one for one in call.candidates if upstream is not None and one.provider.name == upstream.provider]
        )
        attempts = call.course.attempts
        if not places or places[0].midstream == "fail" or not (_passes(error) and self._has_budget()):
            give_up(places, upstream)
        else:
            asked = msgspec.structs.replace(
                call, candidates=places, cache=NO_CACHE, after=error, begun=(), upstream=upstream
            )
            try:
                deltas = await self._attempt(asked, "attach")
                return await Deltas.opened(joining.attached(deltas), places[0].provider.name, joining.used(deltas))
            except CauceError as failed:
                logger.info("%s: the provider's own stream is gone: %s", call.request_id, failed.message)
            finally:
                if call.course.attempts == attempts and not call.course.handed_over:
                    # Denied before the provider was asked, which would have given it up itself.
                    give_up(places, upstream)
        if self._newest is not None:
            self._spent, self._newest = self._total(self._newest), None
        return None

    def _cut_after_call(self, delivered: Delivered) -> Sequence[Delta] | None:
        """The end of a step that broke after a complete call: what the model wanted to do is known, and nothing may be asked twice."""
        call = self._call
        forbidden = call.candidates[0].midstream == "fail" or call.request.sampling.n != 1
        if not delivered.ready or forbidden or not self._settings.attempts:
            return None
        if delivered.begun and not call.abandons:
            return None
        finish = Finish("tool_calls", self._spent or Usage(estimated=True))
        return (*_given_up(delivered), joining.seam("cut_after_call"), finish)

    def _abandoned(self, error: CauceError, delivered: Delivered) -> Sequence[Delta]:
        """The calls that are not complete, taken back, where the answer can be gone on with without them."""
        if delivered.begun and self._call.abandons and self._may_go_on(error, delivered):
            return _given_up(delivered)
        return ()

    def _attended(self, deltas: Deltas) -> Deltas:
        """`deltas`, which are of the attempt that is made now; what it uses in vain is added up, and whoever it was comes last."""
        asked, strategy = self._call.course.asked, self._strategy
        if asked is not None:
            self._settings = asked.resilience.recovery or self._common

        async def ended(outcome: Outcome, usage: Usage, _: CauceError | None) -> None:
            if outcome in ("failed", "cancelled"):
                self._order.broke(asked, strategy)
                self._spent = self._total(usage)
                self._current = None

        deltas.on_end(ended)
        self._current = deltas
        self._position = deltas.position
        return deltas

    def _total(self, usage: Usage) -> Usage:
        return usage if self._spent is None else summed(self._spent, usage)

    async def _bridged(self, error: CauceError, delivered: Delivered) -> Deltas:
        """What goes on with the answer, its first delta in hand. Raises `error` where nothing does."""
        patience, latest, begun_anew = self._patience, error, 0
        while self._may_go_on(latest, delivered):
            if latest is not error and not await patience.pause(latest, self._settings):
                break
            made = patience.tries
            try:
                return await self._next(latest, delivered)
            except CauceError as failed:
                self._position = unplaced
                logger.info("%s: nobody goes on with the answer: %s", self._call.request_id, failed.message)
                latest = failed
                begun_anew += isinstance(failed, joining.BegunAnew)
                if patience.tries == made or begun_anew == _MOST_BEGUN_ANEW:
                    # There was nobody to ask, or nobody who understands what is asked.
                    break
        self._tell_end(latest)
        raise error from (latest if latest is not error else None)

    def _tell_end(self, error: CauceError) -> None:
        """Say in the server's log that an answer ends where it broke, whose operator can do something about it."""
        id, tries = self._call.request_id, self._patience.tries
        if self._is_too_dear():
            cost = 0.0 if self._spent is None else self._spent.cost
            logger.warning(
                "%s: the answer is not gone on with: its attempts have cost %.2f USD (max_cost of [recovery]: %g)",
                id,
                cost,
                self._settings.max_cost,
            )
        elif tries:
            logger.warning(
                "%s: the answer ends where it broke: %d attempts to go on with it failed, the last one so: %s",
                id,
                tries,
                error.message,
            )

    def _may_go_on(self, error: CauceError, delivered: Delivered) -> bool:
        return _passes(error) and self._has_budget() and self._rungs(delivered).any

    def _has_budget(self) -> bool:
        return self._patience.lasts(self._settings) and not self._is_too_dear()

    def _is_too_dear(self) -> bool:
        """Whether its attempts have cost all that they may."""
        most = self._settings.max_cost
        return bool(most) and self._spent is not None and self._spent.cost >= most

    def _rungs(self, delivered: Delivered) -> Rungs:
        return Rungs() if len(delivered.text) > MOST_KEPT else rungs(self._call, delivered)

    async def _next(self, error: CauceError, delivered: Delivered) -> Deltas:
        """The next attempt, with its first delta in hand."""
        call = msgspec.structs.replace(
            self._call, candidates=self._order.everyone, cache=NO_CACHE, after=error, begun=(), upstream=None
        )
        before = self._seen.called()
        ladder = self._rungs(delivered)
        if ladder.anew:
            return _distinct(await self._attempt(call, "again"), before)
        failed, models = error, self._order.models
        if ladder.exact and (exact := self._order.exact(await self._prefills.usable(models, call))):
            try:
                return await self._prefilled(call, exact, delivered.text, before)
            except CauceError as refused:
                if not _passes(refused) and refused.code not in _CANNOT:
                    raise
                if call.request.prompt is None:
                    self._prefills.refused(exact, refused)
                if not self._has_budget():
                    raise
                failed, models = refused, self._order.models
                if refused.code != "invalid_request":
                    call = msgspec.structs.replace(call, after=refused)
        if ladder.prompted and models:
            refusals = self._order.refusals
            try:
                return await self._prompted(call, models, delivered, before)
            except CauceError as refused:
                anew = self._order.refusals > refusals or refused.code in _CANNOT
                if not (ladder.restart and anew and self._has_budget()):
                    raise
                # What began anew there answers another request, with half an answer in it: this one is asked as it was.
                call, models = msgspec.structs.replace(call, after=refused), self._order.models
        if ladder.restart and models:
            deltas = await self._attempt(msgspec.structs.replace(call, candidates=tuple(models)), "restart")
            again = joining.restarted(_distinct(deltas, before), error.message)
            return await Deltas.opened(again, models[0].provider.name, joining.used(deltas))
        raise failed

    async def _prefilled(self, call: Call, models: list[Candidate], text: str, before: Called) -> Deltas:
        asked = msgspec.structs.replace(call, request=continued(call.request, text), candidates=tuple(models))
        deltas = await self._attempt(asked, "prefill")
        self._position = unplaced
        joined = joining.exact(_distinct(deltas, before), text)
        return await Deltas.opened(joined, models[0].provider.name, joining.used(deltas))

    async def _prompted(self, call: Call, models: list[Candidate], delivered: Delivered, before: Called) -> Deltas:
        text, calling = delivered.text, [one.name for one in delivered.begun]
        request = asked_to_continue(call.request, text, calling)
        while True:
            asked = msgspec.structs.replace(call, request=request, candidates=tuple(models))
            deltas = await self._attempt(asked, "continue")
            self._position = unplaced
            who = call.course.asked
            left = behind(models, who)
            takes = self._order.hopeless(left) or not self._has_budget()
            joined = joining.stitched(_distinct(deltas, before), text, self._clock, takes_preamble=takes)
            try:
                return await Deltas.opened(joined, models[0].provider.name, joining.used(deltas))
            except joining.BegunAnew as refused:
                self._order.refuse(who)
                if not left or not self._has_budget():
                    raise
                models, call = left, msgspec.structs.replace(call, after=refused)

    async def _attempt(self, call: Call, strategy: str) -> Deltas:
        await self._call.renewed()
        self._strategy = strategy
        self._patience.tried()
        deltas = await self._open(msgspec.structs.replace(call, strategy=strategy))
        self._patience.answered()
        return self._attended(deltas)


def _distinct(deltas: Deltas, before: Called) -> Deltas:
    """`deltas`, with calls of tools that are taken for none of those `before`."""
    if not before.ids:
        return deltas
    return Deltas(joining.renumbered(deltas, before), so_far=joining.used(deltas))


def _given_up(delivered: Delivered) -> Sequence[Delta]:
    return tuple(
        [ToolCall(call.index, call.call_id, call.name, "", "abandoned", call.choice) for call in delivered.begun]
    )


def _passes(error: CauceError) -> bool:
    """Whether another attempt may do better."""
    if isinstance(error, DeadlineExceeded):
        return False
    return error.failure is not None and TREATMENT[error.failure].next_candidate
