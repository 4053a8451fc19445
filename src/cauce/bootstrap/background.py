"""Work that goes on while the server runs: finding local servers and models, forgetting old streams."""

import asyncio
import contextlib
import logging

import msgspec

from cauce.bootstrap.sources import source
from cauce.config import Config, ProviderSettings
from cauce.domain.errors import CauceError
from cauce.engine.routing.router import Router
from cauce.engine.routing.source import Source
from cauce.engine.streams.streams import Streams
from cauce.ports.line import Reached
from cauce.ports.provider import ModelInfo, Provider
from cauce.providers.discovery import Discovery, Found
from cauce.providers.discovery import Settings as DiscoverySettings
from cauce.providers.fetch import Fetcher
from cauce.providers.openai_compatible.dialect import dialect_of_server
from cauce.system.clock import SystemClock
from cauce.transport import HTTPTransport

MODELS_EVERY = 600.0
"""Seconds between looks at what models configured providers offer."""

_FIRST_AGAIN, _AGAIN = 2.0, 30.0
"""Seconds until a provider is asked again that has no default model and did not list any: at first, and from then on twice as long, at most."""

WARM_EVERY = 60.0
"""Seconds between looks at whether a connection to each configured provider is ready: less than it is kept without use."""

PATIENCE = 1.0
"""Seconds a start waits for the models of providers that are configured without a default model."""

logger = logging.getLogger("cauce.bootstrap")


class Background:
    """`start` begins it, `stop` ends it. `first_scan` is set once local servers have been looked for."""

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
        self._unlisted: set[str] = set()
        """Providers that nobody can be sent to, since no model of theirs is known."""
        self._transport = HTTPTransport("discovery")
        self._scanned = asyncio.Event()
        self._learned = asyncio.Event()
        self.first_scan = asyncio.Event()

    async def start(self) -> None:
        work = [self._streams.sweep_forever(), self._learn_models()]
        if self._config.server.warm:
            work.append(self._keep_warm())
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
            for provider in known.providers:
                await provider.aclose()
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
        """What configured providers offer, so that `/v1/models` can list it. A provider that does not tell is left as it is.

        One that has no default model is part of `auto` only once it has told: it is asked again before long.
        """
        due, pause = self._clock.monotonic(), _FIRST_AGAIN
        while True:
            now = self._clock.monotonic()
            asked = self._configured()
            if now >= due:
                due = now + MODELS_EVERY
            else:
                asked = [known for known in asked if known.provider.name in self._unlisted]
            await asyncio.gather(*[self._learn(known) for known in asked])
            self._learned.set()
            left = max(0.0, due - self._clock.monotonic())
            if self._unlisted:
                await self._clock.sleep(min(pause, left))
                pause = min(pause * 2, _AGAIN)
            else:
                pause = _FIRST_AGAIN
                await self._clock.sleep(left)

    async def _keep_warm(self) -> None:
        """Connections to configured providers are made before anybody needs them. One that cannot be reached is left as it is."""
        while True:
            await self._clock.sleep(WARM_EVERY)
            await asyncio.gather(*[_warm(provider) for known in self._configured() for provider in known.providers])

    def _configured(self) -> list[Source]:
        return [known for known in self._router.sources if not known.local and not known.sole]

    async def _learn(self, known: Source) -> None:
        if self._config.server.warm:
            # What it lists then comes over the connection that is to be ready anyway.
            await asyncio.gather(*[_warm(provider) for provider in known.providers])
        failed: CauceError | None = None
        name = known.provider.name
        for provider in known.providers:
            try:
                models: tuple[ModelInfo, ...] = await provider.models()
            except CauceError as error:
                logger.debug("%s does not list its models: %s", name, error.message)
                failed = error
            else:
                self._router.add(msgspec.structs.replace(known, models=models))
                if name in self._unlisted:
                    self._unlisted.remove(name)
                    logger.info("%s lists its models now", name)
                return
        if failed is not None and known.preferred is None and name not in self._unlisted:
            self._unlisted.add(name)
            logger.warning(
                "%s has no default_model, and its models could not be listed, so auto does not ask it until they are: %s",
                name,
                failed.message,
            )


async def _warm(provider: Provider) -> None:
    line = provider.line if isinstance(provider, Reached) else None
    if line is None:
        return
    try:
        await line.warm()
    except CauceError as error:
        logger.debug("%s: no connection ahead of need: %s", provider.name, error.message)
