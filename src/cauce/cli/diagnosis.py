"""Looking at a configuration from all sides: what it says, what it lacks, and whether its providers answer."""

import asyncio
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import msgspec

from cauce.bootstrap import Runtime
from cauce.bootstrap.sources import of_deployment
from cauce.bootstrap.streaming import trouble
from cauce.cli import ground
from cauce.cli.advice import advice
from cauce.cli.session import PATIENT, offered, session, upstreams
from cauce.cli.unfitting import unfitting_globs
from cauce.cli.words import say
from cauce.config import Config, ProviderSettings
from cauce.config.shape import overrides_of
from cauce.domain.errors import CauceError, ModelNotFound
from cauce.domain.request import Request
from cauce.engine.routing.names import AUTO
from cauce.engine.routing.source import Source
from cauce.ports.line import Handshake, Reached
from cauce.ports.provider import ModelInfo, Timeouts
from cauce.server.door import places, raise_limit
from cauce.server.gate import is_loopback

Models = dict[str, frozenset[str]]
"""The models of each provider that told them."""


class Ground(msgspec.Struct, frozen=True):
    """Where `serve` would stand. `open_door`: it would refuse to. `data_dir_problem` is empty where there is none."""

    host: str
    port: int
    port_state: ground.Port
    loopback: bool
    open_door: bool
    keys: tuple[str, ...]
    data_dir: str
    data_dir_problem: str
    stream_log: str
    streams_folder: str = ""
    """Where the file of streams is, if not in the data folder."""
    streams_folder_problem: str = ""
    stream_log_problem: str = ""
    """Why the log of streams does not answer; empty if it does, or is a matter of a folder."""
    files: int | None = None
    """How many files it may open; None where nothing bounds them, nor the `connections` at once."""
    connections: int | None = None


class Checked(msgspec.Struct, frozen=True):
    """A configured provider and how it answered. `models` is None where it did not; `seconds` is what that took."""

    name: str
    base_url: str
    key_set: bool
    default_model: str | None
    tier: int
    timeouts: Timeouts
    seconds: float
    models: int | None
    error: str = ""
    advice: str = ""
    handshake: Handshake | None = None
    """What a new connection took; None where there was none."""
    overrides: dict[str, dict[str, object]] = {}
    """What it says for itself of retry, breaker and recovery."""


class LocalServer(msgspec.Struct, frozen=True):
    """A server found on this machine."""

    name: str
    models: int


class Diagnosis(msgspec.Struct, frozen=True):
    """Everything found. `mistakes` keep `serve` from starting, `warnings` are for people to judge."""

    sources: tuple[str, ...]
    notes: tuple[str, ...]
    server: Ground
    providers: tuple[Checked, ...]
    discovery: bool
    local: tuple[LocalServer, ...]
    default: str
    auto: tuple[str, ...]
    routes: dict[str, tuple[str, ...]]
    aliases: dict[str, str]
    timeouts: Timeouts
    message_timeout: float
    warnings: tuple[str, ...]
    mistakes: tuple[str, ...]
    route_overrides: dict[str, dict[str, dict[str, object]]] = {}
    """What routes say for themselves of retry, breaker and recovery."""

    @property
    def failed(self) -> list[str]:
        """Providers that did not answer."""
        return [checked.name for checked in self.providers if checked.models is None]


async def diagnose(config: Config) -> Diagnosis:
    """Look at `config`, asking each of its providers for its models."""
    stand = msgspec.structs.replace(_ground(config), stream_log_problem=await trouble(config))
    async with session(config, PATIENT) as running:
        sources = upstreams(running)
        asked = await asyncio.gather(*[_ask(running, config, source) for source in sources])
        models = {source.provider.name: ids for source, (_, ids) in zip(sources, asked, strict=True) if ids is not None}
        router = running.router
        return Diagnosis(
            config.sources,
            config.notes,
            stand,
            tuple([checked for places, _ in asked for checked in places]),
            config.discovery.enabled,
            tuple([LocalServer(known.provider.name, len(known.models)) for known in router.sources if known.local]),
            router.default,
            _asked(running, AUTO),
            {name: model.names or (AUTO,) for name, model in config.models.items()},
            config.aliases,
            config.timeouts_of(),
            config.timeouts.message,
            tuple(_warnings(config, running, models, stand)),
            tuple(_mistakes(stand)),
            {name: said for name, model in config.models.items() if (said := overrides_of(model))},
        )


def _ground(config: Config) -> Ground:
    server = config.server
    folder = Path(config.streams.folder).expanduser() if config.streams.folder else None
    files = raise_limit()
    return Ground(
        server.host,
        server.port,
        ground.port(server),
        is_loopback(server.host),
        ground.open_door(config),
        tuple([key.name for key in config.auth.keys]),
        str(config.data_dir),
        ground.folder_problem(config.data_dir),
        config.streams.store,
        str(folder) if folder else "",
        ground.folder_problem(folder) if folder else "",
        files=int(files) if isfinite(files) else None,
        connections=int(places(files)) if isfinite(files) else None,
    )


async def _ask(running: Runtime, config: Config, source: Source) -> tuple[list[Checked], frozenset[str] | None]:
    """What asking a provider, or each of its deployments, came to; and the models that one of them lists."""
    settings = config.providers[source.provider.name]
    places = [("", source, settings)]
    if source.deployments:
        places = [
            (place.name, msgspec.structs.replace(source, provider=place.provider), of_deployment(settings, one))
            for place, one in zip(source.deployments, settings.deployments, strict=True)
        ]
    answers = await asyncio.gather(*[_ask_one(running, *place) for place in places])
    listed = next((models for _, models in answers if models is not None), None)
    if listed is not None:
        running.router.add(msgspec.structs.replace(source, models=listed))
    ids = None if listed is None else frozenset([info.id for info in listed])
    return [checked for checked, _ in answers], ids


async def _ask_one(
    running: Runtime, deployment: str, source: Source, settings: ProviderSettings
) -> tuple[Checked, tuple[ModelInfo, ...] | None]:
    clock = running.services.clock
    began = clock.monotonic()
    models = await offered(source)
    seconds = clock.monotonic() - began
    if isinstance(models, CauceError):
        return _checked(deployment, source, settings, seconds, models), None
    return _checked(deployment, source, settings, seconds, len(models)), models


def _checked(
    deployment: str, source: Source, settings: ProviderSettings, seconds: float, found: int | CauceError
) -> Checked:
    name = source.provider.name
    failed = found if isinstance(found, CauceError) else None
    return Checked(
        f"{name} [{deployment}]" if deployment else name,
        settings.base_url,
        settings.api_key != "",
        source.default_model,
        source.tier,
        source.timeouts,
        round(seconds, 3),
        found if isinstance(found, int) else None,
        failed.message if failed is not None else "",
        advice(name, settings, failed) if failed is not None else "",
        _handshake(source),
        overrides_of(settings),
    )


def _handshake(source: Source) -> Handshake | None:
    line = source.provider.line if isinstance(source.provider, Reached) else None
    took = line.handshake if line is not None else None
    if took is None:
        return None
    steps = {name: round(value, 4) for name, value in msgspec.structs.asdict(took).items() if value is not None}
    return Handshake(**steps)


def _asked(running: Runtime, name: str) -> tuple[str, ...]:
    try:
        asked = running.router.candidates(Request(name, ()))
    except ModelNotFound:
        return ()
    return tuple(dict.fromkeys([candidate.name for candidate in asked]))


def _warnings(config: Config, running: Runtime, models: Models, stand: Ground) -> list[str]:
    warnings: list[str] = []
    if stand.stream_log_problem:
        warnings.append(
            say(
                "the log of streams ({store}) does not answer: {reason}; until it does, streams are refused",
                store=stand.stream_log,
                reason=stand.stream_log_problem,
            )
        )
    if config.redis.url and config.redis.nodes == 1:
        warnings.append(
            say(
                "[redis] nodes is 1: where several processes share Redis, each takes the whole of every limit while it is gone; "
                "set how many they are"
            )
        )
    warnings += unfitting_globs(running)
    for source in upstreams(running):
        name, default = source.provider.name, source.default_model
        if default is not None and not _offers(models, name, default):
            warnings.append(say("{name} does not list its default_model {model}", name=name, model=default))
        if default is None and source.preferred is not None:
            warnings.append(
                say(
                    "{name} has no default_model: its name alone asks {model}, the first it lists",
                    name=name,
                    model=source.preferred,
                )
            )
        if source.preferred is None and name not in models:
            warnings.append(
                say(
                    "{name} has no default_model, and its models could not be listed, so auto does not ask it until they are",
                    name=name,
                )
            )
        elif source.preferred is None:
            warnings.append(say("{name} has no default_model, so auto does not ask it", name=name))
    for route, model in config.models.items():
        for candidate in model.names:
            provider, slash, wanted = candidate.partition("/")
            if slash and not _offers(models, provider, wanted):
                warnings.append(
                    say("route {route}: {name} does not list {model}", route=route, name=provider, model=wanted)
                )
            elif not _asked(running, candidate):
                warnings.append(say("route {route}: {model} is not there now", route=route, model=candidate))
    for alias, target in config.aliases.items():
        if not _asked(running, alias):
            warnings.append(say("alias {alias}: {model} is not there now", alias=alias, model=target))
    if not _asked(running, running.router.default):
        warnings.append(say("the default model {model} is not there now", model=running.router.default))
    return warnings


def _offers(models: Models, provider: str, model: str) -> bool:
    """Whether `provider` lists `model`; in doubt it does. Lists are written with `models/` before (Gemini) or `:latest` after
    (Ollama) what may be asked for."""
    listed = models.get(provider)
    return listed is None or any(name in listed for name in (model, f"models/{model}", f"{model}:latest"))


def _mistakes(stand: Ground) -> Sequence[str]:
    mistakes: list[str] = []
    if stand.open_door:
        mistakes.append(
            say(
                "listening on {host} without API keys would let anyone use your models: make a key with "
                "`cauce keys new NAME`, or pass --insecure",
                host=stand.host,
            )
        )
    if stand.port_state.state == "refused":
        mistakes.append(
            say(
                "cannot listen on {host}:{port}: {reason}",
                host=stand.host,
                port=stand.port,
                reason=stand.port_state.reason,
            )
        )
    if stand.data_dir_problem:
        mistakes.append(
            say(
                "the data folder {folder} cannot be used: {reason}: set another [server] data_dir",
                folder=stand.data_dir,
                reason=stand.data_dir_problem,
            )
        )
    if stand.streams_folder_problem:
        mistakes.append(
            say(
                "the folder of streams {folder} cannot be used: {reason}: set another [streams] folder",
                folder=stand.streams_folder,
                reason=stand.streams_folder_problem,
            )
        )
    return mistakes
