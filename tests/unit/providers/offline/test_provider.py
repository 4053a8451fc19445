"""The provider: deltas, bounds, refusals."""

import msgspec
import pytest

from cauce.domain.delta import Delta, Finish, Text
from cauce.domain.errors import ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request, ResponseFormat, Sampling, Scope
from cauce.domain.tool import Tool
from cauce.domain.usage import Usage
from cauce.engine.compose import collect
from cauce.ports.provider import Call, Candidate
from cauce.providers.offline.pages import Page, packaged_pages
from cauce.providers.offline.provider import OfflineProvider

pytestmark = pytest.mark.anyio

QUESTION = "How do I configure a provider?"


@pytest.fixture(scope="module")
def provider() -> OfflineProvider:
    return OfflineProvider(packaged_pages())


def call(provider: OfflineProvider, text: str = QUESTION, sampling: Sampling | None = None) -> Call:
    request = Request("offline", (Message("user", (TextPart(text),)),), sampling or Sampling())
    return Call(request, Scope(), (Candidate(provider, "", "offline"),))


async def test_answer_streams_piece_by_piece_and_ends_with_one_finish(provider: OfflineProvider) -> None:
    batches: list[list[Delta]] = []
    deltas = await provider.open(call(provider))
    while batch := await deltas.read():
        batches.append(list(batch))
    *texts, finish = [delta for batch in batches for delta in batch]
    assert len(batches) > 3
    assert all([isinstance(delta, Text) and delta.text for delta in texts])
    assert isinstance(finish, Finish) and finish.reason == "stop" and finish.outcome == "completed"


async def test_pieces_joined_are_the_collected_text(provider: OfflineProvider) -> None:
    pieces = [delta.text async for delta in await provider.open(call(provider)) if isinstance(delta, Text)]
    completion = await collect(await provider.open(call(provider)))
    assert completion.choices[0].text == "".join(pieces)
    assert "[providers.mistral]" in completion.choices[0].text


async def test_usage_is_counted_and_costs_nothing(provider: OfflineProvider) -> None:
    completion = await collect(await provider.open(call(provider)))
    words = len(completion.choices[0].text.split())
    assert completion.usage == Usage(len(QUESTION.split()), words, cost=0.0, cost_source="priced", estimated=False)


async def test_same_question_gets_the_same_answer(provider: OfflineProvider) -> None:
    first = await collect(await provider.open(call(provider)))
    assert first == await collect(await provider.open(call(OfflineProvider(packaged_pages()))))


@pytest.mark.parametrize("most", [1, 5, 40])
async def test_max_tokens_cuts_the_answer_and_says_so(provider: OfflineProvider, most: int) -> None:
    whole = await collect(await provider.open(call(provider)))
    cut = await collect(await provider.open(call(provider, sampling=Sampling(max_tokens=most))))
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.output_tokens == most == len(cut.choices[0].text.split())
    assert whole.choices[0].text.startswith(cut.choices[0].text)


async def test_max_tokens_that_suffice_change_nothing(provider: OfflineProvider) -> None:
    whole = await collect(await provider.open(call(provider)))
    most = Sampling(max_tokens=whole.usage.output_tokens)
    assert await collect(await provider.open(call(provider, sampling=most))) == whole


async def test_stop_sequence_ends_the_answer_before_it(provider: OfflineProvider) -> None:
    completion = await collect(await provider.open(call(provider, sampling=Sampling(stop=("```toml",)))))
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].text.rstrip().endswith("to configure a provider:")


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
async def test_structured_output_is_refused(provider: OfflineProvider, kind: str) -> None:
    asked = call(provider)
    request = msgspec.structs.replace(asked.request, response_format=ResponseFormat(kind))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ProviderFailure, match="cannot produce structured output") as refused:
        await provider.open(msgspec.structs.replace(asked, request=request))
    assert refused.value.failure == "bad_request"
    assert refused.value.code == "invalid_request"
    assert refused.value.provider == "offline"


async def test_tools_and_plain_text_are_answered_in_text(provider: OfflineProvider) -> None:
    asked = call(provider)
    request = msgspec.structs.replace(
        asked.request, tools=(Tool("get_weather"),), response_format=ResponseFormat("text")
    )
    completion = await collect(await provider.open(msgspec.structs.replace(asked, request=request)))
    assert completion.choices[0].text and not completion.choices[0].tool_calls


async def test_it_has_one_nameless_model_and_counts_tokens(provider: OfflineProvider) -> None:
    assert provider.name == "offline"
    assert await provider.models() == ()
    assert await provider.count_tokens(call(provider, "one two  three").request, "") == 3


async def test_pages_are_those_it_was_given() -> None:
    page = Page("ferry", "en", "# Ferry\n\n## When the ferry leaves\n\nThe ferry leaves at noon.\n")
    provider = OfflineProvider([page])
    completion = await collect(await provider.open(call(provider, "When does the ferry leave?")))
    assert completion.choices[0].text == (
        "The ferry leaves at noon. [1]\n\nSources:\n- [1] Ferry — When the ferry leaves"
    )
    await provider.aclose()


async def test_it_answers_again_after_it_was_closed() -> None:
    provider = OfflineProvider(packaged_pages())
    await provider.aclose()
    await collect(await provider.open(call(provider)))
    await provider.aclose()
    assert (await collect(await provider.open(call(provider)))).choices[0].text
    await provider.aclose()


async def test_answer_that_nobody_reads_to_its_end_can_be_closed(provider: OfflineProvider) -> None:
    deltas = await provider.open(call(provider))
    await deltas.read()
    await deltas.aclose()
    assert await deltas.read() == ()
