"""What a run makes of bills: the ledgers are held against the end of the stream, and against what the provider served."""

import msgspec
import pytest

from cauce.testing.chaos.attempt import Attempt
from cauce.testing.chaos.bills import is_settled
from cauce.testing.chaos.bounds import Bounds, Outage
from cauce.testing.chaos.invariants import judge
from cauce.testing.chaos.ledgers import Billed, Used
from cauce.testing.chaos.oracle import INPUT_TOKENS
from cauce.testing.chaos.story import Story
from cauce.testing.chaos.text import nonce, written
from tests.unit.testing.test_chaos_judging import BOUNDS, TEXT, frame, frames, story

REPORTED = Billed(Used(1, INPUT_TOKENS, 2))


def billed(bill: Billed) -> Story:
    told = story()
    told.billed = bill
    return told


def cut_short(*, killed: bool = True) -> Story:
    """One that was half written when its server was killed, at 12.0, and that another attempt went on with."""
    second = written(60, nonce(1))
    log = [
        *frames()[:3],
        frame(4, "error", "", retrying=True, strategy="prefill", epoch=2),
        frame(5, "content", second[30:], epoch=2),
        frame(6, "complete", TEXT[:30] + second[30:], usage={"input_tokens": 25, "output_tokens": 32}, epoch=2),
    ]
    told = story(log)
    (first,) = told.attempts
    first.told = first.whole = False
    first.served, first.tokens, first.weight, first.closed = 40, 3, 40.0, 12.0 if killed else 11.0
    more = Attempt("s", 1, "n0", "prefill", 13.0, TEXT[:30], served=60, tokens=2, told=True, whole=True, closed=14.5)
    told.attempts.append(more)
    told.billed = Billed(Used(2, 25, 32), Used(1, 15, 30))
    for reader in told.readers:
        reader.ended_at = 20.0
    return told


KILLED = msgspec.structs.replace(BOUNDS, outages=(Outage("n0", 11.99, 12.5, paused=False),), takeover=3.0)


def wrong(told: Story, bounds: Bounds = BOUNDS) -> list[str]:
    return [found.message for found in judge(told, bounds) if found.invariant == "I7"]


def test_bill_that_the_provider_the_ledger_and_the_stream_agree_on_is_right() -> None:
    assert wrong(billed(REPORTED)) == []
    assert is_settled(cut_short(), cut_short().records(), KILLED) and wrong(cut_short(), KILLED) == []


@pytest.mark.parametrize(
    ("bill", "says"),
    [
        (Billed(), "in the ledgers"),
        (Billed(Used(2, 2 * INPUT_TOKENS, 4)), "in the ledgers"),
        (Billed(Used(1, INPUT_TOKENS, 3)), "of answers that were served whole there are [2]"),
        (Billed(Used(1, 7, 2)), "of answers that were served whole there are [2]"),
        (Billed(Used(1, INPUT_TOKENS, 2), Used(1, INPUT_TOKENS, 2)), "(0, 0) tokens as reported"),
    ],
    ids=["none", "twice", "more than was served", "another input", "estimated though it was reported"],
)
def test_ledger_that_has_something_else_than_was_served_is_found(bill: Billed, says: str) -> None:
    found = wrong(billed(bill))
    assert any([says in message for message in found]), found


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (Used(1, 15, 30), "3 attempts that used something, of 2"),
        (Used(-1, -15, -30), "1 attempts that used something, of 2"),
    ],
    ids=["twice", "never"],
)
def test_attempt_that_went_down_and_is_billed_twice_or_never_is_found(more: Used, says: str) -> None:
    told = cut_short()
    assert told.billed is not None
    told.billed = Billed(told.billed.total + more, told.billed.estimated + more)
    found = wrong(told, KILLED)
    assert len(found) >= 2 and "in the ledgers" in found[0] and says in found[1], found


def test_estimate_of_more_than_was_served_is_found() -> None:
    told = cut_short()
    log = [
        *told.log[:-1],
        frame(6, "complete", told.log[-1].data.decode(), usage={"input_tokens": 25, "output_tokens": 90}),
    ]
    told.replays[0].frames = log
    told.billed = Billed(Used(2, 25, 90), Used(1, 15, 88))
    assert any(["90 tokens of output" in message for message in wrong(told, KILLED)])


@pytest.mark.parametrize(
    "outage",
    [
        Outage("n0", 11.05, 11.5, paused=False),
        Outage("n0", 11.0, 12.0, paused=True, beneath=True),
        Outage("n0", 13.05, 13.5, paused=False),
        Outage("n0", 20.0, 21.0, paused=False),
    ],
    ids=["just after an attempt ended", "while it could write nothing", "just after one began", "at the end"],
)
def test_bill_that_a_server_may_have_died_over_is_not_judged(outage: Outage) -> None:
    told = cut_short(killed=False)
    bounds = msgspec.structs.replace(BOUNDS, outages=(outage,))
    assert not is_settled(told, told.records(), bounds)


def test_outage_of_a_server_that_had_nothing_of_a_stream_leaves_its_bill_to_be_judged() -> None:
    told = cut_short()
    bounds = msgspec.structs.replace(
        KILLED, outages=(*KILLED.outages, Outage("n1", 14.0, 15.0, paused=True)), alone=False
    )
    assert is_settled(told, told.records(), bounds)


def test_bill_of_a_stream_that_somebody_paused_wakes_up_with_is_not_judged() -> None:
    told = cut_short()
    bounds = msgspec.structs.replace(BOUNDS, outages=(Outage("n0", 11.99, 15.0, paused=True),), alone=False)
    assert not is_settled(told, told.records(), bounds)
