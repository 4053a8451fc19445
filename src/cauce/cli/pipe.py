"""A conversation over pipes: each line is a question, answers come as plain text. Made for scripts and tests."""

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence

from cauce.cli.conversation import Reply
from cauce.cli.terminal import complain, harmless, note, readable
from cauce.domain.delta import Delta, Text

_READ = 65536


class Pipe:
    """See `conversation.Front`."""

    interactive = False

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._rest = b""
        self._ended = False
        self._cleaned = harmless if sys.stdout.isatty() else str

    async def read(self) -> str | None:
        while not self._lines and not self._ended:
            await _something_to_read(0)
            data = os.read(0, _READ)
            *lines, self._rest = (self._rest + data).split(b"\n")
            if not data:
                self._ended = True
                lines.append(self._rest)
            self._lines.extend([readable(line) for line in lines])
        return self._lines.popleft() if self._lines else None

    def show(self, text: str) -> None:
        print(self._cleaned(text), flush=True)

    def aside(self, text: str) -> None:
        note(text)

    def complain(self, text: str) -> None:
        complain(text)

    @contextlib.contextmanager
    def answering(self, reply: Reply) -> Generator[Callable[[Sequence[Delta]], None]]:
        def came(batch: Sequence[Delta]) -> None:
            text = "".join([delta.text for delta in batch if isinstance(delta, Text)])
            print(self._cleaned(text), end="", flush=True)

        yield came
        text = reply.text
        if text and not text.endswith("\n"):
            print(flush=True)


async def _something_to_read(descriptor: int) -> None:
    """Wait until reading `descriptor` does not block. A regular file never does, and no selector takes one."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(descriptor, lambda: ready.done() or ready.set_result(None))
    except PermissionError:
        return
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
