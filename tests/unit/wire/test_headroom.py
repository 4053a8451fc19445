"""What upstreams say in headers of their own limits, each in its own way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.headroom import Headroom, Left
from cauce.wire.headroom import headroom

DATE = {"date": "Sat, 21 Nov 2026 07:00:00 GMT"}


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("7.66s", 7.66), ("1h2m3s", 3723), ("20", 20), ("0.5", 0.5)],
)
def test_durations_are_read_as_openai_groq_and_others_write_them(reset: str, seconds: float) -> None:
    told = headroom({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": reset})
    assert told is not None and told.requests is not None
    assert told.requests.left == 3 and told.requests.seconds == pytest.approx(seconds)


def test_anthropic_s_times_are_taken_from_the_answer_s_own_date() -> None:
    headers = {
        **DATE,
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-21T07:00:30Z",
        "anthropic-ratelimit-input-tokens-remaining": "9000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-21T07:00:10Z",
        "anthropic-ratelimit-output-tokens-remaining": "4000",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-21T07:01:00Z",
    }
    assert headroom(headers) == Headroom(Left(49, 30), Left(4000, 60))


def test_mistral_counts_by_the_minute_without_saying_when_it_ends() -> None:
    headers = {"x-ratelimit-remaining-req-minute": "5", "x-ratelimit-remaining-tokens-minute": "100"}
    assert headroom(headers) == Headroom(Left(5, 60), Left(100, 60))


@pytest.mark.parametrize("reset", ["1795244460", "1795244460000"])
def test_times_since_1970_are_read_in_seconds_and_in_milliseconds(reset: str) -> None:
    told = headroom({**DATE, "x-ratelimit-remaining": "0", "x-ratelimit-reset": reset})
    assert told == Headroom(Left(0, 60), None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"},
        {"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "1s"},
        {"x-ratelimit-remaining-requests": "1"},
        {"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "0"},
        {"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "nonsense"},
        {"anthropic-ratelimit-requests-remaining": "1", "anthropic-ratelimit-requests-reset": "2026-11-21T07:00:30Z"},
        {**DATE, "anthropic-ratelimit-requests-remaining": "1", "anthropic-ratelimit-requests-reset": "T"},
    ],
)
def test_what_says_nothing_is_nothing(headers: dict[str, str]) -> None:
    assert headroom(headers) is None


@given(st.text(), st.text(), st.text())
def test_whatever_the_headers_hold_is_no_error(left: str, reset: str, date: str) -> None:
    for prefix in ("x-ratelimit-remaining-requests", "x-ratelimit-remaining"):
        told = headroom({prefix: left, prefix.replace("remaining", "reset"): reset, "date": date})
        assert told is None or (told.requests is not None and told.requests.seconds > 0)
