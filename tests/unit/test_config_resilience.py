"""Retry, breaker and recovery of a provider and of a route: who says what, whose word goes before, and how mistakes are told."""

from pathlib import Path

import pytest

from cauce.bootstrap.resilience import breaks, retries
from cauce.bootstrap.sources import make_router
from cauce.config import Config, ConfigError, load
from cauce.domain.request import Request
from cauce.ports.provider import Candidate
from cauce.ports.resilience import BreakerSettings, RecoverySettings, Resilience, RetrySettings
from cauce.providers.fetch import Fetcher, FetchSettings

BOTH = "".join(
    [f'[providers.{name}]\nkind = "openai"\nbase_url = "https://{name}.example/v1"\napi_key = "k"\n' for name in "ab"]
)
ROUTE = '[models.r]\ncandidates = ["a/m", "b/m"]\n'


def read(tmp_path: Path, toml: str, **environment: str) -> Config:
    (tmp_path / "cauce.toml").write_text(toml)
    return load(None, environment, tmp_path)


def candidates(config: Config, model: str) -> dict[str, Candidate]:
    found = make_router(config, Fetcher(FetchSettings())).candidates(Request(model, ()))
    return {candidate.provider.name: candidate for candidate in found}


def test_members_are_taken_from_the_route_then_the_provider_then_what_holds_for_all(tmp_path: Path) -> None:
    toml = (
        "[retry]\nattempts = 2\nbase = 0.5\ncap = 4\n[breaker]\nresults = 7\nwindow = 20\n[recovery]\nattempts = 8\nage = 90\n"
        + BOTH
        + "[providers.a.retry]\nattempts = 5\nbase = 1\n[providers.a.breaker]\nresults = 1\nratio = 1\n"
        + "[providers.a.recovery]\nattempts = 6\nno_progress = 10\n"
        + ROUTE
        + "[models.r.retry]\nattempts = 1\n[models.r.breaker]\nratio = 0.25\n[models.r.recovery]\nattempts = 0\n"
    )
    config = read(tmp_path, toml)
    routed, direct = candidates(config, "r"), candidates(config, "a/m") | candidates(config, "b/m")
    assert {name: one.resilience for name, one in (*routed.items(), *[(f"{k}/m", v) for k, v in direct.items()])} == {
        "a": Resilience(
            RetrySettings(1, 1.0, 4.0),
            BreakerSettings(results=1, window=20.0, ratio=0.25),
            RecoverySettings(0, 10.0, 90.0),
            "r",
        ),
        "b": Resilience(
            RetrySettings(1, 0.5, 4.0),
            BreakerSettings(results=7, window=20.0, ratio=0.25),
            RecoverySettings(0, 300.0, 90.0),
            "r",
        ),
        "a/m": Resilience(
            RetrySettings(5, 1.0, 4.0),
            BreakerSettings(results=1, window=20.0, ratio=1.0),
            RecoverySettings(6, 10.0, 90.0),
        ),
        "b/m": Resilience(
            RetrySettings(2, 0.5, 4.0), BreakerSettings(results=7, window=20.0), RecoverySettings(8, 300.0, 90.0)
        ),
    }


def test_route_that_says_nothing_of_breakers_shares_the_circuits_of_all(tmp_path: Path) -> None:
    config = read(tmp_path, BOTH + ROUTE + "[models.r.retry]\nattempts = 1\n[models.other]\ncandidates = ['a/m']\n")
    assert {one.resilience.route for one in candidates(config, "r").values()} == {""}
    assert candidates(config, "other")["a"].resilience == candidates(config, "a/m")["a"].resilience


def test_route_says_it_for_servers_that_are_found_too(tmp_path: Path) -> None:
    config = read(tmp_path, "[retry]\nbase = 2\n[models.r]\ncandidates = ['ollama/q']\nretry = { attempts = 7 }\n")
    assert config.resilience_of("ollama", "r").retry == RetrySettings(7, 2.0)
    assert config.resilience_of("ollama").retry == RetrySettings(3, 2.0)


def test_variables_set_them_too(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        BOTH + ROUTE,
        CAUCE_PROVIDERS__A__RETRY__ATTEMPTS="4",
        CAUCE_MODELS__R__BREAKER__ENABLED="false",
        CAUCE_MODELS__R__RECOVERY='{"max_cost": 0.5}',
    )
    assert config.resilience_of("a").retry == RetrySettings(4)
    assert config.resilience_of("b", "r") == Resilience(
        RetrySettings(), BreakerSettings(enabled=False), RecoverySettings(max_cost=0.5), "r"
    )


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ("", (False, False)),
        ("[providers.a.retry]\nbase = 1\n[providers.a.breaker]\nresults = 1\n", (False, False)),
        ("[providers.b.retry]\nattempts = 2\n", (True, False)),
        ("[models.r.breaker]\nenabled = true\n", (False, True)),
    ],
)
def test_guard_that_is_off_for_all_is_there_where_one_wants_it(
    tmp_path: Path, more: str, needed: tuple[bool, bool]
) -> None:
    config = read(tmp_path, "[retry]\nattempts = 1\n[breaker]\nenabled = false\n" + BOTH + ROUTE + more)
    assert (retries(config), breaks(config)) == needed


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[providers.a.retry]\natempts = 2", "[providers.a.retry] has no key 'atempts'; did you mean 'attempts'?"),
        ("[providers.a.retry]\nattempts = 0", "providers.a.retry.attempts: expected `int` >= 1"),
        ("[providers.a.retry]\nattempts = 11", "providers.a.retry.attempts: expected `int` <= 10"),
        ("[providers.a]\nretry = 3", "[providers.a.retry] must be a table"),
        ("[providers.a.breaker]\nfailures = 1", "[providers.a.breaker] has no key 'failures'; known are: enabled,"),
        ('[providers.a.breaker]\nenabled = "often"', "providers.a.breaker.enabled: expected `bool | null`, got `str`"),
        ("[providers.a.recovery]\nage = 0", "providers.a.recovery.age: expected `float` > 0.0"),
        ("[models.r.retry]\nbase = -1", "models.r.retry.base: expected `float` >= 0.0"),
        ("[models.r.breaker]\nratio = 2", "models.r.breaker.ratio: expected `float` <= 1.0"),
        ("[models.r.recovery]\nattempt = 1", "[models.r.recovery] has no key 'attempt'; did you mean 'attempts'?"),
        ("[models.r.recovery]\nmax_cost = -1", "models.r.recovery.max_cost: expected `float` >= 0.0"),
    ],
)
def test_mistakes_are_one_sentence_with_their_place(tmp_path: Path, toml: str, told: str) -> None:
    table, _, rest = toml.partition("\n")
    # TOML takes a table's keys once: those of providers.a go into the table that is there.
    whole = (
        BOTH + ROUTE + toml if table != "[providers.a]" else BOTH.replace("[providers.a]\n", f"[providers.a]\n{rest}\n")
    )
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, whole)
    assert str(caught.value).startswith(f"{tmp_path / 'cauce.toml'}: {told}")


def test_mistake_of_a_variable_names_it(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"the variable CAUCE_MODELS__R__RETRY__ATTEMPTS: models\.r\.retry\.attempts: "
    ):
        read(tmp_path, BOTH + ROUTE, CAUCE_MODELS__R__RETRY__ATTEMPTS="often")
