"""The server's end: it hears of what it waits for, and looks at nothing again and again."""

import asyncio
import selectors
import signal
from collections.abc import Callable

import pytest

from cauce.bootstrap import runtime
from cauce.server.run import HTTPServer, listen
from tests.http import connection
from tests.serving import configured


class Jumping(selectors.DefaultSelector):
    """Where there is nothing to do, the clock jumps to when there is."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        self.now += timeout if timeout and not ready else 0.0
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def stopped(server: HTTPServer) -> None:
    server.stop()


def signalled(server: HTTPServer) -> None:
    server.handle_exit(signal.SIGTERM, None)


@pytest.mark.parametrize("told", [stopped, signalled])
def test_server_that_is_told_to_stop_waits_for_nothing_but_what_is_open(told: Callable[[HTTPServer], None]) -> None:
    async def times() -> tuple[float, float]:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        async def is_ready() -> None:
            ready.set()

        server, sockets = HTTPServer(runtime(configured(), on_disk=False).services, is_ready), listen("127.0.0.1", 0)
        port = sockets[0].getsockname()[1]
        serving = asyncio.create_task(server._serve(sockets))
        await ready.wait()
        async with connection(port) as idle:
            await idle.send("GET", "/health/live")
            assert (await idle.response()).status == 200
            began = loop.time()
            told(server)
            await serving
            return began, loop.time()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        began, ended = runner.run(times())
    assert ended == began
