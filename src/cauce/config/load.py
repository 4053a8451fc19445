"""File and environment read into one frozen `Config`; the only reader of either.

Order: defaults, then the file, then `CAUCE_SECTION__KEY` variables. Every mistake, an unknown key included, is one sentence
with the place, the key and what would be right.
"""

import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from cauce.catalogue.settings import FactsSettings
from cauce.config.checks import check
from cauce.config.conversion import convert, known_keys
from cauce.config.shape import (
    AuthSettings,
    CommonTimeouts,
    Config,
    ConfigError,
    DiscoverySettings,
    Environment,
    Kind,
    LogSettings,
    ModelSettings,
    ProviderSettings,
)
from cauce.engine.caching.settings import CacheSettings
from cauce.engine.limit_settings import BudgetsSettings, LimitsSettings
from cauce.engine.queue.settings import QueueSettings
from cauce.engine.streams.settings import ConversationsSettings
from cauce.ports.resilience import BreakerSettings, RecoverySettings, RetrySettings
from cauce.providers.fetch import FetchSettings
from cauce.server.settings import ServerSettings, StreamSettings
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.sqlite.settings import LedgerSettings, ResponsesSettings

FILE = "cauce.toml"
PREFIX = "CAUCE_"
_SEPARATOR = "__"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_SECTIONS: dict[str, type] = {
    "server": ServerSettings,
    "timeouts": CommonTimeouts,
    "streams": StreamSettings,
    "discovery": DiscoverySettings,
    "auth": AuthSettings,
    "log": LogSettings,
    "fetch": FetchSettings,
    "retry": RetrySettings,
    "recovery": RecoverySettings,
    "breaker": BreakerSettings,
    "queue": QueueSettings,
    "limits": LimitsSettings,
    "budgets": BudgetsSettings,
    "redis": RedisSettings,
    "postgres": PostgresSettings,
    "cache": CacheSettings,
    "ledger": LedgerSettings,
    "responses": ResponsesSettings,
    "conversations": ConversationsSettings,
}
_NAMED: dict[str, type] = {"providers": ProviderSettings, "models": ModelSettings}

_BY_THEMSELVES: tuple[tuple[str, Kind, tuple[str, ...], str, str], ...] = (
    ("openai", "openai", ("OPENAI_API_KEY",), "OPENAI_BASE_URL", "https://api.openai.com/v1"),
    ("anthropic", "anthropic", ("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
    (
        "gemini",
        "gemini",
        ("GOOGLE_AI_API_KEY", "GEMINI_API_KEY"),
        "GEMINI_BASE_URL",
        "https://generativelanguage.googleapis.com",
    ),
)
"""Providers that appear when their key is in the environment: name, kind, variables of the key, variable of the address, address."""

_ADDRESSES = {kind: address for _, kind, _, _, address in _BY_THEMSELVES if kind != "openai"}
"""Where kinds with one maker are, unless configured otherwise."""


def load(path: Path | None, environment: Mapping[str, str], folder: Path) -> Config:
    """The configuration: of `path`, else of `CAUCE_CONFIG`, else of `cauce.toml` in `folder`, else the defaults.

    Raises `ConfigError`.
    """
    file = _file(path, environment, folder)
    where = str(file) if file is not None else "the environment"
    raw = _read(file) if file is not None else {}
    overridden = _overlay(raw, environment)
    try:
        return _load(raw, environment, where, _sources(file, overridden))
    except ConfigError as error:
        # A mistake under a key that a variable has set is the variable's.
        for name, key in overridden.items():
            section, _, last = key.rpartition(".")
            if any([told in str(error) for told in (f" {key}", f" [{key}", f"[{section}] has no key '{last}'")]):
                raise ConfigError(str(error).replace(where, f"the variable {name}", 1)) from error
        raise


def _sources(file: Path | None, overridden: Collection[str]) -> tuple[str, ...]:
    variables = [f"variables {', '.join(sorted(overridden))}"] if overridden else []
    return (*([str(file)] if file is not None else []), *variables)


def _load(raw: dict[str, Any], environment: Mapping[str, str], where: str, sources: tuple[str, ...]) -> Config:
    known_keys(raw, {**dict.fromkeys(_SECTIONS), **dict.fromkeys(_NAMED), "facts": None, "aliases": None}, "", where)
    if "durable" in _table(raw, "streams", where):
        raise ConfigError(
            f'{where}: streams.durable: is called store now: "memory" for what was false, "sqlite" for what was true'
        )
    sections = {name: convert(raw.get(name, {}), shape, name, where) for name, shape in _SECTIONS.items()}
    for name, table in _table(raw, "providers", where).items():
        if isinstance(table, dict) and cast(dict[str, Any], table).get("kind") not in (None, *get_args(Kind)):
            kinds = ", ".join(get_args(Kind))
            raise ConfigError(
                f"{where}: providers.{name}.kind: must be one of {kinds} (openai: any OpenAI-compatible server)"
            )
    named = {
        section: {
            _name(name, section, where): convert(value, shape, f"{section}.{name}", where)
            for name, value in _table(raw, section, where).items()
        }
        for section, shape in _NAMED.items()
    }
    config = Config(
        **sections,
        providers=named["providers"],
        models=named["models"],
        facts={
            glob: convert(value, FactsSettings, f'facts."{glob}"', where)
            for glob, value in _table(raw, "facts", where).items()
        },
        aliases=convert(raw.get("aliases", {}), dict[str, str], "aliases", where),
        environment=_environment(environment),
        sources=sources,
        notes=_notes(environment),
    )
    url = _secret(config.redis.url, environment, f"{where}: redis.url")
    database = _secret(config.postgres.url, environment, f"{where}: postgres.url")
    config = msgspec.structs.replace(
        config,
        providers=_with_environment(config.providers, environment, where),
        redis=msgspec.structs.replace(config.redis, url=url),
        postgres=msgspec.structs.replace(config.postgres, url=database),
    )
    check(config, where, {name: _table(raw, name, where).keys() for name in _SECTIONS})
    return config


def _file(path: Path | None, environment: Mapping[str, str], folder: Path) -> Path | None:
    if path is None and environment.get("CAUCE_CONFIG"):
        path = Path(environment["CAUCE_CONFIG"]).expanduser()
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such configuration file; `cauce config init` writes one")
        return path
    found = folder / FILE
    return found if found.is_file() else None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def _overlay(raw: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Lay `CAUCE_SECTION__KEY` variables over `raw`; returns which key each has set. Values that look like JSON are read as such."""
    used: dict[str, str] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or _SEPARATOR not in name:
            continue
        *tables, key = name[len(PREFIX) :].lower().split(_SEPARATOR)
        target = raw
        for table in tables:
            inner: Any = target.setdefault(table, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{name}: {'.'.join(tables)} is not a table in the file")
            target = cast(dict[str, Any], inner)
        target[key] = _value(name, value)
        used[name] = ".".join((*tables, key))
    return used


def _value(name: str, text: str) -> Any:
    if not text.startswith(("[", "{")):
        return text
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name}: begins like JSON but is none: {error}") from error


def _table(raw: dict[str, Any], section: str, where: str) -> dict[str, Any]:
    value = raw.get(section, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: [{section}] must be a table")
    return cast(dict[str, Any], value)


def _name(name: str, section: str, where: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"{where}: [{section}.{name}]: a name has letters, digits, dots, dashes and underscores only")
    return name


def _environment(environment: Mapping[str, str]) -> Environment:
    return Environment(
        environment.get("DEFAULT_LLM_MODEL", ""),
        _number(environment, "DEFAULT_TEMPERATURE", float),
        _number(environment, "DEFAULT_MAX_TOKENS", int, least=1),
        environment.get("OLLAMA_HOST") or None,
        environment.get("FOUNDRY_LOCAL_ENDPOINT") or None,
    )


def _notes(environment: Mapping[str, str]) -> tuple[str, ...]:
    notes: list[str] = []
    for name in environment:
        section, _, key = name.removeprefix(PREFIX).lower().partition("_")
        if name.startswith(PREFIX) and _SEPARATOR not in name and section in {**_SECTIONS, **_NAMED} and key:
            notes.append(f"{name} is not read: write {PREFIX}{section.upper()}{_SEPARATOR}{key.upper()}")
    return tuple(notes)


def _number(environment: Mapping[str, str], name: str, kind: type[Any], least: int = 0) -> Any:
    text = environment.get(name)
    if not text:
        return None
    try:
        value = kind(text)
    except ValueError as error:
        raise ConfigError(f"{name}: must be a number, not {text!r}") from error
    if value < least:
        raise ConfigError(f"{name}: must be at least {least}")
    return value


def _with_environment(
    providers: dict[str, ProviderSettings], environment: Mapping[str, str], where: str
) -> dict[str, ProviderSettings]:
    """`providers` with their secrets filled in, and with those that appear by themselves."""
    found = dict(providers)
    for name, kind, variables, address_variable, address in _BY_THEMSELVES:
        key = next((environment[variable] for variable in variables if environment.get(variable)), "")
        if key and name not in found:
            found[name] = ProviderSettings(kind, environment.get(address_variable) or address, key)
    for name, settings in found.items():
        if not settings.base_url and settings.kind in _ADDRESSES:
            settings = found[name] = msgspec.structs.replace(settings, base_url=_ADDRESSES[settings.kind])
        place = f"{where}: providers.{name}"
        found[name] = msgspec.structs.replace(
            settings,
            api_key=_secret(settings.api_key, environment, f"{place}.api_key"),
            deployments=tuple(
                [
                    msgspec.structs.replace(
                        one, api_key=_secret(one.api_key, environment, f"{place}.deployments[{index}].api_key")
                    )
                    for index, one in enumerate(settings.deployments)
                ]
            ),
        )
    return found


def _secret(given: str, environment: Mapping[str, str], place: str) -> str:
    """`given`, or what the variable holds that it names. Raises `ConfigError`."""
    if not given.startswith("env:"):
        return given
    variable = given.removeprefix("env:")
    secret = environment.get(variable)
    if not secret:
        raise ConfigError(f"{place}: the variable {variable} is not set")
    return secret
