"""What can be configured: the values, as they are after reading. Each room declares its own; this composes them."""

from pathlib import Path
from typing import Literal

import msgspec

from cauce.catalogue.settings import FactsSettings
from cauce.ports.provider import Timeouts
from cauce.providers.fetch import FetchSettings
from cauce.providers.llamacpp.settings import LlamaCppSettings
from cauce.server.settings import Key, Period, ServerSettings, StreamSettings

DiscoverableKind = Literal["foundry", "foundry-v1", "ollama", "lmstudio", "llamacpp", "vllm", "openai-compatible"]


Kind = Literal["openai", "anthropic", "gemini", "llamacpp", "offline"]


class ConfigError(Exception):
    """A mistake in the configuration, told in one sentence."""


class TimeoutSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds. In `[providers.*]` and `[models.*]` what is not given is taken from `[timeouts]`."""

    connect: Period | None = None
    first_delta: Period | None = None
    idle: Period | None = None
    total: Period | None = None


class CommonTimeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds. `message` bounds a plain `/llm/message`."""

    connect: Period = 5.0
    first_delta: Period = 60.0
    idle: Period = 30.0
    total: Period = 600.0
    message: Period = 28.0


class ProviderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider. `api_key` may be `env:VARIABLE`; it is never shown.

    `wire` is what an upstream of kind `openai` is spoken to in. `api_version` is that of kinds `anthropic` (a date) and
    `gemini` (`v1` or `v1beta`). `llamacpp` says which files kind `llamacpp` runs, and how. Without `tier` it is that of the kind.
    """

    kind: Kind
    base_url: str = ""
    api_key: str = ""
    dialect: str | None = None
    wire: Literal["chat", "responses"] = "chat"
    api_version: str | None = None
    default_model: str | None = None
    tier: int | None = None
    max_concurrent: int = 0
    llamacpp: LlamaCppSettings | None = None
    timeouts: TimeoutSettings = TimeoutSettings()

    def __repr__(self) -> str:
        return f"ProviderSettings({self.kind}, {self.base_url})"


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public model name: its candidates in order."""

    candidates: tuple[str, ...]
    timeouts: TimeoutSettings | None = None


class DiscoverySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether local servers are looked for, and how often (seconds). `ports` says where, per kind, in place of the usual ones."""

    enabled: bool = True
    interval: Period = 30.0
    ports: dict[DiscoverableKind, tuple[int, ...]] = {}


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """API keys, as `cauce keys new` prints them."""

    keys: tuple[Key, ...] = ()


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Environment(msgspec.Struct, frozen=True):
    """What other people's variables say: defaults for requests, and where local servers were told to be."""

    default_model: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    ollama_host: str | None = None
    foundry_endpoint: str | None = None


class Config(msgspec.Struct, frozen=True):
    """All of it. `sources` says where it was read, for people."""

    server: ServerSettings = ServerSettings()
    providers: dict[str, ProviderSettings] = {}
    models: dict[str, ModelSettings] = {}
    facts: dict[str, FactsSettings] = {}
    """By glob of `provider/model`; of several that hold for a model, the later ones win."""
    aliases: dict[str, str] = {}
    timeouts: CommonTimeouts = CommonTimeouts()
    streams: StreamSettings = StreamSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    auth: AuthSettings = AuthSettings()
    log: LogSettings = LogSettings()
    fetch: FetchSettings = FetchSettings()
    environment: Environment = Environment()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Things a person should know that are no mistakes."""

    @property
    def data_dir(self) -> Path:
        """The data folder."""
        return Path(self.server.data_dir).expanduser()

    def timeouts_of(self, *overrides: TimeoutSettings | None) -> Timeouts:
        """The common timeouts with `overrides` laid over them, the last one strongest."""
        values = {name: getattr(self.timeouts, name) for name in TimeoutSettings.__struct_fields__}
        for override in overrides:
            for name in TimeoutSettings.__struct_fields__:
                value = getattr(override, name) if override is not None else None
                if value is not None:
                    values[name] = value
        return Timeouts(**values)
