"""Routes and deployments, as the configuration describes them."""

from pathlib import Path

import pytest

from cauce.bootstrap.sources import make_router, measures, source
from cauce.config import Config, ConfigError, ProviderSettings, load
from cauce.domain.request import Request
from cauce.engine.routing.route import Route
from cauce.ports.provider import Timeouts
from cauce.providers.fetch import Fetcher, FetchSettings

UP = '[providers.up]\nkind = "openai"\nbase_url = "https://up.example/v1"\napi_key = "own"\ndefault_model = "m"\n'


def read(tmp_path: Path, toml: str, **environment: str) -> Config:
    (tmp_path / "cauce.toml").write_text(toml)
    return load(None, environment, tmp_path)


def mistake(tmp_path: Path, toml: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, toml, **environment)
    return str(caught.value).removeprefix(f"{tmp_path / 'cauce.toml'}: ")


def test_candidates_may_have_weights(tmp_path: Path) -> None:
    route = '[models.r]\nroute = "balanced"\ncandidates = [{ model = "up/a", weight = 3 }, "up/b"]\n'
    model = read(tmp_path, UP + route).models["r"]
    assert [(entry.model, entry.weight) for entry in model.entries] == [("up/a", 3.0), ("up/b", 1.0)]


def test_old_routes_are_as_they_were(tmp_path: Path) -> None:
    config = read(tmp_path, UP + '[models.r]\ncandidates = ["up/a"]\n')
    assert config.models["r"].route == "ordered" and not measures(config)
    router = make_router(config, Fetcher(FetchSettings()))
    assert router._names.routes["r"] == Route("r", ("up/a",))


@pytest.mark.parametrize("order", ["balanced", "fastest"])
def test_health_is_measured_where_an_order_asks_for_it(tmp_path: Path, order: str) -> None:
    assert measures(read(tmp_path, UP + f'[models.r]\nroute = "{order}"\ncandidates = ["up/a"]\n'))
    assert measures(read(tmp_path, UP + '[[providers.up.deployments]]\nname = "one"\n'))


def test_keys_of_deployments_are_read_from_variables(tmp_path: Path) -> None:
    toml = UP + '[[providers.up.deployments]]\nname = "one"\napi_key = "env:KEY_ONE"\n'
    assert read(tmp_path, toml, KEY_ONE="secret").providers["up"].deployments[0].api_key == "secret"
    assert mistake(tmp_path, toml) == "providers.up.deployments[0].api_key: the variable KEY_ONE is not set"


def test_secrets_of_deployments_are_in_no_repr(tmp_path: Path) -> None:
    toml = UP + '[[providers.up.deployments]]\nname = "one"\napi_key = "sesame"\n'
    assert "sesame" not in repr(read(tmp_path, toml))


def test_deployment_takes_what_it_does_not_say_from_its_provider(tmp_path: Path) -> None:
    toml = UP + '[[providers.up.deployments]]\nname = "here"\nbase_url = "http://127.0.0.1:1/v1"\n'
    toml += '[[providers.up.deployments]]\nname = "there"\nweight = 2.5\n'
    made = source("up", read(tmp_path, toml).providers["up"], Timeouts(), Fetcher(FetchSettings()))
    assert [(one.name, one.here, one.weight) for one in made.deployments] == [
        ("here", True, 1.0),
        ("there", False, 2.5),
    ]
    assert len(made.providers) == 2 and made.default_model == "m"


@pytest.mark.parametrize(
    ("settings", "here"),
    [
        (ProviderSettings("openai", "http://127.0.0.1:11434/v1"), True),
        (ProviderSettings("openai", "http://[::1]:8080/v1"), True),
        (ProviderSettings("openai", "http://localhost:8080/v1"), True),
        (ProviderSettings("openai", "http://models.localhost/v1"), True),
        (ProviderSettings("openai", "http://127.0.0.1:4000/v1", local=False), False),
        (ProviderSettings("openai", "http://192.168.1.20:11434/v1"), False),
        (ProviderSettings("openai", "http://192.168.1.20:11434/v1", local=True), True),
        (ProviderSettings("openai", "http://localhost.example.com/v1"), False),
        (ProviderSettings("openai", "http://127.0.0.1.example.com/v1"), False),
        (ProviderSettings("anthropic", "https://api.anthropic.com"), False),
        (ProviderSettings("offline"), True),
        (ProviderSettings("llamacpp"), True),
    ],
)
def test_a_provider_is_on_this_machine_if_its_address_is(settings: ProviderSettings, here: bool) -> None:
    assert settings.here is here


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[models.r]\n", "models.r.candidates: must name at least one model"),
        (
            '[models.r]\nroute = "quickest"\ncandidates = ["up/a"]\n',
            "models.r.route: must be one of ordered, tiered, balanced, cheapest, fastest, best_rated, hybrid, not 'quickest'",
        ),
        (
            '[models.r]\ncandidates = ["up/a"]\ntasks = { draw = "here" }\n',
            "models.r.tasks.draw: must be local, cloud or one of the candidates of the route, not 'here'",
        ),
        (
            '[models.r]\ncandidates = ["up/a"]\nshort = 9\nlong = 9\n',
            "models.r.short: must be less than long (9): prompts between them are neither",
        ),
        (
            '[models.r]\ncandidates = ["up/a"]\nprivacy = "local"\n',
            'models.r.privacy: none of its candidates is on this machine: add "offline", or a model of a local server',
        ),
        (
            '[models.r]\ncandidates = [{ model = "up/a", weight = 2 }]\n',
            'models.r.candidates: weights are for route = "balanced"',
        ),
        ('[models.r]\ncandidates = [{ model = "nix/a" }]\n', "models.r.candidates: 'nix/a' names no provider"),
        (
            '[models.r]\nroute = "balanced"\ncandidates = [{ model = "up/a", weight = 0 }]\n',
            "models.r.candidates[0].weight: expected `float` > 0.0",
        ),
        ('[models.r]\ncandidates = ["up/a"]\ncomplex = 2\n', "models.r.complex: expected `float` <= 1.0"),
        (
            '[models.r]\ncandidates = ["up/a"]\noverflow = "cut"\n',
            "models.r.overflow: must be one of larger, error, truncate, summarize, not 'cut'",
        ),
        (
            '[[providers.up.deployments]]\nname = "a"\n[[providers.up.deployments]]\nname = "a"\n',
            "providers.up.deployments: two are called 'a': each needs a name of its own",
        ),
        (
            '[[providers.up.deployments]]\nname = "a b"\n',
            "providers.up.deployments[0].name: a name has letters, digits, dots, dashes and underscores only",
        ),
        (
            '[[providers.up.deployments]]\nname = "a"\nbase_url = "up.example"\n',
            "providers.up.deployments[0].base_url: must be an http:// or https:// address, with /v1 at its end",
        ),
        (
            '[[providers.offline.deployments]]\nname = "a"\n[providers.offline]\nkind = "offline"\n',
            "providers.offline.deployments: kind offline runs here, once: it has no deployments",
        ),
    ],
)
def test_mistakes_are_one_sentence_with_their_place(tmp_path: Path, toml: str, told: str) -> None:
    if "[providers.offline]" in toml:
        toml = '[providers.offline]\nkind = "offline"\n[[providers.offline.deployments]]\nname = "a"\n'
    assert mistake(tmp_path, UP + toml).startswith(told)


def test_background_is_for_the_wire_that_has_it(tmp_path: Path) -> None:
    assert mistake(tmp_path, UP + "background = true\n") == (
        'providers.up.background: is for kind = "openai" with wire = "responses" or dialect = "llamacpp"'
    )
    assert "is for kind" in mistake(tmp_path, UP + 'dialect = "vllm"\nbackground = true\n')
    for told, background in (("", None), ("background = true\n", True), ("background = false\n", False)):
        assert read(tmp_path, UP + f'dialect = "llamacpp"\n{told}').providers["up"].background is background
    assert read(tmp_path, UP + 'wire = "responses"\nbackground = true\n').providers["up"].background


@pytest.mark.parametrize("midstream", ["continue", "resume", "restart", "fail"])
def test_route_says_how_far_a_broken_answer_is_gone_on_with(tmp_path: Path, midstream: str) -> None:
    route = f'[models.r]\ncandidates = ["up/a"]\nmidstream = "{midstream}"\n'
    router = make_router(read(tmp_path, UP + route), Fetcher(FetchSettings()))
    assert [candidate.midstream for candidate in router.candidates(Request("r", ()))] == [midstream]


def test_what_the_configuration_says_of_prefill_needs_no_proof(tmp_path: Path) -> None:
    facts = UP + 'dialect = "vllm"\n[facts."up/sure*"]\nprefill = true\n'
    router = make_router(read(tmp_path, facts), Fetcher(FetchSettings()))

    def told(model: str) -> tuple[bool | None, bool]:
        [candidate] = router.candidates(Request(f"up/{model}", ()))
        return candidate.facts.prefill, candidate.facts.prefill_vouched

    assert (told("sure-1"), told("other")) == ((True, True), (True, False))
