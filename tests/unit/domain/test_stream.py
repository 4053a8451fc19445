"""The table of a stream's states, and where its readers go on."""

import itertools

import pytest

from cauce.domain.stream import APPENDED, OPEN, TERMINAL, TRANSITIONS, Head, State, advance, claimed
from cauce.testing.stream_samples import KEY, REQUEST


def test_every_state_of_the_table_can_be_reached_from_a_new_stream() -> None:
    reached = {state for row in TRANSITIONS if row.guard == "unknown" for state in row.after}
    for _ in TRANSITIONS:
        reached |= {state for row in TRANSITIONS if row.before & reached for state in row.after}
    assert reached == OPEN | TERMINAL | {"expired"}


def test_nothing_follows_a_terminal_state_but_its_expiry() -> None:
    assert {state for row in TRANSITIONS if row.before & TERMINAL for state in row.after} == {"expired"}
    for state, to in itertools.product(TERMINAL, OPEN | TERMINAL):
        with pytest.raises(ValueError, match="cannot become"):
            advance(state, to)


def test_only_a_cancel_may_be_written_when_one_was_requested() -> None:
    assert {state for row in TRANSITIONS if row.guard == "fence" for state in row.after} == {"cancelled"}


def test_an_open_stream_can_always_be_ended_and_never_expires() -> None:
    for state in OPEN:
        for outcome in ("incomplete", "failed", "cancelled"):
            assert advance(state, outcome) == outcome
        with pytest.raises(ValueError, match="cannot become expired"):
            advance(state, "expired")


def test_an_answer_passes_through_running_before_it_completes() -> None:
    with pytest.raises(ValueError, match="queued cannot become completed"):
        advance("queued", "completed")
    assert advance("queued", "running", "completed") == "completed"
    assert advance("recovering") == "recovering"


def test_takeover_leaves_a_stream_that_waits_waiting_and_has_others_recover() -> None:
    assert [claimed(state) for state in ("queued", "running", "recovering")] == ["queued", "recovering", "recovering"]
    for state in TERMINAL:
        with pytest.raises(ValueError, match="cannot be taken over"):
            claimed(state)


def test_names_of_states_can_be_looked_for_in_a_list_of_them() -> None:
    # Logs do so in SQL and in Lua.
    for one, other in itertools.permutations(APPENDED, 2):
        assert one not in other


@pytest.mark.parametrize(
    ("state", "mark", "after"),
    [
        ("running", None, 0),
        ("running", 3, 3),
        # It ended after it was looked up, and the end was sent.
        ("running", 6, 5),
        ("completed", 3, 3),
        ("completed", 5, 4),
    ],
)
def test_reader_without_a_cursor_goes_on_before_an_end_that_may_not_have_arrived(
    state: State, mark: int | None, after: int
) -> None:
    assert Head(KEY, REQUEST, b"", 1.0, state, 1, 5, reader_mark=mark).surely_read == after
