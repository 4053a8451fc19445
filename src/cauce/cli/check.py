"""Explain the configuration in plain sentences, and try each provider by asking for its models.

Exit code: 0 when all is well, 1 when a provider does not answer, 2 when a mistake would keep `cauce serve` from starting.
Warnings do not count. Keys are never shown.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterator

import msgspec

from cauce.cli.configuration import configured
from cauce.cli.diagnosis import Checked, Diagnosis, diagnose
from cauce.cli.main import MISUSE, configuration_argument
from cauce.cli.terminal import harmless, line
from cauce.cli.words import say
from cauce.ports.line import Handshake
from cauce.ports.provider import Timeouts

PROVIDER_FAILS = 1


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    configuration_argument(command)


def run(arguments: argparse.Namespace) -> int:
    """Look and tell."""
    config = configured(arguments)
    found = asyncio.run(diagnose(config))
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        for sentence in _told(found):
            print(sentence)
    return MISUSE if found.mistakes else PROVIDER_FAILS if found.failed else 0


def _told(found: Diagnosis) -> Iterator[str]:
    for title, sentences in (
        (say("Configuration"), _configuration(found)),
        (say("Server"), _server(found)),
        (say("Providers"), _providers(found)),
        (say("Models"), _models(found)),
        (say("Timeouts"), [_timeouts(found.timeouts), _message_timeout(found)]),
    ):
        yield title
        yield from [f"  {harmless(sentence)}" for sentence in sentences]
        yield ""
    yield from [f"! {line(warning)}" for warning in found.warnings]
    yield from [f"✗ {line(mistake)}" for mistake in found.mistakes]
    yield _verdict(found)


def _configuration(found: Diagnosis) -> Iterator[str]:
    if found.sources:
        yield say("read from {sources}", sources=", ".join(found.sources))
    else:
        yield say("no file and no variables: the defaults hold (`cauce config init` writes a file)")
    yield from found.notes


_KEPT: dict[str, Callable[[], str]] = {
    "sqlite": lambda: say("streams are kept in a file: a restart goes on with them"),
    "postgres": lambda: say("streams are kept in PostgreSQL, which answers"),
    "redis": lambda: say("streams are kept in Redis, which answers"),
    "memory": lambda: say("streams are kept in memory: they end with the server"),
}


def _server(found: Diagnosis) -> Iterator[str]:
    server = found.server
    where = {"host": server.host, "port": server.port}
    if server.loopback:
        yield say("`cauce serve` listens on {host}:{port}, which only this machine reaches", **where)
    else:
        yield say("`cauce serve` listens on {host}:{port}, which other machines may reach", **where)
    match server.port_state.state:
        case "free":
            yield say("the port is free")
        case "cauce":
            yield say("a Cauce is running there now")
        case "taken":
            yield say("the port is taken by another program: stop that one, or choose another [server] port")
        case "refused":
            yield say("that address is not to be had: {reason}", reason=server.port_state.reason)
    if server.keys:
        yield say("API keys: {names}", names=", ".join(server.keys))
    else:
        yield say("no API keys: any key or none is accepted")
    if server.connections is not None:
        yield say(
            "{files} files may be open (ulimit -Hn), which has room for {connections} connections at once",
            files=server.files,
            connections=server.connections,
        )
    if not server.data_dir_problem:
        yield say("the data folder {folder} can be written", folder=server.data_dir)
    if server.streams_folder:
        if not server.streams_folder_problem:
            yield say(
                "streams are kept in {folder}: servers that name it take over from each other",
                folder=server.streams_folder,
            )
    elif not server.stream_log_problem:
        yield _KEPT[server.stream_log]()


def _providers(found: Diagnosis) -> Iterator[str]:
    if not found.providers:
        yield say(
            "none configured: set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY, or see `cauce config init`"
        )
    for checked in found.providers:
        yield from _provider(checked, found.timeouts)
    if not found.discovery:
        yield say("servers on this machine are not looked for ([discovery] enabled = false)")
    elif not found.local:
        yield say("no model server was found on this machine")
    for server in found.local:
        yield say("{name}: found on this machine, {models}", name=server.name, models=_counted(server.models))
    yield say("offline: always there, answers from Cauce's own documentation")


def _provider(checked: Checked, common: Timeouts) -> Iterator[str]:
    key = say("a key is set") if checked.key_set else say("no key is set")
    seconds = f"{checked.seconds:.2f}"
    if checked.models is None:
        yield f"✗ {checked.name}: {checked.base_url}, {key}"
        yield f"    {line(checked.error)} ({seconds} s)"
        if checked.advice:
            yield f"    → {checked.advice}"
    else:
        answered = say("lists {models} in {seconds} s", models=_counted(checked.models), seconds=seconds)
        yield f"✓ {checked.name}: {checked.base_url}, {key}, {answered}"
    if checked.handshake is not None:
        yield f"    {_handshake(checked.handshake)}"
    if checked.timeouts != common:
        yield f"    {_timeouts(checked.timeouts)}"
    if checked.overrides:
        yield f"    {_overrides(checked.overrides)}"


def _counted(models: int) -> str:
    return say("1 model") if models == 1 else say("{count} models", count=models)


def _handshake(took: Handshake) -> str:
    """What a new connection took: `cauce serve` has it ready before anybody asks."""
    steps = [say("connected in {ms:.1f} ms", ms=took.connect * 1000)]
    if took.tls is not None:
        steps.append(say("TLS in {ms:.1f} ms", ms=took.tls * 1000))
    if took.first_byte is not None:
        steps.append(say("first byte after {ms:.1f} ms", ms=took.first_byte * 1000))
    return ", ".join(steps)


def _models(found: Diagnosis) -> Iterator[str]:
    if found.auto:
        yield say("auto asks, in this order: {models}", models=" > ".join(found.auto))
    for name, candidates in found.routes.items():
        yield say("{name} asks, in this order: {models}", name=name, models=" > ".join(candidates))
        if said := found.route_overrides.get(name):
            yield f"    {_overrides(said)}"
    for alias, target in found.aliases.items():
        yield say("{alias} stands for {model}", alias=alias, model=target)
    yield say("a request that names no model goes to {model}", model=found.default)


def _timeouts(timeouts: Timeouts) -> str:
    return say(
        "{connect:g} s to connect, {first_delta:g} s to the first words, {idle:g} s between bytes, "
        "{stalled:g} s of nothing but pings, {total:g} s in all, "
        "{logged:g} s where the answer is a logged stream",
        **msgspec.structs.asdict(timeouts),
    )


def _overrides(said: dict[str, dict[str, object]]) -> str:
    """Members by table, as they stand in the file."""
    members = [
        f"{table}.{name} = {msgspec.json.encode(value).decode()}"
        for table, own in said.items()
        for name, value in own.items()
    ]
    return say("of its own: {settings}", settings=", ".join(members))


def _message_timeout(found: Diagnosis) -> str:
    return say("{seconds:g} s for a plain answer of /llm/message", seconds=found.message_timeout)


def _verdict(found: Diagnosis) -> str:
    if found.mistakes:
        return say("`cauce serve` would refuse to start")
    if found.failed:
        return say("not every provider answers: {names}", names=", ".join(found.failed))
    return say("all is well")
