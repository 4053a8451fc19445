"""Streams while everything is hurt; and proof that the run would have seen it, had anything gone wrong."""

import pytest

from cauce.testing.chaos import chaos
from cauce.testing.chaos.node import FILLABLE
from tests.chaos.mutants import CATCHABLE, LOSING, POWER, POWER_NORMAL, Mutant
from tests.chaos.runs import REFERENCE, alone, away, caught, losing, reference, short, standing, told
from tests.chaos.tool_mutants import BROKEN_CALLS, STALLED

pytestmark = pytest.mark.anyio

_OTHERS = ("clock jump", "locked file", "sweep") + (("full disk", "full disk, told by /health") if FILLABLE else ())


async def test_streams_survive_kills_cuts_failures_and_cancels() -> None:
    with alone() as there:
        found = await chaos(short(there))
    assert not found.violations, told(found)
    assert found.streams >= 60
    assert found.events >= 40_000, told(found)
    # A run in which nothing was hurt would prove nothing.
    for fault in (
        "SIGKILL",
        "SIGSTOP",
        "SIGTERM",
        "cancel",
        "client drop",
        "provider reset",
        "provider stall",
        *_OTHERS,
    ):
        assert found.faults.get(fault), told(found)
    for seam in ("exact", "restarted", "calls ready"):
        assert found.seams.get(seam), told(found)


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
