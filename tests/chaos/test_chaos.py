"""Streams while everything is hurt; and proof that the run would have seen it, had anything gone wrong."""

import pytest

from cauce.testing.chaos import chaos
from tests.chaos.mutants import CATCHABLE, LOSING, Mutant
from tests.chaos.runs import REFERENCE, caught, ground, reference, short, told

pytestmark = pytest.mark.anyio


async def test_streams_survive_kills_cuts_failures_and_cancels() -> None:
    with ground("sqlite") as there:
        found = await chaos(short(there))
    assert not found.violations, told(found)
    assert found.streams >= 60
    assert found.events >= 40_000, told(found)
    # A run in which nothing was hurt would prove nothing.
    for fault in ("SIGKILL", "SIGSTOP", "SIGTERM", "cancel", "client drop", "provider reset", "provider stall"):
        assert found.faults.get(fault), told(found)


@pytest.mark.parametrize("mutant", CATCHABLE, ids=lambda mutant: mutant.name)
async def test_server_that_breaks_a_rule_is_found_out(mutant: Mutant) -> None:
    found = await caught(mutant)
    assert set(mutant.caught) <= set(found.broken), told(found)


async def test_store_whose_answers_are_lost_loses_nothing() -> None:
    found = await caught(LOSING)
    assert not found.violations, told(found)


def test_reference_has_the_table_of_mutants_as_it_is() -> None:
    text = REFERENCE.read_text("utf-8")
    assert reference(text) == text, "run `.venv/bin/python -m tests.chaos --write`"
