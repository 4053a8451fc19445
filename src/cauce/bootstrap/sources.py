"""Providers as the configuration describes them, and the table of names that leads to them."""

import msgspec

from cauce.catalogue.packaged import PackagedCatalogue
from cauce.catalogue.vendors import vendor_of
from cauce.config import Config, ProviderSettings
from cauce.engine.router import Route, Router, Source
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
from cauce.providers.transport import HTTPTransport


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


def make_router(config: Config, fetcher: Fetcher) -> Router:
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
