"""What no single field can tell: whether the parts of a configuration fit each other."""

import re
from collections.abc import Collection, Mapping
from math import inf
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cauce.catalogue.settings import FactsSettings
from cauce.config.overrides import given
from cauce.config.shape import Config, ConfigError, ModelSettings, ProviderSettings
from cauce.providers.openai_compatible.dialect import DIALECTS
from cauce.server.leaving import FORMS, parse_leaving

_HASH = re.compile(r"sha256:[0-9a-fA-F]{64}")
_DEPLOYMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_POSTGRES = ("postgresql://", "postgres://")
_REDIS = ("redis://", "rediss://", "unix://")
_GOING_ON = 'wire = "responses" or dialect = "llamacpp"'
_PARTS = ("connect", "first_delta", "idle", "stalled")
"""Timeouts of a part of a call."""
_LOCAL_PREFIXES = ("ollama", "lmstudio", "llamacpp", "vllm", "foundry", "local-")


def check(config: Config, where: str, said: Mapping[str, Collection[str]]) -> None:
    """Raises `ConfigError` for the first thing that does not fit. `where` is where the configuration was read, and `said` are the members
    of its tables that were given there: a default contradicts nobody."""
    _check_bounds(config, where, said)
    for name, provider in config.providers.items():
        place = f"{where}: providers.{name}"
        if provider.kind == "offline" and name != "offline":
            raise ConfigError(f"{place}: the offline answerer is always called offline")
        _check_files(provider, place)
        if provider.kind not in ("offline", "llamacpp"):
            _check_address(provider.base_url, f"{place}.base_url", "with" if provider.kind == "openai" else "without")
        if provider.dialect is not None and provider.dialect not in DIALECTS:
            raise ConfigError(f"{place}.dialect: must be one of {', '.join(DIALECTS)}, not {provider.dialect!r}")
        if provider.background and not _goes_on(provider):
            raise ConfigError(f'{place}.background: is for kind = "openai" with {_GOING_ON}')
        _check_deployments(provider, place)
    for name, model in config.models.items():
        _check_route(config, model, f"{where}: models.{name}")
    for glob, facts in config.facts.items():
        _check_facts(glob, facts, f'{where}: facts."{glob}"')
    for glob in config.limits.models:
        _check_glob(glob, f'{where}: limits.models."{glob}"')
    if config.redis.url and not config.redis.url.startswith(_REDIS):
        raise ConfigError(f"{where}: redis.url: must begin with {', '.join(_REDIS)} (or be env:VARIABLE)")
    if config.redis.url and not _has_port(config.redis.url):
        raise ConfigError(f"{where}: redis.url: must be an address such as redis://127.0.0.1:6379/0")
    _check_streams(config, where)
    for name, target in config.aliases.items():
        if target not in config.models and target not in config.aliases:
            _check_target(config, target, f"{where}: aliases.{name}")
        if name in _circle(config.aliases, name):
            raise ConfigError(
                f"{where}: aliases.{name}: stands for itself: {' -> '.join(_circle(config.aliases, name))}"
            )
    if config.ledger.keep_rollups < config.ledger.keep_attempts:
        raise ConfigError(
            f"{where}: ledger.keep_rollups: must be at least keep_attempts ({config.ledger.keep_attempts}): sums are what is left"
        )
    names = [key.name for key in config.auth.keys]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: auth.keys: two keys are called {name!r}: their holders would share streams")
    principals = [key.scope.principal for key in config.auth.keys]
    for index, principal in enumerate(principals):
        if principal in principals[:index]:
            raise ConfigError(
                f"{where}: auth.keys[{index}]: name and tenant read {principal!r} as another key's do: take one without a slash"
            )
    for index, key in enumerate(config.auth.keys):
        if _HASH.fullmatch(key.hash) is None:
            raise ConfigError(f"{where}: auth.keys[{index}].hash: must be sha256: and 64 hex digits (`cauce keys new`)")


def _check_bounds(config: Config, where: str, said: Mapping[str, Collection[str]]) -> None:
    """Raises `ConfigError` where one table has two members of which one could never be reached."""
    tables: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (
            where + ": ",
            {name: getattr(config.breaker, name) for name in said["breaker"]},
            {name: getattr(config.timeouts, name) for name in said["timeouts"]},
        )
    ]
    for section, named in (("providers", config.providers), ("models", config.models)):
        tables += [
            (f"{where}: {section}.{name}.", given(own.breaker), given(own.timeouts)) for name, own in named.items()
        ]
    for place, breaker, timeouts in tables:
        if breaker.get("cooldown", 0) > breaker.get("longest", inf):
            raise ConfigError(
                f"{place}breaker.cooldown: must be at most longest ({breaker['longest']:g}): it begins with it"
            )
        total = timeouts.get("total", inf)
        # What is in the log of streams has another bound for the whole.
        whole = max(total, timeouts.get("logged", config.timeouts.logged))
        for name in _PARTS:
            if timeouts.get(name, 0) > whole:
                raise ConfigError(
                    f"{place}timeouts.{name}: must be at most total ({total:g}), or logged for what is in the log: a call ends before"
                )


def _check_streams(config: Config, where: str) -> None:
    store, address = config.streams.store, config.postgres.url
    if address and not address.startswith(_POSTGRES):
        raise ConfigError(f"{where}: postgres.url: must begin with {' or '.join(_POSTGRES)} (or be env:VARIABLE)")
    if store == "postgres" and not address:
        raise ConfigError(f'{where}: streams.store: "postgres" needs the address of the database: set [postgres] url')
    if store == "redis" and not config.redis.url:
        raise ConfigError(f'{where}: streams.store: "redis" needs the address of the server: set [redis] url')
    if config.streams.folder and store != "sqlite":
        raise ConfigError(f'{where}: streams.folder: is for store = "sqlite", not {store!r}')


def _check_deployments(provider: ProviderSettings, place: str) -> None:
    names = [deployment.name for deployment in provider.deployments]
    if names and provider.kind in ("offline", "llamacpp"):
        raise ConfigError(f"{place}.deployments: kind {provider.kind} runs here, once: it has no deployments")
    for index, deployment in enumerate(provider.deployments):
        if _DEPLOYMENT.fullmatch(deployment.name) is None:
            raise ConfigError(
                f"{place}.deployments[{index}].name: a name has letters, digits, dots, dashes and underscores only"
            )
        if names.count(deployment.name) > 1:
            raise ConfigError(f"{place}.deployments: two are called {deployment.name!r}: each needs a name of its own")
        if deployment.base_url:
            version = "with" if provider.kind == "openai" else "without"
            _check_address(deployment.base_url, f"{place}.deployments[{index}].base_url", version)


def _check_route(config: Config, model: ModelSettings, place: str) -> None:
    names = model.names
    if not names and model.route != "hybrid":
        raise ConfigError(f"{place}.candidates: must name at least one model")
    for name in names:
        _check_target(config, name, f"{place}.candidates")
    if model.privacy == "local" and names and all([_is_elsewhere(config, name) for name in names]):
        raise ConfigError(
            f'{place}.privacy: none of its candidates is on this machine: add "offline", or a model of a local server'
        )
    if model.on_disconnect and parse_leaving(model.on_disconnect) is None:
        raise ConfigError(f"{place}.on_disconnect: must be {FORMS}, not {model.on_disconnect!r}")
    for task, first in model.tasks.items():
        if first not in ("local", "cloud", *names):
            raise ConfigError(
                f"{place}.tasks.{task}: must be local, cloud or one of the candidates of the route, not {first!r}"
            )
    if model.short is not None and model.long is not None and model.short >= model.long:
        raise ConfigError(f"{place}.short: must be less than long ({model.long}): prompts between them are neither")
    if model.route != "balanced" and any([entry.weight != 1 for entry in model.entries]):
        raise ConfigError(f'{place}.candidates: weights are for route = "balanced"')


def _check_glob(glob: str, place: str) -> None:
    if "/" not in glob and not glob.startswith("*"):
        raise ConfigError(f'{place}: must be a glob of provider/model, such as "openai/{glob}" or "*/{glob}"')


def _check_facts(glob: str, facts: FactsSettings, place: str) -> None:
    _check_glob(glob, place)
    prices = (facts.input_price, facts.output_price, facts.cached_price, facts.cache_write_price)
    if prices[:2].count(None) == 1 or (prices[:2] == (None, None) and prices != (None,) * 4):
        missing = "output_price" if facts.output_price is None and facts.input_price is not None else "input_price"
        raise ConfigError(f"{place}.{missing}: must be given: input_price and output_price stand together")


def _goes_on(provider: ProviderSettings) -> bool:
    """Whether its answers can go on there whoever reads them."""
    kept = provider.dialect is not None and DIALECTS[provider.dialect].streams is not None
    return provider.kind == "openai" and (provider.wire == "responses" or kept)


def _check_files(provider: ProviderSettings, place: str) -> None:
    if (provider.kind == "llamacpp") != (provider.llamacpp is not None):
        raise ConfigError(f"{place}: kind llamacpp and a table [….llamacpp] with the models it runs belong together")
    if provider.llamacpp is not None and not provider.llamacpp.models:
        raise ConfigError(f"{place}.llamacpp.models: must name at least one GGUF file")


def _circle(aliases: Mapping[str, str], name: str) -> list[str]:
    """What `name` stands for, step by step, until a name that is no alias or that was there before."""
    steps = [aliases[name]]
    while steps[-1] in aliases and aliases[steps[-1]] not in steps:
        steps.append(aliases[steps[-1]])
    return steps


def _has_port(address: str) -> bool:
    """Whether the port in `address` is one, if it has any."""
    try:
        return urlsplit(address).port != 0
    except ValueError:
        return False


def _check_address(address: str, place: str, version: str) -> None:
    if not address:
        raise ConfigError(
            f"{place}: is missing: give the http:// or https:// address of the service, {version} /v1 at its end"
        )
    try:
        url = urlsplit(address)
        sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(f"{place}: must be an http:// or https:// address, {version} /v1 at its end")
    if urlsplit(address).username is not None:
        raise ConfigError(f"{place}: must not hold a user or password: put the key into api_key")


def _is_elsewhere(config: Config, name: str) -> bool:
    provider = config.providers.get(name.partition("/")[0])
    if provider is None:
        return False
    places = [deployment.base_url or provider.base_url for deployment in provider.deployments] or [provider.base_url]
    return not any([msgspec.structs.replace(provider, base_url=place).here for place in places])


def _check_target(config: Config, name: str, place: str) -> None:
    provider = name.partition("/")[0]
    known = (*config.providers, "offline", "auto")
    if provider not in known and not provider.startswith(_LOCAL_PREFIXES):
        raise ConfigError(f"{place}: {name!r} names no provider; known are: {', '.join(dict.fromkeys(known))}")
