"""What is shown of an attempt that goes on from what another delivered."""

import itertools
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.tokens import weigh_text
from cauce.engine.recovery.seam import HELD_REPEATING, LEAST_OVERLAP, Seam

WORDS = [f"word{number}" for number in range(400)]
DELIVERED = "The river rises in the hills. " + " ".join(WORDS[:120]) + " and then it turns to"
REST = " the sea, " + " ".join(WORDS[200:280]) + "."


def shown(delivered: str, text: str, cuts: list[int] | None = None) -> str | None:
    """What is shown of `text`, fed in pieces; None if it is refused."""
    seam = Seam(delivered)
    places = sorted({0, len(text), *[cut % (len(text) + 1) for cut in cuts or []]})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    for number, piece in enumerate(pieces):
        verdict, kept = seam.feed(piece)
        if verdict in ("anew", "talk"):
            return None
        if verdict == "go on":
            return kept + "".join(pieces[number + 1 :])
    verdict, kept = seam.finish()
    return None if verdict in ("anew", "talk") else kept


@given(st.lists(st.integers(0, 2000), max_size=12))
def test_text_that_simply_goes_on_is_shown_whole(cuts: list[int]) -> None:
    assert shown(DELIVERED, REST, cuts) == REST


@given(st.integers(LEAST_OVERLAP, 600), st.lists(st.integers(0, 2000), max_size=12))
def test_repeated_end_is_dropped_wherever_the_pieces_are_cut(repeated: int, cuts: list[int]) -> None:
    assert shown(DELIVERED, DELIVERED[-repeated:] + REST, cuts) == REST


def test_repetition_in_other_case_and_white_space_is_dropped() -> None:
    repeated = "AND  THEN IT\nTURNS TO"
    assert shown(DELIVERED, repeated + REST) == REST


def test_word_it_broke_off_in_is_not_written_twice() -> None:
    assert shown("It flows to the Mediter", "Mediterranean, " + REST) == "ranean, " + REST


def test_white_space_that_was_delivered_is_not_written_twice() -> None:
    assert shown(DELIVERED + "\n\n", "\n\nNext, " + REST) == "Next, " + REST


def test_attempt_that_begins_the_answer_anew_is_refused() -> None:
    assert shown(DELIVERED, DELIVERED + REST) is None


@pytest.mark.parametrize(
    "words",
    [
        "Sure, here is the rest:\n\n",
        "Continuing from where I left off:\n",
        "Claro, continúo:\n",
        "Here's the continuation: ",
        "Perdón por la interrupción. ",
    ],
)
def test_attempt_that_talks_about_going_on_is_refused(words: str) -> None:
    assert shown(DELIVERED, words + REST) is None


@pytest.mark.parametrize("words", ["surely not, ", "continuous and ", "clarity, ", "sure, ", "claro, ", "sigo recto, "])
def test_words_that_only_begin_so_are_text(words: str) -> None:
    assert shown(DELIVERED, words + REST) == words + REST


def test_short_answer_is_shown_though_it_is_held_to_its_end() -> None:
    assert shown(DELIVERED, " end.") == " end."


def test_what_it_holds_is_bounded() -> None:
    delivered = "na " * 2000
    seam = Seam(delivered)
    fed = 0
    chance = random.Random(5)
    while True:
        piece = "na " * chance.randint(1, 5)
        fed += len(piece)
        verdict, _ = seam.feed(piece)
        if verdict != "hold":
            break
    assert fed <= HELD_REPEATING + 100


def test_what_still_repeats_the_end_is_held_though_it_is_late() -> None:
    seam = Seam(DELIVERED)
    assert seam.feed(DELIVERED[-40:-20], late=True) == ("hold", "")
    assert seam.feed(DELIVERED[-20:] + REST, late=True) == ("go on", REST)


BEGUN = {
    "Chinese": "这条河发源于山中，穿过许多村庄和城镇，两岸长满了柳树与芦苇，然后它慢慢地转向东方，流过广阔的平原，最后流",
    "Japanese": "この川は山に源を発し、多くの村や町を通り抜け、柳と葦の茂る岸辺をゆっくりと東へ向かい、広い平野を流れて",
    "Korean": "이 강은 산에서 시작하여 수많은 마을과 도시를 지나고 버드나무와 갈대가 우거진 강변을 따라 천천히 동쪽으로 흘러",
}
ENDED = {
    "Chinese": "入大海。那里的渔民清晨出海，傍晚归来，在码头上分拣当天的收获，孩子们在沙滩上奔跑。",
    "Japanese": "海へと注ぎます。漁師たちは夜明け前に船を出し、夕方には港へ戻ってその日の獲物を分け合います。",
    "Korean": "바다로 들어간다. 어부들은 새벽에 배를 띄우고 저녁이면 부두로 돌아와 그날 잡은 것을 나눈다.",
}


@pytest.mark.parametrize("language", BEGUN)
def test_text_whose_characters_say_more_is_held_for_as_few_tokens(language: str) -> None:
    seam, fed, kept = Seam(BEGUN[language]), "", ""
    for letter in ENDED[language]:
        fed += letter
        verdict, kept = seam.feed(letter)
        if verdict == "go on":
            break
    assert kept == fed
    assert 12 < weigh_text(kept) < 20


@pytest.mark.parametrize("language", BEGUN)
@given(cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_answer_begun_anew_is_refused_in_every_script_wherever_it_is_cut(language: str, cuts: list[int]) -> None:
    # One that goes another way after its first words: no repetition, which would be dropped.
    anew = BEGUN[language][:30] + ENDED[language]
    assert shown(BEGUN[language], anew, cuts) is None
    assert shown(BEGUN[language], ENDED[language], cuts) == ENDED[language]


@pytest.mark.parametrize("language", BEGUN)
@given(repeated=st.integers(LEAST_OVERLAP, 30), cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_repeated_end_is_dropped_in_every_script(language: str, repeated: int, cuts: list[int]) -> None:
    assert shown(BEGUN[language], BEGUN[language][-repeated:] + ENDED[language], cuts) == ENDED[language]


def plainly(end: str, head: str) -> int:
    """What `head` repeats of `end`, white space and case aside, by its definition: the longest beginning of it that ends as `end` does."""
    for length in range(min(len(head), len(end)), LEAST_OVERLAP - 1, -1):
        loose = loosely(head[:length])
        if not head[length - 1].isspace() and loosely(end).endswith(loose) and len(loose) >= LEAST_OVERLAP:
            return length
    return 0


def loosely(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


letters = st.text(alphabet="aB\u00df \n\u2003\u0130", max_size=30)


@given(
    letters, letters, letters, st.sampled_from([str.lower, str.upper, str.swapcase, lambda one: one.replace(" ", "  ")])
)
def test_loose_repetition_is_the_longest_there_is(
    before: str, repeated: str, rest: str, how: Callable[[str], str]
) -> None:
    end, head = before + repeated, how(repeated) + rest
    seam = Seam(end)
    exactly = max([length for length in range(LEAST_OVERLAP, len(head) + 1) if end.endswith(head[:length])], default=0)
    if not exactly and (longest := plainly(end, head)):
        assert seam._overlap(head) == longest
