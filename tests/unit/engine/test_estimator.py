"""Factors per model, learned from what providers report."""

import msgspec
import pytest

from cauce.domain.message import ImagePart, Message, TextPart
from cauce.domain.request import Prompt, Request, ResponseFormat
from cauce.domain.tokens import PER_MESSAGE, estimate_input_tokens, weigh
from cauce.domain.tool import Tool
from cauce.domain.usage import Usage
from cauce.engine.estimator import Estimator

TEXT = "A stream of values, and everything else is a function around opening it. " * 25


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
def test_factor_is_learned_from_one_long_request(factor: float) -> None:
    estimator = taught(factor, times=1)
    assert estimator.estimate(asking(), "up/m") == pytest.approx(weigh(asking()) * factor, rel=0.02)
    assert estimator.estimate(asking(TEXT * 9), "up/m") == pytest.approx(weigh(asking(TEXT * 9)) * factor, rel=0.02)
    assert estimator.estimate(asking(), "up/other") == estimate_input_tokens(asking())


def test_what_a_provider_puts_around_requests_is_learned_from_short_ones() -> None:
    estimator = taught(1.2)
    short = weigh(asking("Hello there, how are you?"))
    estimator.learn(asking("Hello there, how are you?"), "up/m", Usage(round(short * 1.2) + 190, 1))
    assert estimator.estimate(asking("And you?"), "up/m") == pytest.approx(weigh(asking("And you?")) * 1.2 + 190, abs=2)


def test_tools_and_schemas_have_surroundings_of_their_own() -> None:
    estimator = Estimator()
    tooled = msgspec.structs.replace(asking("hi"), tools=(Tool("f"),))
    schemed = msgspec.structs.replace(
        asking("hi"), response_format=ResponseFormat("json_schema", "x", {"type": "object"})
    )
    estimator.learn(tooled, "up/m", Usage(400, 1))
    estimator.learn(schemed, "up/m", Usage(5, 1))
    assert estimator.estimate(tooled, "up/m") == pytest.approx(400, abs=1)
    assert estimator.estimate(schemed, "up/m") == pytest.approx(5, abs=1)
    assert estimator.estimate(asking("hi"), "up/m") == estimate_input_tokens(asking("hi"))


def test_one_wild_answer_among_others_changes_nothing() -> None:
    estimator = taught(1.2)
    before = estimator.estimate(asking(), "up/m")
    estimator.learn(asking(), "up/m", Usage(round(weigh(asking()) * 100), 1))
    assert estimator.estimate(asking(), "up/m") == before


def test_wild_first_answer_is_forgotten_with_the_second() -> None:
    estimator = Estimator()
    estimator.learn(asking("hi"), "up/m", Usage(9622, 1))
    estimator.learn(asking("hi"), "up/m", Usage(8, 1))
    assert estimator.estimate(asking("hi"), "up/m") == 8


def test_change_for_good_is_followed() -> None:
    estimator = taught(2.0, times=9, estimator=taught(1.0))
    assert estimator.estimate(asking(), "up/m") / weigh(asking()) == pytest.approx(2.0, rel=0.05)


def test_estimate_is_never_below_one() -> None:
    estimator = Estimator()
    schemed = msgspec.structs.replace(
        asking("hi" * 100), response_format=ResponseFormat("json_schema", "x", {"type": "object"})
    )
    estimator.learn(schemed, "up/m", Usage(1, 1))
    less = msgspec.structs.replace(schemed, messages=asking("hi").messages)
    assert estimator.estimate(less, "up/m") == 1


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


def test_what_comes_as_tokens_is_as_many_for_every_model_and_teaches_nothing_of_its_vocabulary() -> None:
    ids = Request("m", (Message("user", (TextPart(""),)),), prompt=Prompt("", tokens=5_000))
    assert Estimator().estimate(ids, "up/m") == Estimator().guess(ids, "up/m") == 5_000 + PER_MESSAGE
    estimator = taught(2.0)
    for _ in range(20):
        estimator.learn(ids, "up/m", Usage(50_000, 1))
    assert estimator.guess(ids, "up/m") == pytest.approx(5_000, abs=20)
    assert estimator.estimate(asking(), "up/m") == pytest.approx(weigh(asking()) * 2, rel=0.02)


def test_text_behind_the_gap_counts_with_the_one_before_it() -> None:
    filled = msgspec.structs.replace(asking("def total("), prompt=Prompt("def total(", TEXT))
    assert taught(1.0).guess(filled, "up/m") > weigh(asking())
