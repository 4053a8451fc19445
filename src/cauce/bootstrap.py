"""`Config` to running parts: the one place that names concrete adapters."""

import asyncio
import contextlib
import logging

import msgspec

from cauce.catalogue.packaged import PackagedCatalogue
from cauce.catalogue.vendors import vendor_of
from cauce.config import Config, ProviderSettings
from cauce.domain.errors import CauceError
from cauce.engine.compose import compose
from cauce.engine.embedding import Embedding
from cauce.engine.estimator import Estimator
from cauce.engine.fallback import fallback
from cauce.engine.policies.deadline import deadline
from cauce.engine.policies.meter import meter
from cauce.engine.policies.patience import patience
from cauce.engine.policies.structured import structured
from cauce.engine.policies.trace import trace
from cauce.engine.router import Route, Router, Source
from cauce.engine.streams.streams import Streams
from cauce.engine.turn import Defaults, Turn
from cauce.ports.provider import Call, Deltas, ModelInfo, Provider, Timeouts
from cauce.providers.anthropic.provider import DEFAULT_MODEL as ANTHROPIC_MODEL
from cauce.providers.anthropic.provider import TOOL_NAMES as ANTHROPIC_NAMES
from cauce.providers.anthropic.provider import Anthropic
from cauce.providers.discovery import Discovery, Found
from cauce.providers.discovery import Settings as DiscoverySettings
from cauce.providers.fetch import Fetcher
from cauce.providers.gemini.provider import DEFAULT_MODEL as GEMINI_MODEL
from cauce.providers.gemini.provider import KEPT_ADDRESSES, Gemini
from cauce.providers.gemini.provider import TOOL_NAMES as GEMINI_NAMES
from cauce.providers.inlining import Inlining
from cauce.providers.llamacpp.provider import LlamaCpp
from cauce.providers.offline.pages import packaged_pages
from cauce.providers.offline.provider import OfflineProvider
from cauce.providers.openai_compatible.dialect import DIALECTS, dialect_of, dialect_of_server
from cauce.providers.openai_compatible.provider import OpenAICompatible
from cauce.providers.openai_responses.provider import OpenAIResponses
from cauce.providers.renaming import Renaming
from cauce.providers.transport import HTTPTransport
from cauce.server.app import Application
from cauce.server.services import Services
from cauce.stores.inproc.ledger import InprocLedger
from cauce.stores.inproc.responses import InprocResponses
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.system.clock import SystemClock
from cauce.system.ids import RandomIds
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.tokenizers.openai import Vocabularies, installed

MODELS_EVERY = 600.0
"""Seconds between looks at what models configured providers offer."""

PATIENCE = 1.0
"""Seconds a start waits for the models of providers that are configured without a default model."""

logger = logging.getLogger("cauce.bootstrap")


class Runtime(msgspec.Struct, frozen=True):
    """Everything running. `first_scan` is set once local servers have been looked for, and models where none is configured."""

    config: Config
    services: Services
    router: Router
    turn: Turn
    first_scan: asyncio.Event


def runtime(config: Config, port: int | None = None) -> Runtime:
    """Build everything `config` asks for. Nothing runs yet: `services.start` starts it, `services.stop` ends it.

    `port` is the one really listened on, where that is not the configured one: discovery leaves it alone.
    """
    clock = SystemClock()
    ledger = InprocLedger()
    metrics = PrometheusMetrics()
    fetcher = Fetcher(config.fetch)
    router = _router(config, fetcher)

    async def open_candidate(call: Call) -> Deltas:
        return await call.candidate.provider.open(call)

    estimator = Estimator()
    metered = meter(clock, ledger, metrics, estimator)
    per_candidate = compose(open_candidate, structured(clock), metered, patience(clock))
    opened = compose(per_candidate, trace(), deadline(clock), fallback(clock))
    turn = Turn(router, opened, Defaults(config.environment.temperature, config.environment.max_tokens))
    log = InprocStreamLog(clock, retention=config.streams.retention, max_bytes=config.streams.max_bytes)
    streams = Streams(log, turn, clock)
    background = _Background(config, router, streams, clock, fetcher, port or config.server.port)
    services = Services(
        settings=config.server,
        stream_settings=config.streams,
        keys=config.auth.keys,
        message_timeout=config.timeouts.message,
        router=router,
        turn=turn,
        embedding=Embedding(router, clock, ledger, metrics),
        estimator=estimator,
        tokenizer=Vocabularies() if installed() else None,
        streams=streams,
        responses=InprocResponses(clock),
        clock=clock,
        ids=RandomIds(),
        began=clock.monotonic(),
        last_entry=ledger.last,
        exposition=metrics.exposition,
        start=background.start,
        stop=background.stop,
    )
    return Runtime(config, services, router, turn, background.first_scan)


def application(config: Config) -> Application:
    """The ASGI app of `config`."""
    return Application(runtime(config).services)


def source(name: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    """The provider `settings` describes. `fetcher` gets what requests point to, for those that take no addresses."""
    return _BUILDERS[settings.kind](name, settings, timeouts, fetcher)


def _offline(_: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    return Source(OfflineProvider(packaged_pages()), sole=True, level="offline", timeouts=timeouts)


def _openai(name: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    transport = HTTPTransport(name, settings.max_concurrent)
    dialect = DIALECTS[settings.dialect] if settings.dialect else dialect_of(settings.base_url)
    embedder = OpenAICompatible(name, settings.base_url, settings.api_key, transport, dialect)
    chats = settings.wire == "chat"
    provider = embedder if chats else OpenAIResponses(name, settings.base_url, settings.api_key, transport, dialect)
    named = Renaming(provider, dialect.tool_names) if dialect.tool_names is not None else provider
    inlining = named if dialect.image_urls else Inlining(named, fetcher)
    return msgspec.structs.replace(
        _source(inlining, settings, timeouts, dialect.default_model),
        embedder=embedder if dialect.embeddings is not None else None,
        completes=chats and dialect.completions is not None,
        infills=chats and dialect.infill is not None,
    )


def _anthropic(name: str, settings: ProviderSettings, timeouts: Timeouts, _: Fetcher) -> Source:
    transport = HTTPTransport(name, settings.max_concurrent)
    provider = Anthropic(name, settings.base_url, settings.api_key, transport, settings.api_version)
    return _source(Renaming(provider, ANTHROPIC_NAMES), settings, timeouts, ANTHROPIC_MODEL)


def _gemini(name: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    transport = HTTPTransport(name, settings.max_concurrent)
    provider = Gemini(name, settings.base_url, settings.api_key, transport, settings.api_version)
    made = _source(
        Inlining(Renaming(provider, GEMINI_NAMES), fetcher, KEPT_ADDRESSES), settings, timeouts, GEMINI_MODEL
    )
    return msgspec.structs.replace(made, embedder=provider)


def _llamacpp(name: str, settings: ProviderSettings, timeouts: Timeouts, _: Fetcher) -> Source:
    assert settings.llamacpp is not None, "the configuration has been checked"
    provider = LlamaCpp(name, settings.llamacpp)
    made = _source(provider, settings, timeouts, next(iter(settings.llamacpp.models)))
    return msgspec.structs.replace(made, completes=True)


def _source(provider: Provider, settings: ProviderSettings, timeouts: Timeouts, default_model: str | None) -> Source:
    tier = settings.tier if settings.tier is not None else _TIERS.get(settings.kind, 2)
    vendor = vendor_of(settings.kind, settings.base_url)
    return Source(provider, settings.default_model or default_model, tier=tier, timeouts=timeouts, vendor=vendor)


_TIERS = {"gemini": 1, "openai": 2, "anthropic": 3, "llamacpp": 4}
_BUILDERS = {"offline": _offline, "openai": _openai, "anthropic": _anthropic, "gemini": _gemini, "llamacpp": _llamacpp}


def _router(config: Config, fetcher: Fetcher) -> Router:
    routes = [
        Route(name, model.candidates, config.timeouts_of(model.timeouts) if model.timeouts is not None else None)
        for name, model in config.models.items()
    ]
    catalogue = PackagedCatalogue(config.facts)
    router = Router(routes, config.aliases, config.environment.default_model or "auto", catalogue)
    providers = {"offline": ProviderSettings("offline"), **config.providers}
    for name, settings in providers.items():
        router.add(source(name, settings, config.timeouts_of(settings.timeouts), fetcher))
    return router


class _Background:
    """Work that goes on while the server runs: finding local servers and models, forgetting old streams."""

    def __init__(
        self, config: Config, router: Router, streams: Streams, clock: SystemClock, fetcher: Fetcher, port: int
    ) -> None:
        self._fetcher = fetcher
        self._config = config
        self._own = ((config.server.host, port), ("127.0.0.1", port), ("::1", port))
        self._router = router
        self._streams = streams
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._local: dict[str, tuple[str, Source]] = {}
        self._made: list[Source] = []
        self._transport = HTTPTransport("discovery")
        self._scanned = asyncio.Event()
        self._learned = asyncio.Event()
        self.first_scan = asyncio.Event()

    async def start(self) -> None:
        work = [self._streams.sweep_forever(), self._learn_models()]
        if self._config.discovery.enabled:
            work.append(self._discover())
        else:
            self._scanned.set()
        work.append(self._look_once())
        self._tasks = [asyncio.create_task(one) for one in work]

    async def stop(self) -> None:
        await self._streams.drain(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for known in (*self._router.sources, *self._made):
            await known.provider.aclose()
        await self._transport.aclose()
        await self._fetcher.aclose()

    async def _look_once(self) -> None:
        await self._scanned.wait()
        if any(known.preferred is None and not known.sole for known in self._router.sources):
            # Its name alone means the first model it lists, so the list is worth a moment.
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(PATIENCE):
                    await self._learned.wait()
        self.first_scan.set()

    async def _discover(self) -> None:
        config = self._config
        variables = {
            "OLLAMA_HOST": config.environment.ollama_host,
            "FOUNDRY_LOCAL_ENDPOINT": config.environment.foundry_endpoint,
        }
        settings = DiscoverySettings(variables, {**config.discovery.ports}, self._own)
        discovery = Discovery(self._transport, settings)

        def changed(found: tuple[Found, ...], gone: tuple[str, ...]) -> None:
            for name in gone:
                self._forget(name)
            for server in found:
                self._know(server)
            self._scanned.set()

        await discovery.watch(config.discovery.interval, changed, self._clock)

    def _know(self, server: Found) -> None:
        """Let the router know of a local server. A provider configured under its name is the one people mean."""
        if server.name in self._config.providers:
            return
        url, known = self._local.get(server.name, ("", None))
        if known is None or url != server.base_url:
            settings = ProviderSettings("openai", server.base_url, dialect=dialect_of_server(server.name).name)
            known = source(server.name, settings, self._config.timeouts_of(), self._fetcher)
            self._made.append(known)
        # A server that was away, or only has other models now, keeps its connections: answers may be on their way.
        self._local[server.name] = (server.base_url, known)
        if self._router.source(server.name) is None:
            logger.info("found %s at %s with %d models", server.label, server.base_url, len(server.models))
        self._router.add(msgspec.structs.replace(known, local=True, models=server.models))

    def _forget(self, name: str) -> None:
        """Take a local server that does not answer out of the router. A busy one misses probes: nothing is closed."""
        if name not in self._config.providers and self._router.remove(name) is not None:
            logger.info("the local server %s does not answer any more", name)

    async def _learn_models(self) -> None:
        """What configured providers offer, so that `/v1/models` can list it. A provider that does not tell is left as it is."""
        while True:
            configured = [known for known in self._router.sources if not known.local and not known.sole]
            await asyncio.gather(*[self._learn(known) for known in configured])
            self._learned.set()
            await self._clock.sleep(MODELS_EVERY)

    async def _learn(self, known: Source) -> None:
        try:
            models: tuple[ModelInfo, ...] = await known.provider.models()
        except CauceError as error:
            logger.debug("%s does not list its models: %s", known.provider.name, error.message)
        else:
            self._router.add(msgspec.structs.replace(known, models=models))
