"""Prove on this machine that streams lose nothing: nodes are started, killed and paused, connections cut, the provider fails, and
everything readers have seen is compared.

The nodes have the settings that are configured: [streams], [recovery], [retry], [queue], [cache], [timeouts], and of [models]
midstream and on_disconnect. What stands in place of one, and what it does not promise, is said before the run and in its report.

Everything runs on loopback, beside what is configured: nodes and a provider of its own, on the disk that streams are on, or in the
PostgreSQL or Redis that is configured, in a schema or under a prefix that is removed afterwards. No model is asked.

Exit code: 0 when everything held, 1 when something was violated, 2 when it could not run.
"""

import argparse
import asyncio
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args
from urllib.parse import parse_qs, urlsplit

import msgspec

from cauce.bootstrap.streaming import trouble
from cauce.cli.configuration import configured
from cauce.cli.main import MISUSE, configuration_argument
from cauce.cli.terminal import complain, line
from cauce.cli.trial import SECONDS, Trial
from cauce.cli.words import say
from cauce.config import Config, ConfigError
from cauce.server.gate import is_loopback
from cauce.testing.chaos import INVARIANTS, Ground, Report, Settings, chaos, lasting, write
from cauce.testing.chaos.node import Store

VIOLATED = 1

_MOST_TOLD = 20


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("--streams", type=_count, default=60, metavar="N", help="how many streams (default 60)")
    command.add_argument(
        "--nodes",
        type=_count,
        metavar="N",
        help="servers that share the store (default: 2 where [streams] lets several share it, else 1)",
    )
    command.add_argument(
        "--seconds",
        type=_count,
        metavar="S",
        help=f"how long, about (default {SECONDS}, or what [streams] lease asks for)",
    )
    command.add_argument("--seed", type=int, default=1, help="which faults, and when (default 1)")
    command.add_argument("--store", choices=get_args(Store), help="where streams are kept (default: [streams] store)")
    command.add_argument("--report", type=Path, metavar="FILE", help="write a page (or JSON, if it is named .json)")
    configuration_argument(command)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Prepare, run and tell."""
    config = configured(arguments)
    trial = Trial(config, arguments.store or config.streams.store, arguments.nodes, arguments.seconds)
    url = _url(config, trial.store)
    # On the disk that they are on.
    there = Path(trial.settings.streams.folder or config.server.data_dir).expanduser()
    there.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=there, ignore_cleanup_errors=True) as folder:
        room = f"cauce_chaos_{secrets.token_hex(4)}"
        ground = Ground(trial.store, Path(folder), url, room, trial.settings)
        return _on(ground, trial, arguments)


def _on(ground: Ground, trial: Trial, arguments: argparse.Namespace) -> int:
    settings = lasting(ground, trial.lasts, arguments.streams, trial.servers, arguments.seed)
    _refuse_unreachable(trial.config, ground)
    told = {"streams": settings.streams, "nodes": settings.nodes, "store": ground.store, "seed": settings.seed}
    print(say("{streams} streams at {nodes} nodes, kept in {store}, seed {seed}", **told))
    notes = tuple(trial.notes)
    for sentence in notes:
        print(f"- {line(sentence)}", flush=True)
    try:
        found = msgspec.structs.replace(asyncio.run(_run(settings)), notes=notes)
    except (RuntimeError, OSError) as error:
        complain(str(error))
        return MISUSE
    for sentence in _said(found):
        print(line(sentence), flush=True)
    if arguments.report is not None:
        try:
            write(found, arguments.report)
        except OSError as error:
            complain(say("the report cannot be written: {error}", error=error))
            return VIOLATED if found.violations else MISUSE
    return VIOLATED if found.violations else 0


async def _run(settings: Settings) -> Report:
    ground = settings.ground
    try:
        return await chaos(settings)
    finally:
        match ground.store:
            case "postgres":
                from cauce.testing.chaos.postgres import clear

                await clear(ground.url, ground.room)
            case "redis":
                from cauce.testing.chaos.redis import clear

                await clear(ground.url, ground.room)
            case "sqlite" | "memory":
                pass


def _refuse_unreachable(config: Config, ground: Ground) -> None:
    """Raises `ConfigError` when the store does not answer."""
    if ground.store not in ("postgres", "redis"):
        return
    there = msgspec.structs.replace(
        config,
        streams=msgspec.structs.replace(config.streams, store=ground.store),
        postgres=msgspec.structs.replace(config.postgres, schema=ground.room),
        redis=msgspec.structs.replace(config.redis, prefix=f"{ground.room}:"),
    )
    why = asyncio.run(trouble(there))
    if why:
        raise ConfigError(f"--store {ground.store}: {why}")


def _url(config: Config, store: str) -> str:
    """Where the store is. Raises `ConfigError` for one that is not configured, or not on this machine."""
    match store:
        case "postgres":
            url = config.postgres.url
        case "redis":
            url = config.redis.url
        case _:
            return ""
    if not url:
        raise ConfigError(f"--store {store} needs [{store}] url")
    if not all([host.startswith("/") or is_loopback(host) for host in _hosts(url)]):
        raise ConfigError(f"[{store}] url is of another machine: chaos only uses a store on this one")
    return url


def _hosts(url: str) -> Sequence[str]:
    """Whom `url` leads to: names, addresses, and paths of sockets."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return (parts.path,)
    # What cannot be read for sure counts as another machine.
    named = [host for value in parse_qs(parts.query).get("host", []) for host in value.split(",")]
    named += [parts.hostname] if parts.hostname else []
    return named or ("",)


def _said(found: Report) -> list[str]:
    ended = ", ".join([f"{count} {name}" for name, count in sorted(found.outcomes.items())])
    excused = ", ".join([f"{count} ({name})" for name, count in found.excused.items()])
    faults = ", ".join([f"{count} {name}" for name, count in found.faults.items()])
    events, connections, seconds = f"{found.events:,}", f"{found.connections:,}", f"{found.seconds:.0f}"
    sentences = [
        say("streams: {ended}", ended=ended),
        say("faults: {faults}", faults=faults),
        say(
            "{events} events checked over {connections} connections in {seconds} s",
            events=events,
            connections=connections,
            seconds=seconds,
        ),
    ]
    if found.takeovers:
        count, seconds = found.takeovers.values()
        sentences.append(
            say(
                "{count:.0f} times a stream lost its server, and was gone on with after {seconds:g} s at most",
                count=count,
                seconds=seconds,
            )
        )
    if excused:
        sentences.append(say("answers that broke off, as the settings have it: {excused}", excused=excused))
    sentences += [f"✗ {one.invariant} {one.stream}: {one.message}" for one in found.violations[:_MOST_TOLD]]
    idle = found.not_judged
    if idle:
        sentences.append(say("not judged, since nothing of it happened: {names}", names=", ".join(idle)))
    if not found.violations:
        return [*sentences, say("nothing was violated: {count} invariants held", count=len(INVARIANTS) - len(idle))]
    broken = ", ".join([f"{name} ({count})" for name, count in found.broken.items()])
    return [*sentences, say("{count} violations: {broken}", count=len(found.violations), broken=broken)]
