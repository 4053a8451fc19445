"""Structured output from models that cannot be held to it, and proof of it from those that say they can.

| the client wants | the candidate | what happens |
|---|---|---|
| text | any | nothing |
| JSON | takes `response_format` | its answer runs straight through |
| JSON, `strict` | takes `response_format` | the same, and the whole answer is checked before it counts as complete |
| JSON | cannot | it is told in the system message; its answer is held back until it has been found and checked |

An answer that nobody has seen yet and that is not what was asked for is asked for once more, with what is wrong with it. Then it
is a failure. What ended for another reason than that the model was done (its length, a filter, a refusal, tool calls) is
handed on as it is: the reason says so.
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from typing import Literal

import msgspec

from cauce.domain.delta import Delta, Failed, Finish, Refusal, Status, Text, ToolCall
from cauce.domain.errors import CauceError, DeadlineExceeded, ProviderFailure, Unsupported
from cauce.domain.request import ResponseFormat
from cauce.domain.usage import summed
from cauce.engine.policies.whole import Turn, read_whole
from cauce.engine.structure.asking import cannot_ask, corrected, instructed
from cauce.engine.structure.expectation import Expectation
from cauce.ports.clock import Clock
from cauce.ports.further import Further
from cauce.ports.provider import Call, Deltas, Open, Policy

_LONGEST_SHOWN = 16 * 1024

_ABOUT_FORMAT = re.compile(
    r"response[ _]?(?:format|schema)|json[ _]?(?:schema|object)|structured output|output[ _](?:config|format)", re.I
)
_REFUSED = frozenset({400, 422})

_Form = Literal["own", "object", "words"]
"""How JSON is asked for: by the client's own `response_format`; in words, with any object as the format; in words alone."""


def structured(clock: Clock) -> Policy:
    """Give clients that ask for JSON what they asked for, or an error. Costs others nothing.

    Each turn is a call of its own to everybody below. One that is denied there may be waited for: when the call comes again, it
    goes on with that turn.

    Raises `ProviderFailure` when the model answered with something else twice, `InvalidRequest` for a schema that is none.
    """

    def policy(open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            wanted = call.request.response_format
            if wanted is None or wanted.kind == "text":
                return open(call)
            return _Structured(clock, open, call, wanted).opened()

        return opened

    return policy


class _Structured:
    """One call for JSON to one candidate."""

    def __init__(self, clock: Clock, open: Open, call: Call, wanted: ResponseFormat) -> None:
        self._clock = clock
        self._open = open
        self._call = call
        self._wanted = wanted
        candidate = call.candidate
        self._key = (candidate.provider.name, candidate.deployment, candidate.model)

    async def opened(self) -> Deltas:
        further = self._call.course.further.get(self._key)
        if further is None or further.of != self._call.request:
            further = Further(self._call.request)
        forms = self._forms()
        while True:
            form = forms[further.form]
            try:
                return await self._asked(form, further)
            except CauceError as error:
                known = form == "own" and self._call.candidate.facts.json_schema is True
                last = further.repair is not None or further.form + 1 == len(forms)
                if last or not _about_format(error, known=known):
                    raise
                further = Further(further.of, further.form + 1, after=error)

    def _forms(self) -> tuple[_Form, ...]:
        """The ways to ask, in the order they are tried."""
        if self._wanted.kind != "json_schema":
            return ("own", "words")
        return ("object", "words") if self._call.candidate.facts.json_schema is False else ("own", "object", "words")

    async def _asked(self, form: _Form, further: Further) -> Deltas:
        """What the candidate answers that is asked in that form."""
        call, wanted = self._call, self._wanted
        if form == "own":
            if not wanted.strict or wanted.schema is None:
                return await self._turn(call, further)
            expectation = Expectation(wanted)
        else:
            if call.request.sampling.n > 1:
                raise Unsupported(f"{call.candidate.name} gives one structured answer, not several", field="n")
            expectation = Expectation(wanted)
            instead = ResponseFormat("json_object") if form == "object" else None
            request = instructed(call.request, wanted, instead)
            call = msgspec.structs.replace(call, streamed=True, whole=True, request=request)
        if further.repair is not None:
            return await self._repaired(call, further, expectation)
        deltas = await self._turn(call, further)
        first = await deltas.read()
        one = call.request.sampling.n == 1 and (isinstance(first[-1], Finish) or not call.streamed)
        if form == "own" and not one:
            # A stream runs through and is checked at its end.
            return await Deltas.opened(
                _watched(deltas, first, expectation, call),
                call.candidate.provider.name,
                lambda: deltas.used,
                deltas.position,
            )
        turn = await read_whole(deltas, first)
        accepted = _accepted(turn, expectation)
        if accepted is not None:
            return accepted
        fault = expectation.fault(turn.text) or ""
        facts = {"provider": call.candidate.provider.name, "model": call.candidate.name}
        call.notice(Status("repairing", "the answer was not the JSON that was asked for", facts))
        request = corrected(call.request, turn.text, fault)
        error = _failure(call, turn.text, fault)
        further = Further(further.of, further.form, repair=request, used=turn.finish.usage, after=error)
        return await self._repaired(call, further, expectation)

    async def _repaired(self, call: Call, further: Further, expectation: Expectation) -> Deltas:
        """The answer that is right after one that was not. Raises `ProviderFailure`."""
        deltas = await self._turn(call, further)
        second = await read_whole(deltas, await deltas.read())
        usage = second.finish.usage
        finish = second.finish.using(usage if further.used is None else summed(further.used, usage))
        accepted = _accepted(Turn((*second.deltas[:-1], finish), finish), expectation)
        if accepted is None:
            raise _failure(call, second.text, expectation.fault(second.text) or "")
        return accepted

    async def _turn(self, call: Call, further: Further) -> Deltas:
        """`call` opened as the turn that `further` says. If it is denied, it is this turn that is asked for again."""
        if further.after is None:
            return await self._open(call)
        if isinstance(further.after, Unsupported):
            # Nobody was asked.
            return await self._open(msgspec.structs.replace(call, strategy="same"))
        course = call.course
        course.further = {**course.further, self._key: further}
        call = self._within_time(call)
        if further.repair is None:
            call = msgspec.structs.replace(call, strategy="prompted", after=further.after)
        else:
            repair = further.repair
            call = msgspec.structs.replace(call, request=repair, strategy="repair", after=further.after, whole=True)
        deltas = await self._open(call)
        course.further = {key: other for key, other in course.further.items() if key != self._key}
        return deltas

    def _within_time(self, call: Call) -> Call:
        """`call` with no more time than is left of the whole."""
        if call.deadline is None:
            return call
        left = call.deadline - self._clock.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                "the time for this call is used up; what the model answered was not what was asked for"
            )
        timeouts = call.candidate.timeouts
        candidate = msgspec.structs.replace(
            call.candidate, timeouts=msgspec.structs.replace(timeouts, total=min(left, timeouts.total))
        )
        patience = left if call.patience is None else min(left, call.patience)
        return msgspec.structs.replace(call, candidates=(candidate,), patience=patience)


def _failure(call: Call, text: str, fault: str) -> ProviderFailure:
    """What an answer is that is not the JSON that was asked for. Its text stands in the facts."""
    error = ProviderFailure(
        f"{call.candidate.name} did not answer with the JSON that response_format asks for: {fault}",
        failure="transient",
        provider=call.candidate.provider.name,
        should_retry=False,
        shape=True,
    )
    error.facts = {"answer": text[:_LONGEST_SHOWN]}
    return error


def _accepted(turn: Turn, expectation: Expectation) -> Deltas | None:
    """`turn` as deltas: as it came, or with nothing but the JSON as its text; None if it holds none that is expected."""
    if not _claims(turn):
        return Deltas(None, turn.deltas)
    text = turn.text
    found = expectation.found(text)
    if found is None:
        return None
    if found == text:
        return Deltas(None, turn.deltas)
    others = [delta for delta in turn.deltas[:-1] if not isinstance(delta, Text)]
    return Deltas(None, (*others, Text(found), turn.finish))


def _claims(turn: Turn) -> bool:
    """Whether the model means it to be the answer."""
    return turn.finish.outcome == "completed" and turn.finish.reason == "stop" and not _otherwise(turn.deltas)


async def _watched(
    deltas: Deltas, first: Sequence[Delta], expectation: Expectation, call: Call
) -> AsyncGenerator[Sequence[Delta], None]:
    """`deltas` as they are, but for their end: an answer that is not what is expected ends in an error."""
    texts: dict[int, list[str]] = {}
    otherwise = False
    batch = first
    async with aclosing(deltas):
        while batch:
            for delta in batch:
                if type(delta) is Text:
                    texts.setdefault(delta.choice, []).append(delta.text)
                elif isinstance(delta, Refusal | ToolCall):
                    otherwise = True
            finish = batch[-1]
            if isinstance(finish, Finish) and not otherwise and (error := _wrong(finish, texts, expectation, call)):
                if batch is first:
                    # Nobody has seen anything of it.
                    raise error
                failed = Failed(error.code, error.message)
                batch = (*batch[:-1], Finish("error", finish.usage, outcome="incomplete", error=failed))
            yield batch
            batch = await deltas.read()


def _wrong(finish: Finish, texts: dict[int, list[str]], expectation: Expectation, call: Call) -> ProviderFailure | None:
    """What is wrong with an answer that ended with `finish`."""
    if finish.outcome != "completed":
        return None
    for choice, reason in enumerate(finish.reasons or (finish.reason,)):
        text = "".join(texts.get(choice, []))
        if reason == "stop" and (fault := expectation.fault(text)) is not None:
            return _failure(call, text, fault)
    return None


def _otherwise(deltas: Sequence[Delta]) -> bool:
    """Whether the model refused, or called tools, in place of an answer."""
    return any([isinstance(delta, Refusal | ToolCall) for delta in deltas])


def _about_format(error: CauceError, *, known: bool) -> bool:
    """Whether `error` says that the candidate does not take `response_format`. `known`: it is known to take schemas."""
    if isinstance(error, Unsupported):
        return cannot_ask(error)
    if known or not isinstance(error, ProviderFailure) or error.upstream_status not in _REFUSED:
        return False
    return error.code == "invalid_request" and _ABOUT_FORMAT.search(error.message) is not None
