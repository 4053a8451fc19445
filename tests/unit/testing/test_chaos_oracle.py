"""The provider of a run: what it says, and that one seed makes it do the same in each run."""

import contextlib
from collections import defaultdict
from typing import Any

import msgspec
import pytest

from cauce.testing.chaos import CALM, Rates
from cauce.testing.chaos.calls import arguments, call_id
from cauce.testing.chaos.faults import Faults
from cauce.testing.chaos.http import Broken, ask
from cauce.testing.chaos.oracle import Oracle, question
from tests.http import within

pytestmark = pytest.mark.anyio


async def answered(oracle: Oracle, stream: str, calls: int = 0) -> list[dict[str, Any]]:
    """The choices of what it answers, as far as they come."""
    body = {"messages": [{"role": "user", "content": question(stream, 200, 10, 0, calls)}]}
    data = b""
    with contextlib.suppress(Broken):
        answer = await ask(oracle.port, "POST", "/n0/v1/chat/completions", body)
        with contextlib.suppress(Broken):
            async for piece in answer.pieces():
                data += piece
        await answer.close()
    frames = [frame.removeprefix(b"data: ") for frame in data.split(b"\n\n")]
    return [
        choice for frame in frames if frame.startswith(b'{"id"') for choice in msgspec.json.decode(frame)["choices"]
    ]


async def test_calls_come_in_pieces_and_their_arguments_name_the_attempt() -> None:
    async with Oracle(Faults(1, CALM)) as oracle:
        choices = await answered(oracle, "run-0", calls=2)
    [attempt] = oracle.attempts
    pieces: dict[int, list[str]] = defaultdict(list)
    ids: list[str] = []
    for choice in choices:
        for call in choice["delta"].get("tool_calls", []):
            pieces[call["index"]].append(call["function"]["arguments"])
            ids += [call["id"]] if "id" in call else []
    assert ids == [call_id(0), call_id(1)]
    assert ["".join(found) for found in pieces.values()] == [arguments(0, attempt.nonce), arguments(1, attempt.nonce)]
    assert min(map(len, pieces.values())) > 3
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert attempt.called == 2 and attempt.whole


async def test_one_seed_does_the_same_to_the_same_stream_of_each_run() -> None:
    done: dict[str, list[tuple[str, int, int]]] = {}
    for run, order in (("one", range(6)), ("other", range(5, -1, -1))):
        faults = Faults(3, Rates(provider=0.8))
        async with Oracle(faults) as oracle:
            for stream in order:
                # What stalls would last.
                while (n := len(oracle.of(f"{run}-{stream}"))) < 3 and faults.provider(str(stream), n)[0] != "stall":
                    await within(answered(oracle, f"{run}-{stream}"), 10)
            attempts = [attempt for stream in range(6) for attempt in oracle.of(f"{run}-{stream}")]
        done[run] = [(attempt.fault, attempt.served, attempt.tokens) for attempt in attempts]
    assert done["one"] == done["other"]
    assert len({fault for fault, *_ in done["one"]}) > 2


async def test_answer_that_is_asked_for_by_a_name_is_kept_for_who_comes_back_until_it_is_stopped() -> None:
    async def read(method: str, target: str, body: object = None) -> tuple[int, bytes]:
        answer = await ask(oracle.port, method, f"/n0/v1/{target}", body, x_conversation_id="c1")
        data = b""
        with contextlib.suppress(Broken):
            async for piece in answer.pieces():
                data += piece
        await answer.close()
        return answer.status, data

    body = {"messages": [{"role": "user", "content": question("run-0", 200, 10, 0)}]}
    async with Oracle(Faults(1, CALM)) as oracle:
        status, whole = await read("POST", "chat/completions", body)
        assert status == 200 and whole.endswith(b"data: [DONE]\n\n")
        for start in (0, 77, len(whole) - 5):
            assert await read("GET", f"stream?conv_id=c1&from={start}") == (200, whole[start:])
        assert (await read("GET", "stream?conv_id=other&from=0"))[0] == 404
        assert (await read("DELETE", "stream?conv_id=c1"))[0] == 204
        assert (await read("GET", "stream?conv_id=c1&from=0"))[0] == 404
    [attempt] = oracle.attempts
    assert attempt.whole and attempt.kept is not None and len(attempt.kept.attached) == 3
    assert attempt.kept.stopped is not None and attempt.kept.stopped[1] == "n0"


async def test_oracle_sends_whoever_takes_it_for_another_server_away() -> None:
    async with Oracle(Faults(1, CALM)) as oracle:
        for method, path in (("POST", "/chat/stream/one/cancel"), ("GET", "/health/live"), ("DELETE", "/users/ana")):
            answer = await ask(oracle.port, method, path)
            await answer.close()
            assert answer.status == 404
        assert oracle.attempts == []
