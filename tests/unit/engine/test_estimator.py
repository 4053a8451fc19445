"""Factors per model, learned from what providers report."""

import pytest

from cauce.domain.message import ImagePart, Message, TextPart
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens, weigh
from cauce.domain.usage import Usage
from cauce.engine.estimator import Estimator

TEXT = "A stream of values, and everything else is a function around opening it. " * 20


def asking(text: str = TEXT) -> Request:
    return Request("m", (Message("user", (TextPart(text),)),))


def taught(factor: float, times: int = 20, estimator: Estimator | None = None) -> Estimator:
    estimator = estimator or Estimator()
    for _ in range(times):
        estimator.learn(asking(), "up/m", Usage(round(weigh(asking()) * factor), 1))
    return estimator


def test_model_that_nobody_has_heard_of_gets_the_common_estimate() -> None:
    assert Estimator().estimate(asking(), "up/m") == estimate_input_tokens(asking())


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3, 3.0])
def test_factor_is_learned_from_one_answer(factor: float) -> None:
    estimator = taught(factor, times=1)
    assert estimator.estimate(asking(), "up/m") == pytest.approx(weigh(asking()) * factor, rel=0.02)
    assert estimator.estimate(asking(), "up/other") == estimate_input_tokens(asking())


def test_answers_that_vary_are_averaged() -> None:
    estimator = Estimator()
    for round_ in range(60):
        estimator.learn(asking(), "up/m", Usage(round(weigh(asking()) * (1.1 if round_ % 2 else 1.5)), 1))
    assert estimator.estimate(asking(), "up/m") / weigh(asking()) == pytest.approx(1.3, rel=0.08)


def test_one_wild_answer_moves_the_factor_little() -> None:
    estimator = taught(1.2)
    estimator.learn(asking(), "up/m", Usage(round(weigh(asking()) * 100), 1))
    assert estimator.estimate(asking(), "up/m") / weigh(asking()) == pytest.approx(1.2, rel=0.1)


def test_change_for_good_is_followed() -> None:
    estimator = taught(2.0, times=60, estimator=taught(1.0))
    assert estimator.estimate(asking(), "up/m") / weigh(asking()) == pytest.approx(2.0, rel=0.05)


def test_small_request_teaches_less_than_a_large_one() -> None:
    small, large = Estimator(), Estimator()
    small.learn(asking("hi"), "up/m", Usage(round(weigh(asking("hi")) * 3), 1))
    large.learn(asking(), "up/m", Usage(round(weigh(asking()) * 3), 1))
    assert small.estimate(asking(), "up/m") < weigh(asking()) * 1.2 < large.estimate(asking(), "up/m")


def test_nothing_is_learned_from_guesses_and_from_more_than_text() -> None:
    estimator = Estimator()
    estimator.learn(asking(), "up/m", Usage(10_000, 1, estimated=True))
    estimator.learn(asking(), "up/m", Usage(0, 1))
    estimator.learn(Request("m", (Message("user", (ImagePart("https://x/y"),)),)), "up/m", Usage(10_000, 1))
    estimator.learn(Request("m", ()), "up/m", Usage(10_000, 1))
    assert estimator.estimate(asking(), "up/m") == estimate_input_tokens(asking())


def test_all_of_the_first_answers_are_due_and_then_one_in_sixteen() -> None:
    estimator = taught(1.0, times=1)
    due = [estimator.due("up/m") for _ in range(8 + 160)]
    assert all(due[:8]) and sum(due[8:]) == 10
    assert estimator.due("never/heard")


def test_models_are_forgotten_that_were_heard_of_longest_ago() -> None:
    estimator = Estimator(most=2)
    for model in ("a", "b", "a", "c"):
        estimator.learn(asking(), model, Usage(round(weigh(asking()) * 2), 1))
    doubled = [model for model in ("a", "b", "c") if estimator.estimate(asking(), model) > weigh(asking()) * 1.5]
    assert doubled == ["a", "c"]
