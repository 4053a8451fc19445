"""An opened answer tells all who listen how it ended, whatever becomes of its reader."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from cauce.domain.delta import Delta, Finish, Outcome, Text
from cauce.domain.errors import CauceError
from cauce.domain.usage import Usage
from cauce.ports.provider import Deltas
from tests.unit.engine.guarded import settled

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("whole", [True, False])
async def test_reader_that_leaves_while_one_listener_is_told_keeps_the_others_from_nothing(whole: bool) -> None:
    told: list[str] = []

    async def slow(outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        await asyncio.Event().wait()

    async def quick(outcome: Outcome, usage: Usage, error: CauceError | None) -> None:
        told.append(outcome)

    deltas = Deltas(None, (Text("one"), Finish("stop", Usage(1, 1))))
    for listener in (quick, slow, quick):
        deltas.on_end(listener)
    reading = asyncio.create_task(deltas.read() if whole else deltas.aclose())
    await settled()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await deltas.aclose()
    assert told == ["completed" if whole else "cancelled"] * 2


async def test_usage_of_a_closed_answer_is_what_those_below_it_have_settled() -> None:
    inner = Deltas(None, (Text("one"),), lambda: Usage(7, estimated=True))
    inner.on_finish(lambda usage: Usage(usage.input_tokens, cost=0.5, cost_source="estimated", estimated=True))

    async def passing() -> AsyncGenerator[Sequence[Delta], None]:
        try:
            yield await inner.read()
        finally:
            await inner.aclose()

    outer = await Deltas.opened(passing(), "p", lambda: inner.used)
    await outer.aclose()
    assert outer.used.cost == 0.5
