"""Names to candidates."""

import pytest

from cauce.domain.errors import ModelNotFound
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.engine.routing import Route, Router, Source
from cauce.ports.provider import ModelInfo, Timeouts
from cauce.testing.scripted import ScriptedProvider, answering


def source(name: str, **settings: object) -> Source:
    return Source(ScriptedProvider(name, answering("x")), **settings)  # pyright: ignore[reportArgumentType]


def router(*sources: Source, routes: tuple[Route, ...] = (), aliases: dict[str, str] | None = None) -> Router:
    made = Router(routes, aliases or {}, "auto")
    for one in sources:
        made.add(one)
    return made


def names(made: Router, model: str, *fallbacks: str) -> list[tuple[str, str]]:
    request = Request(model, (Message("user", (TextPart("hi"),)),), fallbacks=fallbacks)
    return [(candidate.name, candidate.level) for candidate in made.candidates(request)]


OFFLINE = source("offline", sole=True, level="offline")
OPENAI = source("openai", default_model="gpt-5-mini", tier=2)
GEMINI = source("gemini", default_model="flash", tier=1)
OLLAMA = source(
    "ollama",
    local=True,
    models=(ModelInfo("nomic-embed-text"), ModelInfo("big", loaded=False), ModelInfo("small", loaded=True)),
)


def test_auto_asks_tiers_first_then_local_servers_then_offline() -> None:
    assert names(router(OFFLINE, OLLAMA, OPENAI, GEMINI), "auto") == [
        ("gemini/flash", "primary"),
        ("openai/gpt-5-mini", "fallback"),
        ("ollama/small", "fallback"),
        ("ollama/big", "fallback"),
        ("offline", "offline"),
    ]


@pytest.mark.parametrize("model", ["", "auto", "tu-modelo", "default"])
def test_placeholder_names_mean_auto(model: str) -> None:
    assert names(router(OFFLINE, OPENAI), model)[0] == ("openai/gpt-5-mini", "primary")


def test_tier_names_mean_that_providers_default_model() -> None:
    assert names(router(OPENAI), "GPT_5_MINI") == [("openai/gpt-5-mini", "primary")]


def test_tier_name_of_a_provider_that_is_not_there_says_so() -> None:
    with pytest.raises(ModelNotFound, match="stands for 'anthropic', which is not configured"):
        names(router(OPENAI), "CLAUDE_HAIKU")


def test_provider_without_default_model_means_the_first_it_lists() -> None:
    listing = source("up", models=(ModelInfo("text-embedding-3"), ModelInfo("chat-model")))
    assert names(router(OFFLINE, listing), "auto")[0] == ("up/chat-model", "primary")
    assert names(router(listing), "up") == [("up/chat-model", "primary")]


def test_direct_name_has_no_fallback() -> None:
    assert names(router(OFFLINE, OPENAI), "openai/anything-new") == [("openai/anything-new", "primary")]


def test_model_name_alone_is_enough_when_one_provider_has_it() -> None:
    assert names(router(OPENAI, OLLAMA), "small") == [("ollama/small", "primary")]


def test_route_is_taken_literally_and_skips_what_is_away() -> None:
    fast = Route("fast", ("ollama/small", "openai/x"), lambda provider: Timeouts(total=len(provider)))
    made = router(OFFLINE, OPENAI, routes=(fast,))
    assert names(made, "fast") == [("openai/x", "primary")]
    request = Request("fast", (Message("user", (TextPart("hi"),)),))
    assert made.candidates(request)[0].timeouts.total == len("openai")


def test_fallbacks_of_the_request_follow_its_model_once_each() -> None:
    assert names(router(OFFLINE, OPENAI), "openai/a", "openai/b", "openai/a", "offline") == [
        ("openai/a", "primary"),
        ("openai/b", "fallback"),
        ("offline", "offline"),
    ]


def test_aliases_may_stand_for_aliases_but_not_for_ever() -> None:
    assert names(router(OPENAI, aliases={"a": "b", "b": "openai/x"}), "a") == [("openai/x", "primary")]
    with pytest.raises(ModelNotFound):
        names(router(OPENAI, aliases={"a": "b", "b": "a"}), "a")


def test_model_of_a_provider_that_is_not_configured_says_what_would_configure_it() -> None:
    with pytest.raises(
        ModelNotFound, match=r"no provider 'openai' is configured here: set OPENAI_API_KEY, or add \[pro"
    ):
        names(router(OFFLINE, GEMINI), "openai/gpt-5-mini")
    with pytest.raises(ModelNotFound, match=r"no provider 'acme' is configured here: add \[providers.acme\]"):
        names(router(OFFLINE), "acme/m")
    with pytest.raises(
        ModelNotFound, match=r"not configured here: set ANTHROPIC_API_KEY, or add \[providers.anthropic"
    ):
        names(router(OPENAI), "CLAUDE_HAIKU")
    assert names(router(OPENAI), "openai/whatever") == [("openai/whatever", "primary")]


def test_provider_whose_models_are_not_known_is_left_out_of_auto_and_that_is_told() -> None:
    made = router(OFFLINE, OPENAI, source("nameless"))
    assert [(one.name, one.reason) for one in made.decide(Request("auto", ())).left_out] == [("nameless", "unlisted")]
    with pytest.raises(ModelNotFound, match="'nameless' has no default_model, and lists no models now"):
        names(made, "nameless")


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ModelNotFound, match="did you mean 'openai/gpt-5-mini'"):
        names(router(OPENAI), "gpt-5-mini-2")


def test_source_that_is_removed_is_gone_from_every_name() -> None:
    made = router(OFFLINE, OLLAMA)
    assert "ollama/small" in made.names()
    made.remove("ollama")
    assert made.names() == ("auto", "offline")
    with pytest.raises(ModelNotFound):
        names(made, "ollama/small")
