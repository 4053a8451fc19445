"""Prompts that are too long, through the policy."""

import pytest

from cauce.domain.delta import Attempt, Finish, Status
from cauce.domain.errors import ContextTooLong, ProviderFailure, may_ask_next
from cauce.domain.message import Message, OpaquePart, TextPart
from cauce.domain.model import ModelFacts
from cauce.domain.request import Request, Sampling, Scope
from cauce.engine.compose import collect, compose
from cauce.engine.estimator import Estimator
from cauce.engine.fallback import fallback
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.overflow import overflow
from cauce.ports.provider import Call, Candidate, Deltas, Overflow
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, Step, answering

pytestmark = pytest.mark.anyio

TURN = "Tell me about rivers, please. The Ebro is 930 km long. " * 8


def too_long(message: str = "This model's maximum context length is 1000 tokens.") -> tuple[Step, ...]:
    return (ProviderFailure(message, failure="bad_request", provider="a", code="context_length_exceeded"),)


def request(turns: int, **fields: object) -> Request:
    messages = [Message("system", (TextPart("Be kind."),))]
    for number in range(turns):
        messages += [
            Message("user", (TextPart(f"{number} {TURN}"),)),
            Message("assistant", (TextPart("Well. " + TURN),)),
        ]
    messages.append(Message("user", (TextPart("And now?"),)))
    return Request("m", tuple(messages), **fields)  # pyright: ignore[reportArgumentType]


class Ways:
    """Candidates behind the policy, and what they were told."""

    def __init__(self, mode: Overflow, *scripts: tuple[ScriptedProvider, int | None]) -> None:
        self.candidates = tuple(
            [
                Candidate(
                    provider,
                    "m",
                    "offline" if provider.name == "offline" else "primary",
                    facts=ModelFacts(window),
                    overflow=mode,
                )
                for provider, window in scripts
            ]
        )
        self.told: list[Status | Attempt] = []

        async def ask(call: Call) -> Deltas:
            return await call.candidate.provider.open(call)

        self.open = compose(ask, fallback(FakeClock()), overflow(Estimator()), attempt())
        self.call = Call(request(0), Scope(), self.candidates)

    async def answer(self, request: Request) -> str:
        self.call = Call(request, Scope(), self.candidates, notice=self.told.append)
        return (await collect(await self.open(self.call))).choices[0].parts[0].text  # pyright: ignore[reportAttributeAccessIssue]


def asked(provider: ScriptedProvider) -> list[list[str]]:
    return [[message.text.split(" ")[0] for message in call.request.messages] for call in provider.calls]


async def test_prompt_that_fits_is_sent_as_it_is() -> None:
    one = ScriptedProvider("a", answering("yes"))
    ways = Ways("truncate", (one, 4000))
    given = request(2)
    assert await ways.answer(given) == "yes"
    assert one.calls[0].request is given


async def test_larger_window_is_asked_without_asking_the_smaller_one() -> None:
    small, large = ScriptedProvider("a", answering("no")), ScriptedProvider("b", answering("yes"))
    ways = Ways("larger", (small, 1000), (large, 100_000))
    assert await ways.answer(request(10)) == "yes"
    assert not small.calls and ways.call.course.attempts == 1


async def test_larger_window_is_asked_when_the_upstream_says_it_is_too_long() -> None:
    small, large = ScriptedProvider("a", too_long()), ScriptedProvider("b", answering("yes"))
    ways = Ways("larger", (small, None), (large, None))
    assert await ways.answer(request(10)) == "yes"


async def test_error_says_how_long_it_is_and_what_to_do() -> None:
    small, other = ScriptedProvider("a", answering("no")), ScriptedProvider("b", answering("no"))
    ways = Ways("larger", (small, 1000), (other, 1200))
    with pytest.raises(
        ContextTooLong, match=r"has about 3,\d{3} tokens, and b/m has a window of 1,200 tokens: shorten it"
    ) as caught:
        await ways.answer(request(13))
    assert caught.value.status == 400 and caught.value.facts["window"] == 1200
    assert not small.calls and not other.calls


@pytest.mark.parametrize("window", [1000, None])
async def test_route_that_wants_an_error_asks_nobody_else(window: int | None) -> None:
    small, large = ScriptedProvider("a", too_long()), ScriptedProvider("b", answering("no"))
    with pytest.raises(ContextTooLong) as caught:
        await Ways("error", (small, window), (large, None)).answer(request(10))
    assert not may_ask_next(caught.value) and not large.calls


@pytest.mark.parametrize("window", [1000, None])
async def test_offline_answerer_takes_nothing_that_was_only_too_long(window: int | None) -> None:
    small, offline = ScriptedProvider("a", too_long()), ScriptedProvider("offline", answering("no"))
    with pytest.raises(ContextTooLong):
        await Ways("larger", (small, window), (offline, None)).answer(request(10))
    assert not offline.calls


async def test_offline_answerer_still_follows_models_that_are_down() -> None:
    small = ScriptedProvider("a", too_long())
    down = ScriptedProvider("b", (ProviderFailure("down", failure="transient", provider="b"),))
    offline = ScriptedProvider("offline", answering("pages"))
    assert await Ways("larger", (small, None), (down, None), (offline, None)).answer(request(10)) == "pages"


async def test_estimate_that_may_be_wrong_is_left_to_the_upstream() -> None:
    one = ScriptedProvider("a", answering("yes"))
    given = request(0)
    text = TextPart("word " * 990)
    given = Request("m", (Message("user", (text,)),))
    assert await Ways("larger", (one, 1000)).answer(given) == "yes"


async def test_oldest_turns_are_left_out_and_the_client_is_told() -> None:
    one = ScriptedProvider("a", answering("yes"))
    ways = Ways("truncate", (one, 1500))
    assert await ways.answer(request(10)) == "yes"
    [words] = asked(one)
    assert words == ["Be", "6", "Well.", "7", "Well.", "8", "Well.", "9", "Well.", "And"]
    dropped = 22 - len(words)
    assert ways.call.course.truncated == dropped
    status = next(told for told in ways.told if isinstance(told, Status))
    assert (status.kind, status.facts["dropped"], status.facts["summarized"]) == ("truncated", dropped, False)


async def test_summary_takes_the_place_of_what_is_left_out() -> None:
    one = ScriptedProvider("a", answering("yes"))
    ways = Ways("summarize", (one, 2000))
    assert await ways.answer(request(10)) == "yes"
    sent = one.calls[0].request.messages
    assert sent[0].text == "Be kind."
    assert sent[1].role == "user" and sent[1].text.startswith(f"[{ways.call.course.truncated} earlier messages")
    assert "The Ebro is 930 km long." in sent[1].text
    assert Estimator().estimate(one.calls[0].request, "a/m") < 2000


async def test_upstream_that_says_its_window_is_believed() -> None:
    message = "This model's maximum context length is 1,000 tokens. However, your messages resulted in 4000 tokens."
    one = ScriptedProvider("a", too_long(message), answering("yes"))
    ways = Ways("truncate", (one, None))
    assert await ways.answer(request(10)) == "yes"
    first, second = [Estimator().estimate(call.request, "a/m") for call in one.calls]
    assert second < first * 0.25


async def test_upstream_that_says_nothing_is_sent_less_twice() -> None:
    one = ScriptedProvider("a", too_long("too long"))
    ways = Ways("truncate", (one, None))
    with pytest.raises(ProviderFailure, match="too long"):
        await ways.answer(request(10))
    sizes = [Estimator().estimate(call.request, "a/m") for call in one.calls]
    assert len(sizes) == 3 and sizes[0] > sizes[1] > sizes[2]


async def test_one_message_that_is_too_long_cannot_be_cut() -> None:
    one = ScriptedProvider("a", answering("no"))
    given = Request("m", (Message("user", (TextPart("word " * 5000),)),))
    with pytest.raises(ContextTooLong):
        await Ways("truncate", (one, 2000)).answer(given)
    assert not one.calls


async def test_room_for_the_answer_counts() -> None:
    one = ScriptedProvider("a", answering("no"))
    given = Request("m", (Message("user", (TextPart("word " * 1300),)),), Sampling(max_tokens=1500))
    with pytest.raises(ContextTooLong, match="beside an answer of 1,500"):
        await Ways("larger", (one, 2000)).answer(given)


async def test_what_only_one_wire_knows_is_left_to_the_upstream() -> None:
    one = ScriptedProvider("a", answering("yes"))
    parts = (TextPart("word " * 9000), OpaquePart("gemini", {"data": "x"}))
    assert await Ways("larger", (one, 1000)).answer(Request("m", (Message("user", parts),))) == "yes"


async def test_other_failures_pass_as_they_are() -> None:
    one = ScriptedProvider("a", (ProviderFailure("bad", failure="bad_request", provider="a"),))
    with pytest.raises(ProviderFailure, match="bad"):
        await Ways("truncate", (one, 1000)).answer(request(0))


async def test_answer_ends_as_usual() -> None:
    one = ScriptedProvider("a", answering("yes"))
    ways = Ways("truncate", (one, 1500))
    deltas = await ways.open(Call(request(10), Scope(), ways.candidates))
    assert isinstance([delta async for delta in deltas][-1], Finish)
