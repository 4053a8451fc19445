"""Asking a second model beside one that is slow to begin: the first to have a delta answers, the other is closed.

Both are attempts: each passes breaker and limits, and has its row in the ledger. What the one that lost had to tell is not told.
How many calls have a second model is bounded: every call that may have one fills what those that do use up.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from cauce.domain.delta import Attempt, Status
from cauce.domain.errors import CauceError
from cauce.engine.policies.retry import Allowances
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Deltas, Notice, Open, Policy


def hedgeable(allowances: Allowances) -> Policy:
    """Count calls by the model that would be asked beside the first. It stands where a call passes once, however often it waits."""

    def policy(open: Open) -> Open:
        def opened(call: Call) -> Awaitable[Deltas]:
            candidates = call.candidates
            if candidates[0].hedge is not None:
                beside = next((one for one in candidates[1:] if one.level != "offline"), None)
                if beside is not None:
                    allowances.called(beside)
            return open(call)

        return opened

    return policy


class Race(msgspec.Struct):
    """What became of it: an answer, or why each that was asked has none."""

    answer: Deltas | None = None
    failures: list[tuple[Candidate, CauceError]] = []


async def race(clock: Clock, open: Open, call: Call, after: float, other: Callable[[], Call | None]) -> Race:
    """The answer to `call`, or to `other()`, which is made and opened when `after` seconds have brought nothing.

    `call` and `other()` have one candidate each; without `other()` nobody else is asked. Leaving closes both.
    """
    running: dict[asyncio.Task[Deltas], _Runner] = {}
    alarm = asyncio.create_task(clock.sleep(after))
    result = Race()
    try:
        _start(running, open, call, call.notice)
        await asyncio.wait((*running, alarm), return_when=asyncio.FIRST_COMPLETED)
        if not any([task.done() for task in running]) and (second := other()) is not None:
            # Until it is known who answers, only the first has a say.
            _start(running, open, second, None)
        while running and result.answer is None:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            # Both may be there at once: then it is the one that was asked first.
            for task in [task for task in running if task in done]:
                if result.answer is None:
                    _settle(running.pop(task), task, result)
        return result
    finally:
        alarm.cancel()
        try:
            await _close(running)
        except BaseException:
            # Whoever waits for the answer leaves: nobody will read it.
            if result.answer is not None:
                await result.answer.aclose()
            raise


class _Runner:
    """One of the two. What it tells goes to `notice`; without one it is kept until it has won."""

    def __init__(self, call: Call, notice: Notice | None) -> None:
        self.candidate = call.candidate
        self._notice = notice
        self._kept: list[Status | Attempt] = []
        self.call = call if notice is not None else msgspec.structs.replace(call, notice=self._kept.append)
        self._told = call.notice

    def won(self) -> None:
        """It answers: what it had to tell is told."""
        self.call.course.level = self.candidate.level
        self.call.course.asked = self.candidate
        for delta in self._kept:
            self._told(delta)


def _start(running: dict[asyncio.Task[Deltas], _Runner], open: Open, call: Call, notice: Notice | None) -> None:
    runner = _Runner(call, notice)

    async def opened() -> Deltas:
        return await open(runner.call)

    running[asyncio.create_task(opened(), name=f"{call.request_id} at {runner.candidate.name}")] = runner


def _settle(runner: _Runner, task: asyncio.Task[Deltas], result: Race) -> None:
    try:
        result.answer = task.result()
    except CauceError as error:
        result.failures.append((runner.candidate, error))
    else:
        runner.won()


async def _close(running: dict[asyncio.Task[Deltas], _Runner]) -> None:
    """Give up those that are still running; one that had its answer too is closed."""
    for task in running:
        task.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(outcome, Deltas):
            await outcome.aclose()
