"""What can be configured: the values, as they are after reading. Each room declares its own; this composes them."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from cauce.catalogue.settings import FactsSettings
from cauce.config.overrides import BreakerOverrides, RecoveryOverrides, RetryOverrides, given, laid_over
from cauce.engine.caching.settings import CacheSettings
from cauce.engine.limit_settings import BudgetsSettings, Count, LimitsSettings
from cauce.engine.queue.settings import QueueSettings
from cauce.engine.routing.route import Order, Side
from cauce.engine.streams.settings import ConversationsSettings
from cauce.ports.provider import Midstream, Overflow, Timeouts
from cauce.ports.resilience import BreakerSettings, RecoverySettings, Resilience, RetrySettings
from cauce.providers.fetch import FetchSettings
from cauce.providers.llamacpp.settings import LlamaCppSettings
from cauce.server.gate import is_loopback
from cauce.server.settings import Key, Period, ServerSettings, StreamSettings
from cauce.stores.postgres.settings import PostgresSettings
from cauce.stores.redis.settings import RedisSettings
from cauce.stores.sqlite.settings import LedgerSettings, ResponsesSettings

Weight = Annotated[float, msgspec.Meta(gt=0)]

DiscoverableKind = Literal["foundry", "foundry-v1", "ollama", "lmstudio", "llamacpp", "vllm", "openai-compatible"]


Kind = Literal["openai", "anthropic", "gemini", "llamacpp", "offline"]


class ConfigError(Exception):
    """A mistake in the configuration, told in one sentence."""


class TimeoutSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds. What is not given in `[providers.*]` is taken from `[timeouts]`, and what is not given in `[models.*]` from the provider."""

    connect: Period | None = None
    first_delta: Period | None = None
    idle: Period | None = None
    stalled: Period | None = None
    total: Period | None = None
    logged: Period | None = None


class CommonTimeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds. `message` bounds a plain `/llm/message`, `logged` in place of `total` what is in the log of streams."""

    connect: Period = 5.0
    first_delta: Period = 60.0
    idle: Period = 30.0
    stalled: Period = 300.0
    total: Period = 600.0
    logged: Period = 86_400.0
    message: Period = 28.0


class DeploymentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several keys or places of a provider. What is not given is the provider's own; limits are of this deployment alone."""

    name: str
    api_key: str = ""
    base_url: str = ""
    weight: Weight = 1.0
    requests_per_minute: Annotated[float, msgspec.Meta(ge=0)] | None = None
    tokens_per_minute: Annotated[float, msgspec.Meta(ge=0)] | None = None
    max_concurrent: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __repr__(self) -> str:
        return f"DeploymentSettings({self.name}, {self.base_url})"


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
    background: bool | None = None
    """Streamed answers go on there whoever reads them, so that they can be attached to again: on the wire `responses`, and on servers of
    a dialect that keep streams. None: on such servers only."""
    api_version: str | None = None
    default_model: str | None = None
    tier: int | None = None
    max_concurrent: Count = 0
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    llamacpp: LlamaCppSettings | None = None
    local: bool | None = None
    """Whether what it is asked stays on this machine. None: whether its address does."""
    deployments: tuple[DeploymentSettings, ...] = ()
    timeouts: TimeoutSettings = TimeoutSettings()
    retry: RetryOverrides = RetryOverrides()
    breaker: BreakerOverrides = BreakerOverrides()
    recovery: RecoveryOverrides = RecoveryOverrides()

    def __repr__(self) -> str:
        return f"ProviderSettings({self.kind}, {self.base_url})"

    @property
    def here(self) -> bool:
        """Whether what it is asked stays on this machine."""
        if self.local is not None:
            return self.local
        host = urlsplit(self.base_url).hostname or ""
        return self.kind in ("offline", "llamacpp") or host.endswith(".localhost") or is_loopback(host)


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate with its share under `route = "balanced"`."""

    model: str
    weight: Weight = 1.0


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public model name: its candidates, and by what rules they are put in order. See `engine.routing.route.Route`.

    A hybrid route that lists none has those of `auto`.
    """

    candidates: tuple[str | ModelEntry, ...] = ()
    route: Order = "ordered"
    privacy: Literal["local", "any"] = "any"
    prefer: Side | None = None
    tasks: dict[str, str] = {}
    short: Annotated[int, msgspec.Meta(ge=0)] | None = None
    long: Annotated[int, msgspec.Meta(ge=1)] | None = None
    complex: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    hedge: Period | None = None
    overflow: Overflow = "larger"
    midstream: Midstream = "continue"
    on_disconnect: str = ""
    """What becomes of a logged stream that nobody reads any more (empty: what its surface does)."""
    buffer: bool = False
    """Nobody is shown anything of an answer before its end."""
    timeouts: TimeoutSettings = TimeoutSettings()
    retry: RetryOverrides = RetryOverrides()
    breaker: BreakerOverrides = BreakerOverrides()
    recovery: RecoveryOverrides = RecoveryOverrides()

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """The candidates, each with its weight."""
        return tuple([ModelEntry(one) if isinstance(one, str) else one for one in self.candidates])

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates."""
        return tuple([entry.model for entry in self.entries])


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
    retry: RetrySettings = RetrySettings()
    recovery: RecoverySettings = RecoverySettings()
    breaker: BreakerSettings = BreakerSettings()
    queue: QueueSettings = QueueSettings()
    limits: LimitsSettings = LimitsSettings()
    budgets: BudgetsSettings = BudgetsSettings()
    redis: RedisSettings = RedisSettings()
    postgres: PostgresSettings = PostgresSettings()
    cache: CacheSettings = CacheSettings()
    ledger: LedgerSettings = LedgerSettings()
    responses: ResponsesSettings = ResponsesSettings()
    conversations: ConversationsSettings = ConversationsSettings()
    environment: Environment = Environment()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Things a person should know that are no mistakes."""

    @property
    def data_dir(self) -> Path:
        """The data folder."""
        return Path(self.server.data_dir).expanduser()

    def timeouts_of(self, provider: str = "", route: str = "") -> Timeouts:
        """How long `provider` is waited for, asked by its own name or for `route`: the route's word goes before the provider's, and
        that before the common one."""
        common = Timeouts(**{name: getattr(self.timeouts, name) for name in Timeouts.__struct_fields__})
        layers = (self.providers.get(provider, _SILENT), self.models.get(route, _SILENT))
        return laid_over(common, [layer.timeouts for layer in layers])

    def resilience_of(self, provider: str, route: str = "") -> Resilience:
        """What the failures of `provider` are met with, asked by its own name or for `route`: the route's word goes before the
        provider's, and that before the common one."""
        own = self.models.get(route, _SILENT)
        layers = (self.providers.get(provider, _SILENT), own)
        return Resilience(
            laid_over(self.retry, [layer.retry for layer in layers]),
            laid_over(self.breaker, [layer.breaker for layer in layers]),
            laid_over(self.recovery, [layer.recovery for layer in layers]),
            route if given(own.breaker) else "",
        )


_SILENT = ModelSettings()


def overrides_of(settings: ProviderSettings | ModelSettings) -> dict[str, dict[str, object]]:
    """What `settings` say of retry, breaker and recovery, by table."""
    tables = {"retry": settings.retry, "breaker": settings.breaker, "recovery": settings.recovery}
    return {name: members for name, table in tables.items() if (members := given(table))}
