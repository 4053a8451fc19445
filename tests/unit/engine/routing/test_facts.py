"""What the router knows of candidates."""

from cauce.catalogue.packaged import PackagedCatalogue
from cauce.catalogue.settings import FactsSettings
from cauce.domain.message import Message, TextPart
from cauce.domain.model import UNKNOWN, ModelFacts
from cauce.domain.request import Request
from cauce.engine.routing import Route, Router, Source
from cauce.ports.provider import ModelInfo, Timeouts
from cauce.testing.scripted import ScriptedProvider, answering


def source(name: str, **settings: object) -> Source:
    return Source(ScriptedProvider(name, answering("x")), **settings)  # pyright: ignore[reportArgumentType]


def facts(router: Router, model: str) -> ModelFacts:
    return router.candidates(Request(model, (Message("user", (TextPart("hi"),)),)))[0].facts


def test_candidates_carry_what_the_catalogue_knows() -> None:
    router = Router((), {}, "auto", PackagedCatalogue({"up/x*": FactsSettings(prefill=True)}))
    router.add(source("up", default_model="gpt-5-mini", vendor="openai"))
    assert facts(router, "up").context_window == 400_000
    assert facts(router, "up/gpt-5-mini").prices is not None
    assert facts(router, "up/x1").prefill is True


def test_window_that_a_server_tells_holds_until_it_tells_another() -> None:
    router = Router((), {}, "auto", PackagedCatalogue())
    for window in (8192, 4096):
        router.add(source("here", models=(ModelInfo("qwen3:8b", window),), vendor="here"))
        assert facts(router, "here/qwen3:8b").context_window == window
    router.remove("here")
    router.add(source("here", models=(ModelInfo("qwen3:8b"),), vendor="here"))
    assert facts(router, "here/qwen3:8b").context_window is None


def test_facts_stay_with_the_candidates_of_a_route() -> None:
    router = Router([Route("fast", ("up/gpt-5-mini",), lambda _: Timeouts(total=1))], {}, "auto", PackagedCatalogue())
    router.add(source("up", vendor="openai"))
    assert facts(router, "fast").reasoning is True


def test_nothing_is_known_without_a_catalogue_or_of_a_model_without_a_name() -> None:
    bare = Router((), {}, "auto")
    bare.add(source("up", vendor="openai"))
    assert facts(bare, "up/gpt-5-mini") is UNKNOWN
    router = Router((), {}, "auto", PackagedCatalogue())
    router.add(source("offline", sole=True))
    assert facts(router, "offline") is UNKNOWN
