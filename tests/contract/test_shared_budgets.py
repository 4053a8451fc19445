"""One budget that several processes spend: of one ledger, and of several nodes with a ledger each that share a Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cauce.bootstrap.limiting import RENEWAL, Renewal, spent_of
from cauce.domain.usage import Usage as Used
from cauce.ports.limiter import Amount, Limit, Limiter, Reservation
from cauce.stores.inproc.limiter import InprocLimiter
from cauce.stores.sqlite.ledger import SqliteLedger
from cauce.testing.clock import FakeClock
from cauce.testing.ledger_contract import OWNER, entry

pytestmark = pytest.mark.anyio

BUDGET = Limit(f"key:{OWNER.tenant}/{OWNER.key}:dollars/day", "dollars", "day", 10.0)


class Node:
    """A process that calls a model: what that costs is in its ledger before its budget hears of it."""

    def __init__(self, clock: FakeClock, ledger: SqliteLedger, limiter: Limiter) -> None:
        self.clock = clock
        self.ledger = ledger
        self.limiter = limiter
        self.spent = 0.0

    async def spend(self, dollars: float) -> bool:
        """Whether the budget let it."""
        held = await self.limiter.reserve((BUDGET,), Amount(dollars=dollars))
        if isinstance(held, Reservation):
            self.ledger.record(entry(self.clock, usage=Used(100, 20, cost=dollars, cost_source="priced")))
            await self.limiter.settle(held, Amount(dollars=dollars))
            self.spent += dollars
            return True
        return False


@asynccontextmanager
async def workers(folder: Path, clock: FakeClock) -> AsyncIterator[tuple[Node, Node]]:
    """Two that share a ledger, and nothing else."""
    nodes: list[Node] = []
    renewals: list[Renewal] = []
    for _ in range(2):
        ledger = SqliteLedger(folder, clock)
        limiter = InprocLimiter(clock, spent_of(ledger))
        nodes.append(Node(clock, ledger, limiter))
        renewals.append(Renewal(limiter, clock, lambda: 2))
    for renewal in renewals:
        renewal.start()
    await clock.until_waiting(2)
    yield nodes[0], nodes[1]
    for node, renewal in zip(nodes, renewals, strict=True):
        await renewal.stop()
        await node.ledger.stop()


async def test_workers_of_one_ledger_know_a_moment_later_what_the_others_have_spent(
    clock: FakeClock, tmp_path: Path
) -> None:
    async with workers(tmp_path, clock) as (here, there):
        assert await here.spend(1) and await there.spend(1)
        for _ in range(7):
            assert await here.spend(1)
        clock.advance(RENEWAL)
        await clock.until_waiting(2)
        assert not await there.spend(1.5) and await there.spend(1) and not await there.spend(0.1)


async def test_worker_that_was_not_asked_for_a_while_looks_first(clock: FakeClock, tmp_path: Path) -> None:
    async with workers(tmp_path, clock) as (here, there):
        assert await there.spend(1)
        for _ in range(30):
            clock.advance(RENEWAL)
            await clock.until_waiting(2)
        assert await here.spend(9)
        assert not await there.spend(0.1)
