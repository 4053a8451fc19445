"""Looking for local model servers, once or for ever.

Only addresses of this machine are asked, never our own. A server that does not answer in time, or not in the shape of its
kind, is not there. Nothing raises.
"""

import asyncio
import logging
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from cauce.ports.clock import Clock
from cauce.ports.provider import ModelInfo
from cauce.providers.discovery.addresses import LOOPBACK, Address, addresses, is_own
from cauce.providers.discovery.kinds import KINDS, Kind
from cauce.providers.discovery.probe import PROBE_TIME, Probe
from cauce.transport import Transport

ADDRESS_TIME = 0.9
"""Seconds all probes of one address may take together."""

COMMAND_TIME = 2.0
"""Seconds the `foundry` command may take."""

_URL = re.compile(r"https?://[^\s/]+")

_Candidates = dict[Address, list[Kind]]
_Identity = tuple[str, int]

logger = logging.getLogger("cauce.discovery")


class Settings(msgspec.Struct, frozen=True):
    """Where to look.

    `environment` has the values of the variables that name an endpoint (OLLAMA_HOST, FOUNDRY_LOCAL_ENDPOINT; none or empty:
    not set), `ports` the ports of a kind in place of its usual ones, `own` the hosts and ports this process listens on.
    `foundry` is the command of Foundry Local, looked for on PATH (None: it is not run). `patience`: seconds all probes of one address may
    take together, and `probe` one of them.
    """

    environment: Mapping[str, str | None] = {}
    ports: Mapping[str, Sequence[int]] = {}
    own: Sequence[tuple[str, int]] = ()
    foundry: str | None = "foundry"
    patience: float = ADDRESS_TIME
    probe: float = PROBE_TIME


class Found(msgspec.Struct, frozen=True):
    """A local model server. `base_url` is where its OpenAI-compatible API is."""

    name: str
    label: str
    base_url: str
    models: tuple[ModelInfo, ...]


class _Server(msgspec.Struct, frozen=True):
    kind: Kind
    address: Address
    models: tuple[ModelInfo, ...]

    @property
    def identity(self) -> _Identity:
        """What it keeps its name by."""
        return self.kind.prefix, self.address.port

    def found(self, name: str) -> Found:
        return Found(name, self.kind.label, self.address.url + self.kind.base_path, self.models)


class Discovery:
    """Finds the servers that `settings` says where to look for. A server keeps its name from scan to scan while it is there."""

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self._transport = transport
        self._settings = settings
        self._warned: set[str] = set()
        self._names: dict[_Identity, str] = {}
        self._usual = self._usual_candidates()

    async def scan(self) -> tuple[Found, ...]:
        """The servers that are there now: named endpoints first, then by kind. Takes under a second, plus the command's time."""
        candidates = await self._candidates()
        async with asyncio.TaskGroup() as group:
            looks = [
                group.create_task(self._look(address, kinds))
                for address, kinds in candidates.items()
                if not is_own(address, self._settings.own)
            ]
        servers = _distinct([server for server in [look.result() for look in looks] if server is not None])
        self._names = _named(servers, self._names)
        return tuple([server.found(self._names[server.identity]) for server in servers])

    async def watch(
        self, interval: float, changed: Callable[[tuple[Found, ...], tuple[str, ...]], None], clock: Clock
    ) -> None:
        """Scan for ever, `interval` seconds after each scan, and tell `changed` what is new or different, and which names are gone.

        It is told after the first scan in any case, and then only of differences.
        """
        known: dict[str, Found] | None = None
        while True:
            found = {server.name: server for server in await self.scan()}
            before = known or {}
            news = tuple([server for name, server in found.items() if before.get(name) != server])
            gone = tuple([name for name in before if name not in found])
            if news or gone or known is None:
                changed(news, gone)
            known = found
            await clock.sleep(interval)

    def _usual_candidates(self) -> _Candidates:
        """Where to look in each scan, and for which kinds: endpoints that are named, then usual ports."""
        candidates: _Candidates = {}
        for kind in KINDS:
            endpoint = self._settings.environment.get(kind.variable) if kind.variable is not None else None
            if endpoint and endpoint.strip():
                _merge(candidates, self._addresses(endpoint, kind.ports[0], f"the server {kind.variable} names"), kind)
        for kind in KINDS:
            for port in self._settings.ports.get(kind.id, kind.ports):
                _merge(candidates, [Address(host, port) for host in LOOPBACK], kind)
        return candidates

    async def _candidates(self) -> _Candidates:
        """The usual places, and where the `foundry` command says that its service is."""
        command = shutil.which(self._settings.foundry) if self._settings.foundry is not None else None
        output = await asyncio.to_thread(_service_status, command) if command is not None else ""
        match = _URL.search(output)
        candidates = {address: [*kinds] for address, kinds in self._usual.items()}
        if match is not None:
            url = match.group()
            for kind in [kind for kind in KINDS if kind.command]:
                _merge(
                    candidates,
                    self._addresses(url, kind.ports[0], "the server `foundry service status` names"),
                    kind,
                )
        return candidates

    def _addresses(self, endpoint: str, default_port: int, said: str) -> tuple[Address, ...]:
        try:
            return addresses(endpoint, default_port)
        except ValueError as error:
            warning = f"{said} is left alone: {error}. Configure it as a provider to use it all the same."
            if warning not in self._warned:
                self._warned.add(warning)
                logger.warning(warning)
            return ()

    async def _look(self, address: Address, kinds: Sequence[Kind]) -> _Server | None:
        """The server at `address`: one of `kinds`, else what the answers to their probes show it to be."""
        try:
            async with asyncio.timeout(self._settings.patience):
                probe = Probe(self._transport, address, self._settings.probe)
                await probe.ask([sign.path for kind in (*kinds, KINDS[-1]) for sign in kind.signs])
                if probe.is_cauce:
                    return None
                for kind in (*kinds, *[kind for kind in KINDS if kind not in kinds]):
                    if probe.shows(kind):
                        models = await probe.models(kind)
                        return _Server(kind, address, models) if models is not None else None
                if probe.answered:
                    logger.debug("%s answers, but not as a model server that is known", address.url)
        except TimeoutError:
            logger.debug("%s took too long to tell what it is", address.url)
        except Exception:
            # A stranger's answer that we did not foresee must not end the search for the others.
            logger.exception("looking at %s failed", address.url)
        return None


def _merge(candidates: _Candidates, found: Sequence[Address], kind: Kind) -> None:
    for address in found:
        kinds = candidates.setdefault(address, [])
        if kind not in kinds:
            kinds.append(kind)


def _distinct(servers: Collection[_Server]) -> list[_Server]:
    """One server often listens on both loopback addresses: what answers on one port counts once, as the most telling kind."""
    ports: dict[int, _Server] = {}
    for server in sorted(servers, key=lambda server: server.kind.numbered):
        ports.setdefault(server.address.port, server)
    return list(ports.values())


def _named(servers: Collection[_Server], before: Mapping[_Identity, str]) -> dict[_Identity, str]:
    """A name for each: the one it had `before`, else its kind's own name if that is free, else one with its port."""
    names = {server.identity: before[server.identity] for server in servers if server.identity in before}
    for server in servers:
        if server.identity not in names:
            prefix, port = server.identity
            plain = not server.kind.numbered and prefix not in names.values()
            names[server.identity] = prefix if plain else f"{prefix}-{port}"
    return names


def _service_status(command: str) -> str:
    """What `foundry service status` prints. Blocks."""
    try:
        done = subprocess.run(  # noqa: S603 - the command the settings name, with fixed arguments
            [command, "service", "status"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_TIME,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.debug("`%s service status` did not tell: %s", command, error)
        return ""
    return done.stdout.decode(errors="replace")
