"""The `llamacpp` provider: models in GGUF files, one worker process, one answer at a time."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from cauce.domain.delta import Delta, Status
from cauce.domain.errors import DeadlineExceeded, ProviderFailure, Unsupported
from cauce.domain.request import Request
from cauce.ports.provider import Call, Deltas, ModelInfo
from cauce.providers.llamacpp.answer import Answer, refuse
from cauce.providers.llamacpp.process import WORKER, Inbox, Worker
from cauce.providers.llamacpp.prompt import Wish, prompt_of, wish_of
from cauce.providers.llamacpp.protocol import Count, Counted, Done, Event, Failed, ModelFile, Stop
from cauce.providers.llamacpp.settings import LlamaCppSettings
from cauce.providers.llamacpp.turns import Turns

GRACE = 2.0
"""Seconds a worker has to stop writing an answer before it is killed."""


class LlamaCpp:
    """See `ports.provider.Provider`. The worker is started for the first call and again when it has ended.

    `command` starts a worker; it speaks `protocol`.
    """

    def __init__(
        self, name: str, settings: LlamaCppSettings, command: Sequence[str] = WORKER, grace: float = GRACE
    ) -> None:
        self._name = name
        self._settings = settings
        self._command = command
        self._grace = grace
        self._worker: Worker | None = None
        self._turns = Turns()
        self._numbers = itertools.count(1)
        self._settling: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def pid(self) -> int | None:
        """The process that runs the model, if there is one."""
        return self._worker.pid if self._worker is not None and self._worker.alive else None

    async def open(self, call: Call) -> Deltas:
        wish = wish_of(call.request, next(self._numbers), self._file(call.candidate.model))
        return await Deltas.opened(self._answer(call, wish), self._name)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        file = self._file(model)
        try:
            command = Count(next(self._numbers), file, prompt_of(request))
        except Unsupported:
            return None
        if self._worker is not None and self._worker.alive and self._worker.loaded == file:
            # It counts beside the answer it may be writing.
            return await _count(self._worker, command)
        await self._turns.take("", lambda _: None)
        try:
            return await _count(await self._running(), command)
        finally:
            self._turns.release()

    async def models(self) -> tuple[ModelInfo, ...]:
        loaded = self._worker.loaded if self._worker is not None and self._worker.alive else None
        return tuple(
            [
                ModelInfo(name, self._settings.context or None, loaded=self._file(name) == loaded)
                for name in self._settings.models
            ]
        )

    async def aclose(self) -> None:
        self._closed = True
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.aclose()
        await asyncio.gather(*self._settling, return_exceptions=True)

    def _file(self, model: str) -> ModelFile:
        settings = self._settings
        path = settings.models.get(model)
        if path is None:
            raise ProviderFailure(
                f"{self._name} has no model {model}; it has {', '.join(settings.models)}",
                failure="bad_request",
                provider=self._name,
                code="model_not_found",
            )
        return ModelFile(str(Path(path).expanduser()), settings.context, settings.gpu_layers, settings.threads)

    async def _running(self) -> Worker:
        """The worker, started if need be. Only whoever has the turn may ask for it."""
        if self._closed:
            raise ProviderFailure(f"{self._name} is shutting down", failure="transient", provider=self._name)
        if self._worker is None or not self._worker.alive:
            if self._worker is not None:
                await self._worker.aclose()
            self._worker = await Worker.start(self._name, self._command)
        return self._worker

    async def _answer(self, call: Call, wish: Wish) -> AsyncGenerator[Sequence[Delta], None]:
        timeouts = call.candidate.timeouts
        until = asyncio.get_running_loop().time() + timeouts.total
        worker, inbox = await self._begin(call, wish, until)
        number = wish.generate.number
        answer = Answer(self._name, wish.tool, f"call_{call.request_id or self._name}_{number}")
        idle = None
        try:
            while not answer.over:
                if deltas := answer.feed(await self._next(inbox, until, idle)):
                    # The first may take its time; how long is the engine's to say.
                    idle = timeouts.idle if call.streamed else None
                    yield deltas
        finally:
            if answer.over:
                worker.forget(number)
                self._turns.release()
            else:
                # Whoever closes an answer does not wait until the worker has stopped; the next call does.
                settling = asyncio.create_task(self._settle(worker, inbox, number))
                self._settling.add(settling)
                settling.add_done_callback(self._settling.discard)

    async def _begin(self, call: Call, wish: Wish, until: float) -> tuple[Worker, Inbox]:
        """Wait for the turn, and ask. Whoever returns from here has to give the turn back."""

        def waiting(place: int) -> None:
            call.notice(Status("waiting", facts={"place": place}))

        try:
            async with asyncio.timeout_at(until):
                await self._turns.take(call.scope.principal, waiting)
        except TimeoutError as error:
            raise self._late() from error
        try:
            worker = await self._running()
            if worker.loaded != wish.generate.model:
                call.notice(Status("loading", facts={"model": call.candidate.name}))
            return worker, worker.ask(wish.generate)
        except BaseException:
            self._turns.release()
            raise

    async def _next(self, inbox: Inbox, until: float, idle: float | None) -> list[Event]:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(until if idle is None else min(until, now + idle)):
                return await inbox.take()
        except TimeoutError as error:
            if idle is not None and now + idle < until:
                raise ProviderFailure(
                    f"{self._name} was silent for {idle:g} s",
                    failure="transient",
                    provider=self._name,
                    code="timeout",
                ) from error
            raise self._late() from error

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._name} did not finish in the time a call has ([timeouts] total)")

    async def _settle(self, worker: Worker, inbox: Inbox, number: int) -> None:
        """See that the worker stops, and give the turn back.

        One that is loading a model is left to it, as the next call will want the model too.
        """
        clock = asyncio.get_running_loop().time
        worker.tell(Stop(number))
        ends: float | None = None
        try:
            over = False
            while not over:
                if ends is None and worker.loaded == inbox.model:
                    ends = clock() + self._grace
                async with asyncio.timeout_at(ends):
                    over = any([isinstance(event, Done | Failed) for event in await inbox.take()])
        except TimeoutError:
            await worker.aclose()
        except ProviderFailure:
            # It has ended: that is stopped enough.
            pass
        finally:
            worker.forget(number)
            self._turns.release()


async def _count(worker: Worker, command: Count) -> int | None:
    """What the worker counts; None for a prompt that the model does not take."""
    inbox = worker.ask(command)
    try:
        while True:
            for event in await inbox.take():
                match event:
                    case Counted(_, tokens):
                        return tokens
                    case Failed(_, "unsupported"):
                        return None
                    case Failed():
                        refuse(worker.provider, event)
                    case _:
                        continue
    finally:
        worker.forget(command.number)
