"""A terminal for commands to run in."""

import asyncio
import fcntl
import os
import pty
import termios

from tests.e2e.cli.command import PATIENCE
from tests.http import within

PROMPT = "\x1b[?2004h"
"""What shows that the prompt takes keys: it asks the terminal for bracketed paste."""


class Terminal:
    """A terminal that a command runs in."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        os.set_blocking(self.ours, False)
        self._seen = b""

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    async def until(self, text: str) -> None:
        """Return once `text` was shown after what was waited for before."""
        loop = asyncio.get_running_loop()
        while text.encode() not in self._seen:
            readable = asyncio.Event()
            loop.add_reader(self.ours, readable.set)
            try:
                await within(readable.wait(), PATIENCE)
            except TimeoutError:
                raise AssertionError(f"{text!r} was not shown: {self._seen!r}") from None
            finally:
                loop.remove_reader(self.ours)
            self._seen += os.read(self.ours, 65536)
            self._answer_questions()
        self._seen = self._seen.partition(text.encode())[2]

    def take(self) -> None:
        """Make it the calling process's own, so that Ctrl-C in it is a signal to that process."""
        os.setsid()
        fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)

    def close(self) -> None:
        os.close(self.ours)

    def _answer_questions(self) -> None:
        # Terminals are asked where the cursor is, and answer.
        if b"\x1b[6n" in self._seen:
            self._seen = self._seen.replace(b"\x1b[6n", b"")
            self.type("\x1b[1;1R")
