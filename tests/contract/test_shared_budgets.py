"""One budget that several processes spend: of one ledger, and of several nodes with a ledger each that share a Redis."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cauce.bootstrap.limiting import RENEWAL, Renewal, spent_of
from cauce.domain.usage import Usage as Used
from cauce.ports.limiter import Amount, Limit, Limiter, Reservation
from cauce.stores.inproc.limiter import InprocLimiter
from cauce.stores.redis.connection import RedisConnection
from cauce.stores.redis.limiter import RedisLimiter
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.sqlite.ledger import SqliteLedger
from cauce.system.ids import RandomIds
from cauce.testing.clock import FakeClock
from cauce.testing.ledger_contract import OWNER, entry
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

T = TypeVar("T")

BUDGET = Limit(f"key:{OWNER.tenant}/{OWNER.key}:dollars/day", "dollars", "day", 10.0)


class Node:
    """A process that calls a model: what that costs is in its ledger before its budget hears of it."""

    def __init__(self, clock: FakeClock, ledger: SqliteLedger, limiter: Limiter) -> None:
        self.clock = clock
        self.ledger = ledger
        self.limiter = limiter
        self.spent = 0.0

    async def begin(self, dollars: float) -> Reservation | None:
        """A call under way, if the budget lets it."""
        held = await self.limiter.reserve((BUDGET,), Amount(dollars=dollars))
        return held if isinstance(held, Reservation) else None

    async def end(self, held: Reservation) -> None:
        """It cost what was held."""
        dollars = held.amount.dollars
        self.ledger.record(entry(self.clock, usage=Used(100, 20, cost=dollars, cost_source="priced")))
        await self.limiter.settle(held, Amount(dollars=dollars))
        self.spent += dollars

    async def spend(self, dollars: float) -> bool:
        """Whether the budget let it."""
        held = await self.begin(dollars)
        if held is not None:
            await self.end(held)
        return held is not None


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


async def test_what_the_last_of_the_others_has_spent_counts_once_it_is_gone(clock: FakeClock, tmp_path: Path) -> None:
    ledger, other = SqliteLedger(tmp_path, clock), SqliteLedger(tmp_path, clock)
    limiter = InprocLimiter(clock, spent_of(ledger))
    here, there = Node(clock, ledger, limiter), Node(clock, other, InprocLimiter(clock, spent_of(other)))
    alive = [here, there]
    renewal = Renewal(limiter, clock, lambda: len(alive))
    renewal.start()
    await clock.until_waiting(1)
    assert await here.spend(1)
    clock.advance(RENEWAL)
    await clock.until_waiting(1)
    assert await there.spend(8)
    await other.stop()
    alive.remove(there)
    clock.advance(RENEWAL)
    await clock.until_waiting(1)
    assert not await here.spend(1.5) and await here.spend(1)
    await renewal.stop()
    await ledger.stop()


class Cluster:
    """Processes that share a Redis which can lose all it knows. `counted` of them are told to be there."""

    def __init__(self, clock: FakeClock, server: RedisServer, counted: int = 2) -> None:
        self.clock = clock
        self.server = server
        self.counted = counted
        self.nodes: list[Node] = []
        self._connections: list[RedisConnection] = []

    async def add(self, folder: Path, *, deaf: bool = False) -> Node:
        """One more, with the ledger in `folder`. `deaf`: it does not hear what others tell."""
        connection = RedisConnection(RedisSettings(self.server.url), self.clock)
        await connection.start()
        ledger = SqliteLedger(folder, self.clock)
        limiter = RedisLimiter(
            connection,
            self.clock,
            RandomIds(),
            spent_of(ledger),
            self.clock.now,
            node=ledger.node,
            nodes=self.counted,
        )
        if not deaf:
            await limiter.start()
        self._connections.append(connection)
        self.nodes.append(Node(self.clock, ledger, limiter))
        channel = connection.key("room:sums")
        async with asyncio.timeout(30):
            while (await connection.run(lambda redis: redis.pubsub_numsub(channel)))[0][1] < len(self.nodes) - deaf:
                await asyncio.sleep(0)
        return self.nodes[-1]

    async def lose_everything(self) -> None:
        await self._connections[0].run(lambda redis: redis.flushall())

    async def told(self) -> int:
        """How many processes have told what they know of the budget."""
        fields = await self._connections[0].run(lambda redis: redis.hkeys("cauce:{limits}:" + BUDGET.key))
        return len([field for field in fields if field.startswith(b"s:")])

    async def done(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, which may have to wait for the others."""
        task = asyncio.create_task(work)
        async with asyncio.timeout(30):
            while not task.done():
                if await self.told() >= self.counted:
                    self.clock.advance(0.01)
        return await task

    async def leave(self, node: Node) -> None:
        """Its process ends."""
        assert isinstance(node.limiter, RedisLimiter)
        self.clock.advance(0)
        await node.limiter.aclose()
        await node.ledger.stop()

    @property
    def spent(self) -> float:
        return sum([node.spent for node in self.nodes])


@pytest.fixture
async def cluster(connection: RedisConnection, redis_server: RedisServer, clock: FakeClock) -> AsyncIterator[Cluster]:
    """Of a Redis that is empty."""
    cluster = Cluster(clock, redis_server)
    yield cluster
    for node in cluster.nodes:
        await cluster.leave(node)
    for one in cluster._connections:
        await one.aclose()


async def test_budget_whose_sum_redis_has_lost_is_not_overspent(cluster: Cluster, tmp_path: Path) -> None:
    here, there = await cluster.add(tmp_path / "here"), await cluster.add(tmp_path / "there")
    assert await here.spend(4) and await there.spend(3)
    await cluster.lose_everything()
    assert await cluster.done(here.spend(1)) and await cluster.done(there.spend(1))
    assert not await here.spend(1.5) and not await there.spend(1.5)
    assert await there.spend(1) and not await here.spend(0.01) and cluster.spent == BUDGET.most


async def test_calls_under_way_while_redis_loses_everything_still_hold_their_part(
    cluster: Cluster, tmp_path: Path
) -> None:
    here, there = await cluster.add(tmp_path / "here"), await cluster.add(tmp_path / "there")
    assert await here.spend(1) and await there.spend(3)
    held = await there.begin(3)
    assert held is not None
    await cluster.lose_everything()
    assert not await cluster.done(here.spend(4)) and await here.spend(3)
    await there.end(held)
    assert not await there.spend(0.01) and cluster.spent == BUDGET.most


async def test_what_ends_between_the_loss_and_the_next_call_counts_once(cluster: Cluster, tmp_path: Path) -> None:
    here, there = await cluster.add(tmp_path / "here"), await cluster.add(tmp_path / "there")
    assert await here.spend(1)
    held = await there.begin(3)
    assert held is not None
    await cluster.lose_everything()
    await there.end(held)
    assert await cluster.done(here.spend(6)) and not await there.spend(0.01)


async def test_what_ends_after_another_has_begun_the_sum_anew_counts_once(cluster: Cluster, tmp_path: Path) -> None:
    cluster.counted = 1
    here, there = await cluster.add(tmp_path / "here"), await cluster.add(tmp_path / "there", deaf=True)
    assert await here.spend(1)
    held = await there.begin(3)
    assert held is not None
    await cluster.lose_everything()
    assert await here.spend(1)
    await there.end(held)
    assert not await there.spend(5.5) and await there.spend(5)


async def test_processes_that_share_a_ledger_tell_what_it_knows_once(cluster: Cluster, tmp_path: Path) -> None:
    here, beside = await cluster.add(tmp_path / "here"), await cluster.add(tmp_path / "here")
    assert await here.spend(4) and await beside.spend(3)
    await cluster.lose_everything()
    assert await cluster.done(beside.spend(2)) and await cluster.done(here.spend(1)) and not await here.spend(0.01)


async def test_process_that_has_just_begun_tells_what_the_one_before_it_spent(cluster: Cluster, tmp_path: Path) -> None:
    here, there = await cluster.add(tmp_path / "here"), await cluster.add(tmp_path / "there")
    assert await here.spend(1) and await there.spend(8)
    await cluster.leave(there)
    cluster.nodes.remove(there)
    await cluster.add(tmp_path / "there")
    await cluster.lose_everything()
    assert not await cluster.done(here.spend(2)) and await here.spend(1)


async def test_what_was_spent_without_redis_counts_once_when_it_comes_back_empty_and_others_are_first(
    cluster: Cluster, clock: FakeClock, tmp_path: Path
) -> None:
    here, there = await cluster.add(tmp_path / "here"), await cluster.add(tmp_path / "there")
    assert await here.spend(1) and await there.spend(1)
    clock.advance(1)
    # What the other has spent alone, and has not told yet.
    there.ledger.record(entry(clock, usage=Used(100, 20, cost=3, cost_source="priced")))
    owed = {BUDGET: (3.0, clock.now())}
    clock.advance(1)
    await cluster.lose_everything()
    assert await cluster.done(here.spend(1))
    assert isinstance(there.limiter, RedisLimiter)
    await there.limiter.owe(owed)
    assert await there.spend(4) and not await here.spend(0.01)
    await there.limiter.owe({BUDGET: (0.5, clock.now() + 1)})
    assert not await here.spend(0.01)


async def test_sum_that_an_earlier_version_began_is_put_together_anew(
    cluster: Cluster, connection: RedisConnection, clock: FakeClock, tmp_path: Path
) -> None:
    here = await cluster.add(tmp_path / "here")
    here.ledger.record(entry(clock, usage=Used(100, 20, cost=4, cost_source="priced")))
    of_before = {"ends": str(clock.now() + 1000), "spent": "4.000000"}
    await connection.run(lambda redis: redis.hset("cauce:{limits}:" + BUDGET.key, mapping=of_before))
    assert not await here.spend(6.5) and await here.spend(6)


async def test_node_that_is_gone_is_waited_for_a_moment_only(
    cluster: Cluster, clock: FakeClock, tmp_path: Path
) -> None:
    here = await cluster.add(tmp_path / "here")
    assert await here.spend(4)
    await cluster.lose_everything()
    going_on = asyncio.create_task(here.spend(1))
    async with asyncio.timeout(30):
        while not await cluster.told():
            await asyncio.sleep(0)
    assert not going_on.done()
    # One more sleeps before it renews what it holds.
    await clock.until_waiting(2)
    clock.advance(1)
    assert await going_on and not await here.spend(6) and await here.spend(5)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_lost_whenever_the_budget_is_spent_and_never_more(
    cluster: Cluster, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    for place in range(2):
        await cluster.add(tmp_path / str(place))
        assert await cluster.nodes[place].spend(0.5)
    under_way: list[tuple[Node, Reservation]] = []
    for _ in range(60):
        node = chance.choice(cluster.nodes)
        match chance.choice(["begin", "begin", "end", "lose"]):
            case "begin":
                held = await cluster.done(node.begin(chance.choice([0.25, 0.5, 1.0])))
                if held is not None:
                    under_way.append((node, held))
            case "end" if under_way:
                whose, held = under_way.pop(chance.randrange(len(under_way)))
                await whose.end(held)
            case "lose" if chance.random() < 0.4:
                await cluster.lose_everything()
            case _:
                pass
        assert cluster.spent + sum([held.amount.dollars for _, held in under_way]) <= BUDGET.most
    for whose, held in under_way:
        await whose.end(held)
    while await cluster.done(cluster.nodes[0].spend(0.25)):
        pass
    assert cluster.spent == BUDGET.most
