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

import msgspec

from cauce.domain.delta import Attempt, Delta, Failed, Finish, Refusal, Status, Text, ToolCall
from cauce.domain.errors import CauceError, DeadlineExceeded, ProviderFailure, Unsupported
from cauce.domain.request import ResponseFormat
from cauce.domain.usage import summed
from cauce.engine.structure.asking import corrected, instructed
from cauce.engine.structure.expectation import Expectation
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Deltas, Open, Policy

MAX_TEXT = 2 * 1024 * 1024
"""Characters of an answer that is held back."""

_LONGEST_SHOWN = 16 * 1024
_FIELD = "response_format"

_ABOUT_FORMAT = re.compile(
    r"response[ _]?(?:format|schema)|json[ _]?(?:schema|object)|structured output|output[ _](?:config|format)", re.I
)
_REFUSED = frozenset({400, 422})


def structured(clock: Clock) -> Policy:
    """Give clients that ask for JSON what they asked for, or an error. Costs others nothing.

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


class _Turn(msgspec.Struct, frozen=True):
    """One whole answer."""

    deltas: Sequence[Delta]
    finish: Finish

    @property
    def text(self) -> str:
        return "".join([delta.text for delta in self.deltas if isinstance(delta, Text)])

    @property
    def claims(self) -> bool:
        """Whether the model means it to be the answer."""
        return self.finish.outcome == "completed" and self.finish.reason == "stop" and not _otherwise(self.deltas)


class _Structured:
    """One call for JSON to one candidate."""

    def __init__(self, clock: Clock, open: Open, call: Call, wanted: ResponseFormat) -> None:
        self._clock = clock
        self._open = open
        self._call = call
        self._wanted = wanted

    async def opened(self) -> Deltas:
        facts = self._call.candidate.facts
        if self._wanted.kind == "json_schema" and facts.json_schema is False:
            return await self._told()
        try:
            if self._wanted.strict and self._wanted.schema is not None:
                return await self._checked(Expectation(self._wanted))
            return await self._open(self._call)
        except CauceError as error:
            if not _about_format(error, known=facts.json_schema is True):
                raise
            self._notice(error, "prompted")
            return await self._told()

    async def _checked(self, expectation: Expectation) -> Deltas:
        """The candidate's own structured output: a stream runs through and is checked at its end, a plain answer before it begins."""
        call = self._call
        deltas = await self._open(call)
        first = await deltas.read()
        if call.request.sampling.n == 1 and (isinstance(first[-1], Finish) or not call.streamed):
            return await self._accepted(call, await _whole(deltas, first), expectation)
        return await Deltas.opened(
            _watched(deltas, first, expectation, call),
            call.candidate.provider.name,
            lambda: deltas.used,
            deltas.position,
        )

    async def _told(self) -> Deltas:
        """What a candidate answers that is told of the schema in words."""
        if self._call.request.sampling.n > 1:
            raise Unsupported(f"{self._call.candidate.name} gives one structured answer, not several", field="n")
        expectation = Expectation(self._wanted)
        call = msgspec.structs.replace(self._call, streamed=True)
        instead = ResponseFormat("json_object") if self._wanted.kind == "json_schema" else None
        asked = msgspec.structs.replace(call, request=instructed(call.request, self._wanted, instead))
        try:
            turn = await self._turn(asked)
        except CauceError as error:
            if instead is None or not _about_format(error, known=False):
                raise
            self._notice(error, "prompted")
            asked = msgspec.structs.replace(call, request=instructed(call.request, self._wanted, None))
            turn = await self._turn(asked)
        return await self._accepted(asked, turn, expectation)

    async def _accepted(self, asked: Call, turn: _Turn, expectation: Expectation) -> Deltas:
        """`turn` if it is what is expected, else the one after it. Raises `ProviderFailure`."""
        played = _played(turn, expectation)
        if played is not None:
            return played
        fault = expectation.fault(turn.text) or ""
        self._notice(_failure(self._call, turn.text, fault), "repair")
        request = corrected(asked.request, turn.text, fault)
        second = await self._turn(self._within_time(msgspec.structs.replace(asked, request=request)))
        usage = summed(turn.finish.usage, second.finish.usage)
        finish = msgspec.structs.replace(second.finish, usage=usage)
        played = _played(_Turn((*second.deltas[:-1], finish), finish), expectation)
        if played is None:
            raise _failure(self._call, second.text, expectation.fault(second.text) or "")
        return played

    async def _turn(self, call: Call) -> _Turn:
        deltas = await self._open(call)
        return await _whole(deltas, await deltas.read())

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

    def _notice(self, error: CauceError, strategy: str) -> None:
        """Tell that the candidate is asked again, where it has been asked."""
        if isinstance(error, Unsupported):
            return
        candidate = self._call.candidate
        if strategy == "repair":
            facts = {"provider": candidate.provider.name, "model": candidate.name}
            self._call.notice(Status("repairing", "the answer was not the JSON that was asked for", facts))
        course = self._call.course
        course.attempts += 1
        self._call.notice(
            Attempt(
                course.attempts,
                candidate.provider.name,
                candidate.model,
                candidate.level,
                strategy=strategy,
                reason=error.message,
                reason_code=error.code,
                deployment=candidate.deployment,
                missed=course.cache == "miss",
            )
        )


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


async def _whole(deltas: Deltas, first: Sequence[Delta]) -> _Turn:
    """The rest of an answer of which `first` is known. Closes it."""
    got = list(first)
    size = sum([len(delta.text) for delta in first if isinstance(delta, Text)])
    async with aclosing(deltas):
        while batch := await deltas.read():
            got.extend(batch)
            size += sum([len(delta.text) for delta in batch if isinstance(delta, Text)])
            if size > MAX_TEXT:
                raise ProviderFailure(
                    f"a structured answer is longer than {MAX_TEXT} characters",
                    failure="transient",
                    provider="upstream",
                )
    last = got[-1]
    assert isinstance(last, Finish), "deltas end with their Finish, or raise"
    return _Turn(got, last)


def _played(turn: _Turn, expectation: Expectation) -> Deltas | None:
    """`turn` as deltas: as it came, or with nothing but the JSON as its text; None if it holds none that is expected."""
    if not turn.claims:
        return Deltas(_once(turn.deltas))
    text = turn.text
    found = expectation.found(text)
    if found is None:
        return None
    if found == text:
        return Deltas(_once(turn.deltas))
    others = [delta for delta in turn.deltas[:-1] if not isinstance(delta, Text)]
    return Deltas(_once((*others, Text(found), turn.finish)))


async def _once(batch: Sequence[Delta]) -> AsyncGenerator[Sequence[Delta], None]:
    yield batch


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
        return error.field is not None and error.field.startswith(_FIELD)
    if known or not isinstance(error, ProviderFailure) or error.upstream_status not in _REFUSED:
        return False
    return error.code == "invalid_request" and _ABOUT_FORMAT.search(error.message) is not None
