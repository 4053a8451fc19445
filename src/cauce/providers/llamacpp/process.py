"""The worker process as the server sees it: commands go to it, and what it says goes to whoever gave the command."""

import asyncio
import logging
import sys
from collections.abc import Sequence

import msgspec

from cauce.domain.errors import ProviderFailure
from cauce.providers.llamacpp.protocol import Absent, Command, Count, Event, Failed, Generate, Loaded, ModelFile, encode
from cauce.providers.llamacpp.protocol import decode_event as decode

# -P: a file of the folder we were started in must not be taken for a library.
WORKER = (sys.executable, "-P", "-m", "cauce.providers.llamacpp.worker")

_LONGEST_LINE = 1024 * 1024
_CHUNK = 64 * 1024
_LAST_MOMENT = 1.0
"""Seconds between the end of what it says and its own end."""

logger = logging.getLogger("cauce.llamacpp")


class Inbox:
    """What the worker has said about one command."""

    def __init__(self, model: ModelFile) -> None:
        self.model = model
        self._events: list[Event] = []
        self._failure: ProviderFailure | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def take(self) -> list[Event]:
        """What has come since the last time; waits for something. Raises `ProviderFailure` once nothing more will come."""
        while not self._events:
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events, self._events = self._events, []
        return events

    def put(self, event: Event) -> None:
        """Something was said."""
        self._events.append(event)
        self._ring()

    def fail(self, failure: ProviderFailure) -> None:
        """Nothing more will be said."""
        self._failure = failure
        self._ring()

    def _ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Worker:
    """A running worker. It knows which model is loaded in it, and fails everybody who waits when it ends."""

    def __init__(self, provider: str, process: asyncio.subprocess.Process) -> None:
        self.provider = provider
        self.loaded: ModelFile | None = None
        self.alive = True
        self._process = process
        self._inboxes: dict[int, Inbox] = {}
        self._absent = False
        self._why = ""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, provider: str, command: Sequence[str]) -> "Worker":
        """Start `command`. Raises `ProviderFailure`."""
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise ProviderFailure(
                f"{provider}: its worker cannot be started: {error.strerror}", failure="transient", provider=provider
            ) from error
        return cls(provider, process)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, command: Generate | Count) -> Inbox:
        """Give a command that is answered. When the answer is no longer wanted, `forget` it."""
        inbox = self._inboxes[command.number] = Inbox(command.model)
        if self.alive:
            self.tell(command)
        else:
            inbox.fail(self._ended())
        return inbox

    def tell(self, command: Command) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        if self.alive:
            self._process.stdin.write(encode(command) + b"\n")

    def forget(self, number: int) -> None:
        """What is said about that command has no reader any more."""
        self._inboxes.pop(number, None)

    def kill(self) -> None:
        """End the process at once. Whoever waits is told."""
        self.alive = False
        if self._process.returncode is None:
            self._process.kill()

    async def aclose(self) -> None:
        """Kill it and wait until it is gone."""
        self.kill()
        await asyncio.shield(self._listening)

    async def _listen(self) -> None:
        """Hand out what it says until it ends."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        logging_errors = asyncio.create_task(self._log(process.stderr))
        try:
            await self._read()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._why = f"its worker said what cannot be read: {error}"
            self.kill()
            while await process.stdout.read(_CHUNK):
                # What is left unread: a pipe is closed once it is empty.
                pass
        code = await self._gone()
        process.stdin.close()
        await logging_errors
        self._why = self._why or f"the worker that runs its models ended unexpectedly ({_how(code)})"
        for inbox in self._inboxes.values():
            inbox.fail(self._ended())

    async def _gone(self) -> int:
        """Its exit status. One that has closed its mouth but lives on is killed."""
        self.alive = False
        try:
            async with asyncio.timeout(_LAST_MOMENT):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while data := await self._process.stdout.read(_CHUNK):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._hand_out(decode(line))
            if len(rest) > _LONGEST_LINE:
                raise msgspec.DecodeError("a line without an end")

    def _hand_out(self, event: Event) -> None:
        if isinstance(event, Absent):
            self._absent, self._why = True, event.message
            return
        inbox = self._inboxes.get(event.number)
        if inbox is None:
            return
        match event:
            case Loaded():
                self.loaded = inbox.model
            case Failed(_, "load"):
                self.loaded = None
            case Failed(_, "broken"):
                # Nobody knows what state it is in.
                self.kill()
            case _:
                pass
        inbox.put(event)

    async def _log(self, errors: asyncio.StreamReader) -> None:
        while data := await errors.read(_CHUNK):
            logger.warning("the worker of %s says: %s", self.provider, data.decode("utf-8", "replace").rstrip())

    def _ended(self) -> ProviderFailure:
        return ProviderFailure(
            f"{self.provider}: {self._why or 'the worker that runs its models has ended'}",
            failure="transient",
            provider=self.provider,
            # A library that is missing will be missing again.
            should_retry=False if self._absent else None,
        )


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"
