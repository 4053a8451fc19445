"""What tests/load proves at full size, in a few seconds each: a real server process, many clients at once."""

from collections import Counter
from pathlib import Path

import pytest

from cauce.testing.upstream import Limits
from tests.load.scenarios import Burst, burst, killed, mixed, open_streams, redis_outage, spending, two_processes
from tests.load.test_ledger_under_load import KINDS
from tests.redis_server import running_redis

pytestmark = pytest.mark.anyio


async def test_many_clients_before_few_places_are_all_answered_with_equal_shares(tmp_path: Path) -> None:
    tally, record = await burst(tmp_path, Burst(120, Limits(8), takes=0.1))
    assert dict(tally.statuses) == {200: 120}, tally.first_error
    assert record.violations == 0 and record.most_at_once == 8
    # Of those that had to wait: the first eight were alone.
    half = Counter(tally.order[8:60])
    assert abs(half["first"] - half["second"]) <= 6, half


async def test_requests_per_minute_are_waited_for_and_not_passed(tmp_path: Path) -> None:
    tally, record = await burst(tmp_path, Burst(90, Limits(20, 600), takes=0.05))
    assert dict(tally.statuses) == {200: 90}, tally.first_error
    assert record.violations == 0 and record.most_at_once <= 20
    # A tenth of a minute's may come at once, and ten in each second.
    assert record.most_within(1) <= 60 + 10 + 5


async def test_clients_at_once_spend_no_more_than_their_budget(tmp_path: Path) -> None:
    seen = await spending(tmp_path, clients=60, covered=15)
    assert set(seen.tally.statuses) == {200, 402}, seen.tally.first_error
    assert 7 <= seen.answered == seen.tally.statuses[200] <= 15
    assert seen.cost <= seen.budget


async def test_clients_that_bound_no_answer_spend_no_more_than_their_budget_either(tmp_path: Path) -> None:
    seen = await spending(tmp_path, clients=60, covered=60, bounded=False)
    assert set(seen.tally.statuses) == {200, 402}, seen.tally.first_error
    assert seen.budget / 2 <= seen.cost <= seen.budget


async def test_clients_that_ask_for_json_spend_no_more_than_their_budget_on_all_their_turns(tmp_path: Path) -> None:
    seen = await spending(tmp_path, clients=60, covered=15, structured=True)
    assert {200, 402} <= set(seen.tally.statuses) <= {200, 402, 502}, seen.tally.first_error
    assert 7 <= seen.answered <= 15
    assert seen.cost <= seen.budget


async def test_ledger_agrees_with_the_provider_on_calls_of_all_kinds(tmp_path: Path) -> None:
    seen = await mixed(tmp_path, 200)
    total, estimated = seen.usage["total"], seen.usage["estimated"]
    served = seen.served
    reported = {name: total[name] - estimated[name] for name in KINDS}
    assert reported == dict(zip(KINDS, (served.input, served.output, served.cached, served.reasoning), strict=True))
    assert total["requests"] == 200 and estimated["requests"] > 0


async def test_killed_server_knows_every_answer_it_had_delivered(tmp_path: Path) -> None:
    delivered, usage = await killed(tmp_path, 300, 120)
    known = {group["model"]: group["requests"] for group in usage["groups"]}
    assert len(delivered) >= 120
    assert [model for model in delivered if known.get(model) != 1] == []


async def test_hundreds_of_slow_streams_are_open_on_one_process(tmp_path: Path) -> None:
    seen = await open_streams(tmp_path, 200, pace=0.1)
    assert seen.complete == seen.most_at_once == 200


@pytest.mark.parametrize("frozen", [False, True], ids=["ended", "frozen"])
async def test_redis_may_go_and_come_back_while_requests_run(tmp_path: Path, frozen: bool) -> None:
    with running_redis() as redis:
        seen = await redis_outage(tmp_path, redis, 1.5, frozen=frozen)
    assert dict(seen.tally.statuses) == {200: len(seen.tally.order)}, seen.tally.first_error
    assert seen.during > 10
    assert seen.upstream.violations == 0 and seen.upstream.most_at_once <= 20
    assert seen.used_again


async def test_two_processes_on_one_redis_keep_to_one_limit(tmp_path: Path) -> None:
    with running_redis() as redis:
        size = Burst(100, Limits(6), takes=0.05)
        tally, record = await two_processes(tmp_path, redis, size)
    assert dict(tally.statuses) == {200: 100}, tally.first_error
    assert record.violations == 0 and record.most_at_once == 6
