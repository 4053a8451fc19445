"""The states that deltas lead a stream through, and the bills of its attempts."""

import msgspec
import pytest

from cauce.domain.delta import Attempt, Delta, Finish, Reasoning, Status, Text
from cauce.domain.request import Scope
from cauce.domain.stream import AttemptRow, State, Upstream, advance
from cauce.domain.usage import Usage
from cauce.engine.streams.commits import NOWHERE, Begun, Commits
from cauce.ports.ledger import Entry

FIRST = Attempt(1, "up", "m", "primary")
AGAIN = Attempt(2, "two", "n", "fallback", strategy="prefill", reason="broke")
END = Finish("stop", Usage(3, 4))
ORPHAN = AttemptRow(1, "up", "m", usage=Usage(5, 6, estimated=True), outcome="failed")


def entry(n: int, usage: Usage, outcome: str = "completed") -> Entry:
    made = Entry(0.0, "req", Scope(), "up", "m", "primary", "completed", None, usage, 1.0, None, n=n)
    return msgspec.structs.replace(made, outcome=outcome)


@pytest.mark.parametrize(
    ("before", "deltas", "states"),
    [
        ("queued", [Status("waiting")], []),
        ("queued", [FIRST], ["running"]),
        ("queued", [FIRST, AGAIN], ["running"]),
        ("queued", [FIRST, Text("a"), AGAIN], ["running", "recovering"]),
        ("queued", [FIRST, Text("a"), AGAIN, Status("seam"), Text("b")], ["running", "recovering", "running"]),
        ("queued", [END], ["running", "completed"]),
        ("queued", [Finish("error", outcome="failed")], ["failed"]),
        ("recovering", [AGAIN], []),
        ("recovering", [AGAIN, Status("seam")], []),
        ("recovering", [AGAIN, Reasoning("hm")], ["running"]),
        ("recovering", [AGAIN, END], ["completed"]),
        ("recovering", [Finish("cancelled", outcome="cancelled")], ["cancelled"]),
    ],
)
def test_deltas_lead_through_the_states_of_the_table(before: State, deltas: list[Delta], states: list[State]) -> None:
    commit = Commits(Begun(before)).commit(deltas)
    assert list(commit.steps) == states
    # The table allows it.
    advance(before, *commit.steps)


def test_attempt_that_goes_on_with_what_another_process_showed_is_a_recovery() -> None:
    commits = Commits(Begun("recovering", shown=True, text=True))
    commits.written(commits.commit([AGAIN, Text("b")]))
    assert commits.commit([Attempt(3, "up", "m", "primary", reason="broke")]).steps == ("recovering",)


def test_bill_names_the_deployment_that_is_asked() -> None:
    (row,) = Commits().commit([msgspec.structs.replace(FIRST, deployment="west")]).attempts
    assert row == AttemptRow(1, "up", "m", deployment="west")


def test_each_attempt_has_the_bill_that_the_ledger_has() -> None:
    commits = Commits()
    commits.written(commits.commit([FIRST]))
    commits.billed(entry(1, Usage(1, 2), "failed"))
    commits.billed(entry(2, Usage(3, 4)))
    commit = commits.commit([AGAIN, Text("a"), Finish("stop", Usage(4, 6))])
    assert commit.attempts == (
        AttemptRow(1, "up", "m", usage=Usage(1, 2), outcome="failed"),
        AttemptRow(2, "two", "n", strategy="prefill", usage=Usage(3, 4), outcome="completed"),
    )
    assert commit.finish is not None and commit.finish.usage == Usage(4, 6)


def test_bill_of_an_attempt_that_went_down_is_closed_with_the_next_one_and_settled_once_it_is_written() -> None:
    settled: list[AttemptRow] = []
    commits = Commits(Begun("recovering", True, True, None, (ORPHAN,), settled.extend))
    commit = commits.commit([AGAIN])
    assert [row.outcome for row in commit.attempts] == ["failed", None] and settled == []
    commits.written(commit)
    commits.billed(entry(2, Usage(3, 4)))
    assert settled == [ORPHAN] and commits.used(Usage(100, 100)) == Usage(8, 10, estimated=True)
    commits.written(commits.commit([Text("b"), END]))
    assert settled == [ORPHAN]


def test_attempt_that_is_attached_to_hands_its_bill_on() -> None:
    settled: list[AttemptRow] = []
    commits = Commits(Begun("recovering", True, True, None, (ORPHAN,), settled.extend))
    attach = msgspec.structs.replace(AGAIN, strategy="attach")
    assert [row.n for row in commits.commit([attach]).attempts] == [2]
    (first, _) = sorted(commits.commit([Text("b")]).attempts, key=lambda row: row.n)
    commits.billed(entry(2, Usage(7, 9)))
    assert (first.n, first.outcome, first.usage) == (1, "detached", None)
    assert commits.used(None) == Usage(7, 9) and settled == []


ATTACHED = AttemptRow(2, "up", "m", strategy="attach", usage=Usage(5, 9, estimated=True), outcome="failed")


def test_process_that_goes_down_before_what_it_attached_to_spoke_hands_all_of_the_bill_on() -> None:
    settled: list[AttemptRow] = []
    commits = Commits(Begun("recovering", True, True, None, (ORPHAN, ATTACHED), settled.extend))
    coming = [Attempt(3, "up", "m", "primary", strategy="attach"), Text("b"), END]
    commits.billed(entry(3, Usage(7, 9)))
    assert commits.used(END.usage, coming) == Usage(7, 9)
    commit = commits.commit(coming)
    commits.written(commit)
    bills = {row.n: (row.outcome, row.usage) for row in commit.attempts}
    assert bills == {1: ("detached", None), 2: ("detached", None), 3: ("completed", Usage(7, 9))}
    assert commits.used(None) == Usage(7, 9) and settled == []


def test_bill_of_what_cannot_be_attached_to_any_more_is_that_of_who_read_it_last() -> None:
    settled: list[AttemptRow] = []
    commits = Commits(Begun("recovering", True, True, None, (ORPHAN, ATTACHED), settled.extend))
    coming = [Attempt(3, "up", "m", "primary", strategy="continue")]
    assert commits.used(Usage(1, 1), coming) == Usage(6, 10, estimated=True)
    commit = commits.commit(coming)
    commits.written(commit)
    assert {row.n: row.outcome for row in commit.attempts} == {1: "detached", 2: "failed", 3: None}
    assert settled == [ATTACHED]


def test_attempt_that_could_not_be_attached_to_is_billed_as_failed() -> None:
    settled: list[AttemptRow] = []
    commits = Commits(Begun("recovering", True, True, None, (ORPHAN,), settled.extend))
    commits.written(commits.commit([msgspec.structs.replace(AGAIN, strategy="attach")]))
    commits.written(commits.commit([Attempt(3, "up", "m", "primary", strategy="continue")]))
    assert settled == [ORPHAN]


def test_position_in_the_provider_s_stream_moves_with_what_it_belongs_to_and_is_taken_back() -> None:
    commits = Commits()
    here, there = Upstream("up", "resp_1", "4"), Upstream("up", "resp_1", "5")
    assert commits.commit([Text("a")], here).upstream == here
    assert commits.commit([Status("waiting")], here).upstream is None
    assert commits.commit([Text("b")], there).upstream == there
    assert commits.commit([Text("c")], None).upstream == NOWHERE
    assert commits.commit([Text("d")], None).upstream is None


def test_stream_that_is_left_to_another_process_is_recovering() -> None:
    commits = Commits()
    assert commits.leaving([], None).steps == ()
    assert commits.leaving([FIRST, Text("a")], None).steps == ("running", "recovering")
    commits.written(commits.commit([FIRST, Text("a")]))
    assert commits.leaving([], None).steps == ("recovering",)
    assert commits.leaving([END], None).steps == ("completed",)


def test_place_in_the_stream_of_another_process_is_taken_back_once_another_goes_on() -> None:
    commits = Commits(Begun("recovering", shown=True, upstream=Upstream("up", "resp_1", "3")))
    assert commits.commit([AGAIN], Upstream("up", "resp_1", "3")).upstream is None
    assert commits.commit([Text("b")], None).upstream == NOWHERE
