"""Limits, budgets and Redis as the configuration says them."""

import tomllib

import pytest

from cauce.bootstrap.limiting import Counting, limiting
from cauce.bootstrap.sources import make_router
from cauce.cli.config import _shown
from cauce.config import Config, ConfigError
from cauce.engine.estimator import Estimator
from cauce.engine.policies.limit import Limiting
from cauce.ports.provider import Candidate
from cauce.providers.fetch import Fetcher
from cauce.system.clock import SystemClock
from cauce.telemetry.prometheus import PrometheusMetrics
from tests.serving import configured, upstream_table

HERE = upstream_table("up", "http://127.0.0.1:9/v1")


def built(config: Config) -> Limiting | None:
    counting = Counting(SystemClock(), PrometheusMetrics(), Estimator())
    return limiting(config, counting)


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[limits.models.gpt]\nconcurrent = 1", 'limits.models."gpt": must be a glob of provider/model'),
        (
            '[limits.models."up/*"]\nconcurent = 1',
            """[limits.models."up/*"] has no key 'concurent'; did you mean 'concurrent'?""",
        ),
        ('[limits.models]\n"up/*" = 3', '[limits.models."up/*"] must be a table'),
        ('[limits.keys."*"]\nrequests_per_minute = -1', 'limits.keys."*".requests_per_minute: expected `float` >= 0'),
        ('[budgets.keys."*"]\nweek = 1', """[budgets.keys."*"] has no key 'week'"""),
        ("[budgets]\nassumed_output = 0", "budgets.assumed_output"),
        ('[redis]\nurl = "localhost:6379"', "redis.url: must begin with redis://"),
        ('[redis]\nurl = "env:NO_SUCH"', "redis.url: the variable NO_SUCH is not set"),
        ('[redis]\nurl = "redis://127.0.0.1:port/0"', "redis.url: must be an address"),
        ('[redis]\nurl = "redis://127.0.0.1:99999/0"', "redis.url: must be an address"),
        ("[redis]\nnodes = 0", "redis.nodes"),
        ('[cache]\nscope = "user"', "cache.scope: must be one of tenant, key, not 'user'"),
        ("[ledger]\nkeep_attempts = 40000\nkeep_rollups = 40000", "ledger.keep_attempts: expected `int` <= 36500"),
    ],
)
def test_mistakes_are_told_with_their_place(toml: str, told: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        configured(toml)
    assert told in str(mistake.value) and "\n" not in str(mistake.value)


def test_address_of_redis_may_come_from_a_variable_and_is_never_shown() -> None:
    config = configured('[redis]\nurl = "env:OUR_REDIS"\nnodes = 3', {"OUR_REDIS": "redis://:secret@127.0.0.1/0"})
    assert config.redis.url.endswith("secret@127.0.0.1/0") and "secret" not in repr(config)


def test_what_holds_is_shown_without_the_address_of_redis() -> None:
    toml = '[limits.keys."*"]\nconcurrent = 4\n[budgets.users."*"]\nday = 1\n[redis]\nurl = "redis://:secret@127.0.0.1/0"\n'
    shown = "\n".join(_shown(configured(toml)))
    held = tomllib.loads(shown)
    assert held["redis"]["url"] == "***" and "secret" not in shown
    assert held["limits"]["keys"]["*"]["concurrent"] == 4 and held["budgets"]["users"]["*"]["day"] == 1


def test_nothing_is_counted_where_nothing_is_limited() -> None:
    assert built(configured(HERE)) is None
    assert built(configured(upstream_table("up", "http://127.0.0.1:9/v1", max_concurrent=2))) is not None


@pytest.mark.parametrize(
    ("variable", "model", "expected"),
    [
        ("GEMINI_API_KEY", "gemini-2.5-flash", (60, 100_000)),
        ("OPENAI_API_KEY", "gpt-5-mini-2025-08-07", (30, 50_000)),
        ("ANTHROPIC_API_KEY", "claude-haiku-4-5", (50, 80_000)),
        ("OPENAI_API_KEY", "gpt-5", ()),
    ],
)
def test_fresh_configuration_has_starting_values_for_the_small_models_of_the_makers(
    variable: str, model: str, expected: tuple[float, ...]
) -> None:
    config = configured("", {variable: "k"})
    limits = built(config)
    assert limits is not None
    source = make_router(config, Fetcher(config.fetch)).source(variable.partition("_")[0].lower())
    assert source is not None
    assert (
        tuple([limit.most for limit in limits.book.of_candidate(Candidate(source.provider, model)).limits]) == expected
    )


def test_starting_values_hold_at_the_makers_own_addresses_only() -> None:
    toml = '[providers.anthropic]\nkind = "anthropic"\nbase_url = "https://proxy.example.org"\napi_key = "k"\n'
    config = configured(toml)
    limits = built(config)
    source = make_router(config, Fetcher(config.fetch)).source("anthropic")
    assert limits is not None and source is not None
    assert limits.book.of_candidate(Candidate(source.provider, "claude-haiku-4-5")).limits == ()
