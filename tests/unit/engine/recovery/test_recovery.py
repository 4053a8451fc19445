"""Going on with an answer that broke, over scripted providers."""

import asyncio
import itertools

import msgspec
import pytest

from cauce.domain.delta import Delta, Finish, Status, Text, ToolCall
from cauce.domain.errors import ProviderFailure
from cauce.domain.request import Prompt, Sampling
from cauce.domain.usage import Usage
from cauce.engine.compose import collect
from cauce.engine.recovery.recovery import recovery
from cauce.ports.provider import Call, Deltas, Open, Policy
from cauce.ports.resilience import RecoverySettings
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, answering
from tests.unit.engine.guarded import ONCE, Guarded, failing, settled

pytestmark = pytest.mark.anyio

LONG = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep for a very long and quiet time. "


class Recovered(Guarded):
    """The cascade with recovery around it, as bootstrap composes it."""

    def __init__(self, *providers: ScriptedProvider, limits: tuple[Policy, ...] = ()) -> None:
        super().__init__(*providers, retries=ONCE, limits=limits)
        self.cascade: Open = self.open
        self.open: Open = recovery(self.clock, RecoverySettings(), self.chance)(self.cascade)

    def asked_for(self, **changes: object) -> Call:
        """A call whose request has `changes`."""
        call = self.call()
        return msgspec.structs.replace(call, request=msgspec.structs.replace(call.request, **changes))

    async def deltas(self, call: Call) -> list[Delta]:
        """All that comes, without waiting for pauses. Raises what it ends with."""

        async def read() -> list[Delta]:
            return [delta async for delta in await self.open(call)]

        reading = asyncio.create_task(read())
        for _ in range(400):
            await settled()
            if reading.done():
                break
            self.clock.advance(1)
        return await reading


async def test_answer_that_is_closed_before_it_is_read_closes_the_upstream_and_is_accounted_for() -> None:
    provider = ScriptedProvider("p", answering("one two three"))
    guarded = Recovered(provider)
    deltas = await guarded.open(guarded.call())
    await deltas.aclose()
    assert provider.closed.is_set()
    assert [entry.outcome for entry in guarded.ledger.entries()] == ["cancelled"]


async def test_usage_has_attempts_that_broke_before_any_of_it_was_shown() -> None:
    script = (Text("And"), failing())
    end = Finish("stop", Usage(10, 4))
    provider = ScriptedProvider("p", (Text(LONG), failing()), script, script, (Text("and more of it."), end))
    guarded = Recovered(provider)
    *_, finish = await guarded.deltas(guarded.call())
    entries = guarded.ledger.entries()
    assert isinstance(finish, Finish) and len(entries) == 4
    assert finish.usage.input_tokens == sum([entry.usage.input_tokens for entry in entries])


class Away(ScriptedProvider):
    """Breaks off once, and is `away` for so many seconds."""

    def __init__(self, away: float) -> None:
        super().__init__("p", (Text(LONG), failing()), (Text("and so it goes on."), Finish("stop", Usage(10, 4))))
        self.clock: FakeClock | None = None
        self.began = 0.0
        self.away = away
        self.tries: list[float] = []
        """Seconds after it broke off."""

    async def open(self, call: Call) -> Deltas:
        if self.clock is not None and self.calls:
            self.tries.append(self.clock.monotonic() - self.began)
            if self.tries[-1] < self.away:
                raise failing()
        return await super().open(call)

    def told(self, clock: FakeClock) -> None:
        """What the time is."""
        self.clock, self.began = clock, clock.monotonic()


@pytest.mark.parametrize("minutes", [0.1, 1, 4])
async def test_answer_waits_minutes_for_its_only_provider_and_asks_it_ever_less_often(minutes: float) -> None:
    provider = Away(60 * minutes)
    guarded = Recovered(provider)
    provider.told(guarded.clock)
    *_, finish = await guarded.deltas(guarded.call())
    assert isinstance(finish, Finish) and finish.outcome == "completed"
    assert len(provider.tries) <= RecoverySettings().attempts
    waits = [later - earlier for earlier, later in itertools.pairwise(provider.tries)]
    # The clock goes by whole seconds.
    assert max(waits) <= 31 and waits[:2] < waits[-2:]


async def test_answer_whose_only_provider_stays_away_ends_with_what_broke_it_and_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = Away(float("inf"))
    guarded = Recovered(provider)
    provider.told(guarded.clock)
    with pytest.raises(ProviderFailure, match="it is down"):
        await guarded.deltas(guarded.call())
    assert RecoverySettings().no_progress - 31 <= provider.tries[-1] <= RecoverySettings().no_progress
    assert len(provider.tries) <= RecoverySettings().attempts
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{len(provider.tries)} attempts to go on with it failed, the last one so: it is down" in warning


async def test_usage_has_attempts_that_began_anew() -> None:
    anew = (Text(LONG), Text(LONG), Finish("stop", Usage(7, 7)))
    provider = ScriptedProvider("p", (Text(LONG), failing()), anew, (Text("and more."), Finish("stop", Usage(10, 4))))
    guarded = Recovered(provider)
    *_, finish = await guarded.deltas(guarded.call())
    entries = guarded.ledger.entries()
    assert isinstance(finish, Finish) and len(entries) == 3
    assert finish.usage.input_tokens == sum([entry.usage.input_tokens for entry in entries])


async def test_usage_of_an_answer_that_its_reader_leaves_is_that_of_all_its_attempts() -> None:
    provider = ScriptedProvider(
        "p", (Text(LONG), failing()), (Text("and then it goes on, and on. " * 9), asyncio.Event())
    )
    guarded = Recovered(provider)
    deltas = await guarded.open(guarded.call())
    await deltas.read()
    await deltas.read()
    await deltas.aclose()
    entries = guarded.ledger.entries()
    assert [entry.outcome for entry in entries] == ["failed", "cancelled"]
    assert deltas.used.input_tokens == sum([entry.usage.input_tokens for entry in entries])


async def test_answer_that_its_provider_cancelled_is_counted_once() -> None:
    end = Finish("cancelled", Usage(10, 4), outcome="cancelled")
    guarded = Recovered(ScriptedProvider("p", (Text("one"), end)))
    *_, finish = await guarded.deltas(guarded.call())
    assert isinstance(finish, Finish) and finish.usage.total_tokens == 14


async def test_prompt_of_which_text_was_shown_ends_with_the_error() -> None:
    provider = ScriptedProvider("p", (Text("one two "), failing()), answering("one two three"))
    guarded = Recovered(provider)
    with pytest.raises(ProviderFailure):
        await guarded.deltas(guarded.asked_for(messages=(), prompt=Prompt("count:")))
    assert len(provider.calls) == 1


async def test_complete_call_of_one_answer_does_not_end_several() -> None:
    script = (ToolCall(0, "c", "f", "{}", mark="ready"), Text("half", choice=1), failing())
    guarded = Recovered(ScriptedProvider("p", script))
    with pytest.raises(ProviderFailure):
        await guarded.deltas(guarded.asked_for(sampling=Sampling(n=2)))


async def test_complete_call_does_not_end_the_answer_of_a_route_that_forbids_it() -> None:
    guarded = Recovered(ScriptedProvider("p", (ToolCall(0, "c", "f", "{}", mark="ready"), failing())))
    call = guarded.call()
    [candidate] = call.candidates
    with pytest.raises(ProviderFailure):
        await guarded.deltas(
            msgspec.structs.replace(call, candidates=(msgspec.structs.replace(candidate, midstream="fail"),))
        )


async def test_text_that_is_held_comes_before_the_call_that_follows_it() -> None:
    calling = (Text("Now."), ToolCall(0, "c", "f", "{}", mark="ready"), Finish("tool_calls", Usage(1, 1)))
    guarded = Recovered(ScriptedProvider("p", (Text(LONG), failing()), calling))
    kinds = [type(delta) for delta in await guarded.deltas(guarded.call())]
    assert kinds == [Text, Status, Text, ToolCall, Finish]


async def test_provider_that_always_fails_after_its_first_word_is_not_asked_for_ever() -> None:
    provider = ScriptedProvider("p", (Text("word and more "), failing()))
    guarded = Recovered(provider)
    with pytest.raises(ProviderFailure):
        await guarded.deltas(guarded.call())
    assert len(provider.calls) == 1 + RecoverySettings().attempts


async def test_plain_answer_passes_as_it_is() -> None:
    guarded = Recovered(ScriptedProvider("p", answering("one two")))
    assert (await collect(await guarded.open(guarded.call(streamed=False)))).choices[0].text == "one two"
