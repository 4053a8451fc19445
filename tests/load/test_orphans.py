"""A thousand streams whose server is killed at once."""

import asyncio
import signal
from pathlib import Path

import msgspec
import pytest

from cauce.testing.chaos.faults import CALM, Faults
from cauce.testing.chaos.http import ask, told
from cauce.testing.chaos.node import SERVE, Ground, Node
from cauce.testing.chaos.oracle import Oracle, question

pytestmark = pytest.mark.anyio

STREAMS = 1000
LENGTH, PIECES, PAUSE = 10_000, 100, 250
"""Characters and pieces of an answer, and milliseconds between two."""

MEMORY = 250_000
"""Kilobytes that the server may have, with all streams open."""


class _Restarted(msgspec.Struct, frozen=True):
    """Seconds after the process began. `asked` is when the provider was asked to go on with the last stream."""

    ready: float
    first_asked: float
    last_asked: float


async def _begun(node: Node, number: int, room: asyncio.Semaphore) -> None:
    """Begin a stream, and leave."""
    said = question(f"s{number}", LENGTH, PIECES, PAUSE)
    async with room:
        answer = await ask(
            node.port,
            "POST",
            f"/chat/stream/s{number}",
            {"model": "chaos", "messages": [{"role": "user", "content": said}]},
        )
        assert answer.status == 200
        await answer.close()


async def _served(oracle: Oracle, least: int) -> None:
    """Every stream has got so many characters."""
    async with asyncio.timeout(120):
        while any([attempt.served < least for attempt in oracle.attempts]):
            await asyncio.sleep(0.2)


async def _restarted(node: Node, oracle: Oracle) -> _Restarted:
    loop = asyncio.get_running_loop()
    before, began = len(oracle.attempts), loop.time()
    await node.start()
    async with asyncio.timeout(60):
        while len(oracle.attempts) < before + STREAMS:
            # It answers others while it takes over.
            status, _ = await told(node.port, "GET", "/health")
            assert status == 200
            node.look()
    asked = [attempt.began - began for attempt in oracle.attempts[before:]]
    return _Restarted(node.ready_at - began, min(asked), max(asked))


async def test_thousand_streams_of_a_killed_server_are_gone_on_with(tmp_path: Path) -> None:
    async with Oracle(Faults(1, CALM)) as oracle:
        ground = Ground("sqlite", tmp_path)
        node = Node("n0", SERVE, tmp_path, ground.config("n0", oracle.port, several=False))
        try:
            await node.start()
            room = asyncio.Semaphore(50)
            await asyncio.gather(*[_begun(node, number, room) for number in range(STREAMS)])
            await _served(oracle, LENGTH // 10)
            node.look()
            node.send(signal.SIGKILL)
            await node.gone()
            print(await _restarted(node, oracle))
            async with asyncio.timeout(180):
                while sum([attempt.whole for attempt in oracle.attempts]) < STREAMS:
                    node.look()
                    await asyncio.sleep(0.5)
            states = [
                (await told(node.port, "GET", f"/chat/stream/s{number}"))[1]["state"]
                for number in range(0, STREAMS, 50)
            ]
        finally:
            await node.stop()
    print(f"{node.most_memory / 1000:.0f} MB")
    assert states == ["completed"] * len(states)
    # Each was asked for twice, the second time with exactly what the log had.
    assert [len(oracle.of(f"s{number}")) for number in range(STREAMS)] == [2] * STREAMS
    assert not oracle.noted
    assert {attempt.kind for attempt in oracle.attempts[STREAMS:]} == {"prefill"}
    assert node.most_memory <= MEMORY
