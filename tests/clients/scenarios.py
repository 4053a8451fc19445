"""What every client is put through: the script of the provider, and what must have been seen at both ends."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from cauce.testing.upstream import Ask, Reply, Tokens, Upstream
from cauce.testing.upstream.reply import SIGNATURE, Answer
from tests.clients.py import given
from tests.clients.views import View, view

HELLO = "Hello from upstream."
CALL = Reply(text="", tool_calls=((given.WEATHER, '{"city": "Sevilla"}'),))
TWO_CALLS = Reply(text="", tool_calls=((given.WEATHER, '{"city": "Sevilla"}'), (given.WEATHER, '{"city": "Ávila"}')))
CLEAR = Reply(text="It is clear.")
THOUGHT = Reply(text="Forty two.", reasoning="Six times seven.")
SIGNED_CALL = Reply(text="", reasoning="Ask the tool.", tool_calls=((given.WEATHER, '{"city": "Sevilla"}'),))
ANIMAL = Reply(text='{"name": "cat", "legs": 4}')
COUNTED = Reply(usage=Tokens(input=20, output=9, cached=4, reasoning=3))
VECTORS = Reply(embedding=((0.5, -0.25, 0.125), (1.0, 0.0, -2.0)))
SEVILLA, AVILA = {"city": "Sevilla"}, {"city": "Ávila"}


def animal_by_tool(ask: Ask) -> Reply:
    """The answer as a call of the tool that the client offers for it."""
    tool = next(iter(view(ask.path, ask.body).tools))
    return Reply(text="", tool_calls=((tool, ANIMAL.text),))


class Seen(msgspec.Struct, frozen=True):
    """What happened: what the client saw, and what the provider (`kind`: the one behind Cauce, or `direct`) was asked."""

    kind: str
    client: Any
    asked: tuple[View, ...]


Check = Callable[[Seen], None]
_OTHER = re.compile("embed|count_?tokens|input_tokens", re.IGNORECASE)


class Scenario(msgspec.Struct, frozen=True):
    """`case` is the function of the client's script; `replies` the provider's script; `title` a column of the page."""

    name: str
    title: str
    check: Check
    replies: tuple[Answer, ...] = (Reply(),)
    case: str = ""
    model: str | None = None
    api_key: str | None = None
    leaves: bool = False
    """Whether the client leaves before the end, which the provider must learn at once."""
    direct: bool = True
    """Whether it can be tried without Cauce."""
    without: tuple[str, ...] = ()
    """The kinds of provider that offer nothing of the sort: there the client is told so."""


def views(upstream: Upstream) -> tuple[View, ...]:
    """What the provider was asked, but for what is no generation."""
    asked = zip(upstream.paths, upstream.requests, strict=True)
    return tuple(view(path, body) for path, body in asked if not _OTHER.search(path))


def _plain(seen: Seen) -> None:
    assert seen.client["text"] == HELLO
    assert [one.turns for one in seen.asked] == [(("user", given.SAY_HELLO),)]


def _turns(seen: Seen) -> None:
    assert seen.client["text"] == HELLO
    assert seen.asked[-1].system == given.SYSTEM
    assert seen.asked[-1].turns == given.TURNS


def _tools(seen: Seen) -> None:
    assert seen.client == {"calls": [[given.WEATHER, SEVILLA]], "text": "It is clear."}
    first, second = seen.asked
    assert list(first.tools) == [given.WEATHER] == list(second.tools)
    assert first.turns[0] == ("user", given.ASK_WEATHER) == second.turns[0]
    assert second.calls == ((given.WEATHER, SEVILLA),)
    assert [name for name, _ in second.results] == [given.WEATHER] and "clear" in second.results[0][1]


def _parallel(seen: Seen) -> None:
    # Some clients run the tools at once.
    calls = sorted(seen.client["calls"], key=repr)
    assert {**seen.client, "calls": calls} == {
        "calls": [[given.WEATHER, SEVILLA], [given.WEATHER, AVILA]],
        "text": "It is clear.",
    }
    assert seen.asked[1].calls == ((given.WEATHER, SEVILLA), (given.WEATHER, AVILA))
    assert len(seen.asked[1].results) == 2 and all("clear" in told for _, told in seen.asked[1].results)


def _signed(seen: Seen) -> None:
    assert seen.client == {"calls": [[given.WEATHER, SEVILLA]], "text": "It is clear."}
    if seen.asked[1].wire != "chat":
        # Chat Completions carries no signatures.
        assert seen.asked[1].signatures == (SIGNATURE,)
    assert seen.asked[0].reasons


def _image(seen: Seen) -> None:
    assert seen.client["text"] == HELLO
    assert seen.asked[0].images == (("image/png", given.PNG),)
    assert any(given.LOOK in text for _, text in seen.asked[0].turns)


def _structured(seen: Seen) -> None:
    assert seen.client["value"] == {"name": "cat", "legs": 4}
    schema = seen.asked[0].schema
    assert schema is not None and set(schema["properties"]) == {"name", "legs"}


def _structured_tool(seen: Seen) -> None:
    assert seen.client["value"] == {"name": "cat", "legs": 4}
    assert len(seen.asked[0].tools) == 1


def _reasoning(seen: Seen) -> None:
    assert seen.client == {"text": "Forty two.", "reasoning": "Six times seven."}
    assert seen.asked[0].reasons


def _usage(seen: Seen) -> None:
    told = {name: count for name, count in seen.client.items() if count is not None}
    assert told == {name: count for name, count in COUNTED_AS.items() if name in told}
    assert {"input", "output"} <= set(told)


COUNTED_AS = {"input": 20, "output": 9, "cached": 4, "reasoning": 3, "total": 29}


def _error(status: int, retry_after: str | None = None) -> Check:
    def check(seen: Seen) -> None:
        assert seen.client["error"] is not None, seen.client
        # A program for people may show what went wrong in words only.
        assert seen.client["status"] == status or "does not exist here" in seen.client["error"], seen.client
        if retry_after is not None and "retry_after" in seen.client and seen.kind != "direct":
            assert seen.client["retry_after"] == retry_after, seen.client

    return check


def _refused(status: int) -> Check:
    def check(seen: Seen) -> None:
        _error(status)(seen)
        assert seen.asked == ()

    return check


def _broken(seen: Seen) -> None:
    assert seen.client["error"] is not None, seen.client
    assert seen.client.get("text", "a b ") == "a b " and not seen.client.get("finish"), seen.client


def _cancel(seen: Seen) -> None:
    assert seen.client["text"] == "a b "


def _count(seen: Seen) -> None:
    assert isinstance(seen.client["input"], int) and seen.client["input"] > 0
    assert seen.asked == ()


def _embeddings(seen: Seen) -> None:
    vectors = [list(vector) for vector in VECTORS.embedding]
    assert seen.client["vectors"] == vectors


def not_offered(seen: Seen) -> None:
    """The client was told that the provider has nothing of the sort."""
    assert seen.client["error"] is not None and 400 <= seen.client["status"] < 500, seen.client


def _models(seen: Seen) -> None:
    wanted = {"fake-model"} if seen.kind == "direct" else {"auto", "up/m"}
    assert wanted <= set(seen.client["names"])


_BUSY = Reply(status=429, error={"message": "slow"}, retry_after=7)

SCENARIOS = (
    Scenario("plain", "answer", _plain),
    Scenario("stream", "stream", _plain),
    Scenario("turns", "system prompt, turns", _turns),
    Scenario("tools", "tools", _tools, (CALL, CLEAR)),
    Scenario("tools_stream", "tools, streamed", _tools, (CALL, CLEAR)),
    Scenario("parallel", "two calls at once", _parallel, (TWO_CALLS, CLEAR), case="tools"),
    Scenario("parallel_stream", "two calls, streamed", _parallel, (TWO_CALLS, CLEAR), case="tools_stream"),
    Scenario("signed", "signed reasoning kept", _signed, (SIGNED_CALL, CLEAR)),
    Scenario("signed_stream", "the same, streamed", _signed, (SIGNED_CALL, CLEAR)),
    Scenario("image", "image", _image),
    Scenario("structured", "structured output", _structured, (ANIMAL,)),
    Scenario("structured_stream", "structured output, streamed", _structured, (ANIMAL,)),
    Scenario("structured_tool", "structured output by a tool", _structured_tool, (animal_by_tool,)),
    Scenario("reasoning", "reasoning", _reasoning, (THOUGHT,)),
    Scenario("reasoning_stream", "reasoning, streamed", _reasoning, (THOUGHT,)),
    Scenario("usage", "usage", _usage, (COUNTED,)),
    Scenario("usage_stream", "usage, streamed", _usage, (COUNTED,)),
    Scenario("unknown_model", "unknown model", _refused(404), case="error", model="nope", direct=False),
    Scenario("wrong_key", "wrong key", _refused(401), case="error", api_key="wrong", direct=False),
    Scenario("busy", "429, Retry-After", _error(429, "7"), (_BUSY,), case="error"),
    Scenario("busy_stream", "429, streamed", _error(429, "7"), (_BUSY,), case="error_stream"),
    Scenario("broken", "a broken stream is an error", _broken, (Reply(text="a b c d", cut_after=2),)),
    Scenario("cancel", "cancel", _cancel, (Reply(text="a b c d", stall_after=2),), leaves=True),
    Scenario("count", "token count", _count),
    Scenario("embeddings", "embeddings", _embeddings, (VECTORS,), without=("anthropic",)),
    Scenario("models", "model list", _models),
    Scenario("legacy", "/v1/completions", _plain),
    Scenario("legacy_stream", "/v1/completions, streamed", _plain),
)

TURNS_ONE_BY_ONE = Scenario("turns", "system prompt, turns", _turns, (Reply(text=given.TURNS[1][1]), Reply()))
"""For a client that keeps the conversation itself: its first answer is the first turn."""
