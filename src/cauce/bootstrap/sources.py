"""Providers as the configuration describes them, and the table of names that leads to them."""

from functools import partial

import msgspec

from cauce.catalogue.packaged import PackagedCatalogue
from cauce.catalogue.vendors import HERE, vendor_of
from cauce.config import Config, ProviderSettings
from cauce.config.overrides import given
from cauce.config.shape import DeploymentSettings, ModelSettings, overrides_of
from cauce.engine.routing.conditions import Conditions
from cauce.engine.routing.route import Route
from cauce.engine.routing.router import Router
from cauce.engine.routing.source import Deployment, Source
from cauce.ports.provider import Provider, Timeouts
from cauce.providers.anthropic.provider import DEFAULT_MODEL as ANTHROPIC_MODEL
from cauce.providers.anthropic.provider import TOOL_NAMES as ANTHROPIC_NAMES
from cauce.providers.anthropic.provider import Anthropic
from cauce.providers.fetch import Fetcher
from cauce.providers.gemini.provider import DEFAULT_MODEL as GEMINI_MODEL
from cauce.providers.gemini.provider import KEPT_ADDRESSES, Gemini
from cauce.providers.gemini.provider import TOOL_NAMES as GEMINI_NAMES
from cauce.providers.inlining import Inlining
from cauce.providers.llamacpp.provider import LlamaCpp
from cauce.providers.offline.pages import packaged_pages
from cauce.providers.offline.provider import OfflineProvider
from cauce.providers.openai_compatible.dialect import DIALECTS, dialect_of
from cauce.providers.openai_compatible.provider import OpenAICompatible
from cauce.providers.openai_responses.provider import OpenAIResponses
from cauce.providers.renaming import Renaming
from cauce.server.door import kept_below
from cauce.system.ids import RandomIds
from cauce.transport import HTTPTransport


def source(name: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    """The provider `settings` describes. `fetcher` gets what requests point to, for those that take no addresses."""
    if not settings.deployments:
        return _built(name, settings, timeouts, fetcher)
    built = [(one, _built(name, of_deployment(settings, one), timeouts, fetcher)) for one in settings.deployments]
    deployments = [
        Deployment(one.name, made.provider, one.weight, made.here, made.embedder, made.free) for one, made in built
    ]
    return msgspec.structs.replace(built[0][1], deployments=tuple(deployments))


def of_deployment(settings: ProviderSettings, deployment: DeploymentSettings) -> ProviderSettings:
    """`settings` with what `deployment` has of its own."""
    most = settings.max_concurrent if deployment.max_concurrent is None else deployment.max_concurrent
    return msgspec.structs.replace(
        settings,
        api_key=deployment.api_key or settings.api_key,
        base_url=deployment.base_url or settings.base_url,
        max_concurrent=most,
        deployments=(),
    )


def _built(name: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    made = _BUILDERS[settings.kind](name, settings, timeouts, fetcher)
    free = settings.here or (settings.local is None and made.vendor == HERE)
    return msgspec.structs.replace(made, here=settings.here, free=free)


def _offline(_: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    return Source(OfflineProvider(packaged_pages()), sole=True, level="offline", timeouts=timeouts)


def _openai(name: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    transport = HTTPTransport(name, kept_below=kept_below())
    dialect = DIALECTS[settings.dialect] if settings.dialect else dialect_of(settings.base_url)
    ids = None if settings.background is False else RandomIds()
    embedder = OpenAICompatible(name, settings.base_url, settings.api_key, transport, dialect, ids=ids)
    chats = settings.wire == "chat"
    provider = embedder
    if not chats:
        address, key = settings.base_url, settings.api_key
        provider = OpenAIResponses(name, address, key, transport, dialect, background=bool(settings.background))
    named = Renaming(provider, dialect.tool_names) if dialect.tool_names is not None else provider
    inlining = named if dialect.image_urls else Inlining(named, fetcher)
    return msgspec.structs.replace(
        _source(inlining, settings, timeouts, dialect.default_model),
        embedder=embedder if dialect.embeddings is not None else None,
        completes=chats and dialect.completions is not None,
        infills=chats and dialect.infill is not None,
        prefills=chats and dialect.prefill is not None,
    )


def _anthropic(name: str, settings: ProviderSettings, timeouts: Timeouts, _: Fetcher) -> Source:
    transport = HTTPTransport(name, kept_below=kept_below())
    provider = Anthropic(name, settings.base_url, settings.api_key, transport, settings.api_version)
    return _source(Renaming(provider, ANTHROPIC_NAMES), settings, timeouts, ANTHROPIC_MODEL)


def _gemini(name: str, settings: ProviderSettings, timeouts: Timeouts, fetcher: Fetcher) -> Source:
    transport = HTTPTransport(name, kept_below=kept_below())
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


def make_router(config: Config, fetcher: Fetcher, conditions: Conditions | None = None) -> Router:
    """The table of names of `config`, with its providers. `conditions` are what orders look at that are not as listed."""
    routes = [_route(name, model, config) for name, model in config.models.items()]
    catalogue = PackagedCatalogue(config.facts)
    router = Router(routes, config.aliases, config.environment.default_model or "auto", catalogue, conditions)
    providers = {"offline": ProviderSettings("offline"), **config.providers}
    for name, settings in providers.items():
        made = source(name, settings, config.timeouts_of(name), fetcher)
        router.add(msgspec.structs.replace(made, resilience=config.resilience_of(name)))
    return router


def measures(config: Config) -> bool:
    """Whether somebody asks how candidates do: then it is measured."""
    return any([provider.deployments for provider in config.providers.values()]) or any(
        [model.route in ("balanced", "fastest") for model in config.models.values()]
    )


def _route(name: str, model: ModelSettings, config: Config) -> Route:
    entries = model.entries
    weighted = any([entry.weight != 1 for entry in entries])
    return Route(
        name,
        model.names,
        partial(config.timeouts_of, route=name) if given(model.timeouts) else None,
        tuple([entry.weight for entry in entries]) if weighted else (),
        order=model.route,
        private=model.privacy == "local",
        tasks=model.tasks,
        short=model.short,
        long=model.long,
        complex=model.complex,
        prefer=model.prefer,
        hedge=model.hedge,
        overflow=model.overflow,
        midstream=model.midstream,
        resilience=partial(config.resilience_of, route=name) if overrides_of(model) else None,
    )
