"""Streams while everything is hurt; and proof that the run would have seen it, had anything gone wrong."""

from typing import Any

import pytest

from cauce.testing.chaos import Report, chaos
from tests.chaos.mutants import CATCHABLE, LOSING, POWER, POWER_NORMAL, Mutant
from tests.chaos.runs import (
    REFERENCE,
    SHARED_AT_LEAST,
    SHORT_AT_LEAST,
    alone,
    away,
    caught,
    losing,
    reference,
    shared,
    short,
    standing,
    told,
    too_little,
)
from tests.chaos.tool_mutants import BROKEN_CALLS, STALLED

pytestmark = pytest.mark.anyio


async def test_streams_survive_kills_cuts_failures_and_cancels() -> None:
    with alone() as there:
        found = await chaos(short(there))
    assert not found.violations, told(found)
    assert not too_little(found), told(found)


@pytest.mark.parametrize("store", ["postgres", "redis"])
async def test_streams_of_two_servers_survive_that_share_a_store(store: str) -> None:
    with standing(store, lease=1.0) as (ground, _):
        found = await chaos(shared(ground))
    assert not found.violations, told(found)
    assert all([found.faults.get(what) for what in SHARED_AT_LEAST]), told(found)


def _came_to(counts: dict[str, int]) -> Report:
    """What a run that came to so much of everything reports."""
    faults = {what: count for what, count in counts.items() if what not in ("streams", "events")}
    nothing: dict[str, int] = {}
    empty: dict[str, Any] = dict.fromkeys(("outcomes", "seams", "excused", "takeovers", "delays", "memory"), nothing)
    of = (counts["streams"], counts["events"], 0, 0)
    return Report({}, 60.0, *of, faults=faults, outages=[], violations=[], logs=[], **empty)


@pytest.mark.parametrize("what", SHORT_AT_LEAST)
def test_run_in_which_too_little_was_hurt_is_told_from_one_that_proves_something(what: str) -> None:
    assert too_little(_came_to(SHORT_AT_LEAST)) == []
    least = SHORT_AT_LEAST[what]
    assert too_little(_came_to({**SHORT_AT_LEAST, what: least - 1})) == [f"{what} ({least - 1:,} of {least:,})"]


@pytest.mark.parametrize("mutant", CATCHABLE, ids=lambda mutant: mutant.name)
async def test_server_that_breaks_a_rule_is_found_out(mutant: Mutant) -> None:
    found = await caught(mutant)
    assert set(mutant.caught) <= set(found.broken), told(found)


async def test_store_whose_answers_are_lost_loses_nothing() -> None:
    found = await caught(LOSING)
    assert not found.violations, told(found)


async def test_calls_that_break_come_again_and_answers_begin_anew_where_readers_take_that() -> None:
    found = await caught(BROKEN_CALLS)
    assert not found.violations, told(found)
    for seam in ("exact", "stitched", "restarted", "cut_after_call", "calls ready", "calls abandoned"):
        assert found.seams.get(seam), told(found)


async def test_readers_that_take_nothing_are_waited_for_and_not_held_for() -> None:
    found = await caught(STALLED)
    assert not found.violations, told(found)


async def test_power_that_goes_takes_nothing_that_was_acknowledged() -> None:
    found = await caught(POWER)
    assert not found.violations, told(found)
    assert found.faults.get("power loss") == 2, told(found)


async def test_what_a_power_cut_takes_from_a_server_that_does_not_wait_for_the_disk_is_told_to_readers() -> None:
    found = await caught(POWER_NORMAL)
    assert not found.violations, told(found)
    assert found.faults.get("power loss") == 4, told(found)
    assert found.faults.get("bytes lost by power loss") and found.faults.get("readers told of a loss"), told(found)


async def test_streams_go_on_when_redis_comes_back_with_everything() -> None:
    with standing("redis", lease=1.0) as (ground, redis):
        assert redis is not None
        found = await chaos(away(ground, redis))
    assert not found.violations, told(found)
    assert found.faults.get("store away") == 2, told(found)


async def test_what_redis_forgot_is_told_to_readers_and_never_papered_over() -> None:
    with standing("redis", lease=1.0) as (ground, redis):
        assert redis is not None
        found = await chaos(losing(ground, redis))
    assert not found.violations, told(found)
    assert found.faults.get("bytes lost by lost tail") and found.faults.get("readers told of a loss"), told(found)


def test_reference_has_the_table_of_mutants_as_it_is() -> None:
    text = REFERENCE.read_text("utf-8")
    assert reference(text) == text, "run `.venv/bin/python -m tests.chaos --write`"
