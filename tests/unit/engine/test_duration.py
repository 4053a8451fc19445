import pytest

from cauce.engine.duration import in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (59.994, "60 s"),
        (2707.08, "45 minutes"),
        (54_554.96, "15 hours"),
        (1_000_000.0, "12 days"),
    ],
)
def test_times_are_told_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
