"""The circuit of a candidate against a model of ten lines."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cauce.engine.circuits import TRANSITIONS, Circuit
from cauce.ports.resilience import BreakerSettings

SETTINGS = BreakerSettings(window=30, results=5, ratio=0.5, cooldown=5, longest=60, probe=10)


class Modelled(RuleBasedStateMachine):
    """The model keeps every result with its time; the circuit only counts them in slots of three seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(SETTINGS)
        self.now = 3000.0
        self.results: list[tuple[int, bool]] = []
        self.state, self.until, self.cooldown, self.hangs = "closed", 0.0, 5.0, 0.0
        self.forced = False
        self.probe = 0

    def broken(self) -> bool:
        slot = int(self.now / 3)
        recent = [good for at, good in self.results if at > slot - 10]
        return len(recent) >= 5 and recent.count(False) >= 0.5 * len(recent)

    def shut(self) -> None:
        if not self.forced:
            self.cooldown = min(60, self.cooldown * 2)
        self.state, self.until = "open", self.now + self.cooldown

    def expire(self) -> None:
        if self.state == "half_open" and self.now >= self.hangs:
            now, self.now = self.now, self.hangs
            self.shut()
            self.now = now

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 5.0, 10.0, 20.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_call_goes_well(self) -> None:
        self.circuit.good(self.now)
        self.results.append((int(self.now / 3), True))

    @rule(announced=st.sampled_from([None, None, 17.0]))
    def a_call_fails(self, announced: float | None) -> None:
        opened = self.circuit.bad(self.now, "down", announced)
        was = self.state
        if was == "closed":
            self.results.append((int(self.now / 3), False))
            if self.broken():
                self.state, self.until = "open", self.now + (announced or 5.0)
        assert opened == (was != self.state)

    @rule(forced=st.booleans())
    def somebody_asks(self, forced: bool) -> None:
        self.expire()
        admitted = self.circuit.ask(self.now, forced=forced)
        if self.state == "closed":
            assert admitted == 0
        elif self.state == "half_open" or (self.now < self.until and not forced):
            assert admitted is None
        else:
            assert admitted
            self.forced = self.now < self.until
            self.state, self.hangs, self.probe = "half_open", self.now + 10, admitted

    @precondition(lambda self: self.state == "half_open")
    @rule(how=st.sampled_from(["passed", "failed", "left"]))
    def the_probe_ends(self, how: str) -> None:
        if how == "passed":
            self.circuit.passed(self.probe)
            self.state, self.cooldown, self.results = "closed", 5.0, []
        elif how == "failed":
            self.circuit.failed(self.probe, self.now, "still down")
            self.shut()
        else:
            self.circuit.left(self.probe, self.now)
            self.state, self.until = "open", self.now

    @rule(seconds=st.sampled_from([1.0, 60.0, 3600.0]))
    def a_key_is_refused(self, seconds: float) -> None:
        self.circuit.trip(self.now, "no such key", seconds)
        self.state, self.until = "open", self.now + seconds

    @invariant()
    def both_agree(self) -> None:
        assert self.circuit.state == self.state
        if self.state == "open":
            assert self.circuit.until == pytest.approx(self.until)


TestCircuit = Modelled.TestCase


def test_only_listed_transitions_exist() -> None:
    assert {after for (_, _), after in TRANSITIONS.items()} == {"closed", "open", "half_open"}
    assert ("closed", "probed") not in TRANSITIONS and ("closed", "failed") not in TRANSITIONS


def test_a_probe_that_hung_and_answers_after_all_closes_the_circuit() -> None:
    circuit = Circuit(SETTINGS)
    circuit.trip(0, "down", 5)
    probe = circuit.ask(5)
    assert probe and circuit.ask(14) is None
    assert circuit.ask(15) is None and circuit.state == "open"
    assert circuit.passed(probe) and circuit.state == "closed"


def test_a_late_probe_says_nothing_of_the_one_under_way() -> None:
    circuit = Circuit(SETTINGS)
    circuit.trip(0, "down", 5)
    first = circuit.ask(5)
    circuit.ask(15)
    second = circuit.ask(25)
    assert first and second and circuit.state == "half_open"
    circuit.failed(first, 26, "late")
    assert not circuit.passed(first) and circuit.state == "half_open"
