"""A provider that plays a script, in process: what unit tests of policies, cascades and streams ask."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, runtime_checkable

from cauce.domain.delta import Delta, Finish, Text
from cauce.domain.errors import CauceError
from cauce.domain.request import Request
from cauce.domain.usage import Usage
from cauce.ports.provider import Call, Deltas, ModelInfo


@runtime_checkable
class Gate(Protocol):
    """Something a script waits for, such as `asyncio.Event`."""

    async def wait(self) -> object:
        """Return when the script may go on."""
        ...


Step = Delta | CauceError | Gate | Sequence[Delta]
"""One step of a script: deltas are sent, an error is raised, a gate is waited for, a sequence is one batch."""


def answering(text: str, *, input_tokens: int = 3, output_tokens: int = 5) -> tuple[Step, ...]:
    """The script of an answer that comes word by word and completes."""
    words = [Text(word + " ") for word in text.split(" ")]
    words[-1] = Text(words[-1].text.rstrip(" "))
    return (*words, Finish("stop", Usage(input_tokens, output_tokens)))


class ScriptedProvider:
    """See `ports.provider.Provider`. Each call plays the next script; the last one is played for ever.

    `calls` holds what it was asked. `closed` is set when an answer is closed before its end.
    """

    def __init__(self, name: str, *scripts: Sequence[Step]) -> None:
        self._name = name
        self._scripts = scripts
        self.calls: list[Call] = []
        self.closed = asyncio.Event()

    @property
    def name(self) -> str:
        return self._name

    async def open(self, call: Call) -> Deltas:
        script = self._scripts[min(len(self.calls), len(self._scripts) - 1)]
        self.calls.append(call)
        return await Deltas.opened(self._play(script), self._name)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        return None

    async def models(self) -> tuple[ModelInfo, ...]:
        return (ModelInfo("model"),)

    async def aclose(self) -> None:
        return None

    async def _play(self, script: Sequence[Step]) -> AsyncGenerator[Sequence[Delta], None]:
        finished = False
        try:
            for step in script:
                if isinstance(step, CauceError):
                    finished = True
                    raise step
                if isinstance(step, Gate):
                    await step.wait()
                elif isinstance(step, Sequence):
                    finished = any(isinstance(delta, Finish) for delta in step)
                    yield step
                else:
                    finished = isinstance(step, Finish)
                    yield (step,)
            finished = True
        finally:
            if not finished:
                self.closed.set()
