"""List the models that can be asked: public names, what each provider offers, local servers that are running, aliases.

Every name in the first column may be sent as `model`, to this command's siblings and to a server with the same configuration.
"""

import argparse
import asyncio
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

from cauce.bootstrap import Runtime
from cauce.cli.configuration import configured
from cauce.cli.main import configuration_argument
from cauce.cli.session import PATIENT, learn, session
from cauce.cli.terminal import complain, line
from cauce.cli.words import say
from cauce.config import Config
from cauce.domain.errors import ModelNotFound
from cauce.domain.model import ModelFacts
from cauce.domain.request import Request
from cauce.engine.routing.names import AUTO
from cauce.engine.routing.router import Router
from cauce.engine.routing.source import Source
from cauce.ports.provider import ModelInfo

Kind = Literal["route", "provider", "local", "offline", "alias"]


class Name(msgspec.Struct, frozen=True, omit_defaults=True):
    """A name and what it stands for: `asks` in order for routes and aliases, a window in tokens where it is known.

    Prices are USD per million tokens.
    """

    name: str
    kind: Kind
    default: bool = False
    asks: tuple[str, ...] = ()
    context_window: int | None = None
    loaded: bool | None = None
    input_price: float | None = None
    output_price: float | None = None


class Unlisted(msgspec.Struct, frozen=True):
    """A provider that did not tell its models."""

    provider: str
    error: str


class Listing(msgspec.Struct, frozen=True):
    """All names, and the providers whose models could not be listed."""

    models: tuple[Name, ...]
    errors: tuple[Unlisted, ...]


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    configuration_argument(command)


def run(arguments: argparse.Namespace) -> int:
    """List them. A provider that does not answer is named, and is no failure."""
    config = configured(arguments)
    listing = asyncio.run(_listing(config))
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(listing)).decode())
        return 0
    _show(listing)
    for unlisted in listing.errors:
        complain(say("{provider} does not list its models: {error}", provider=unlisted.provider, error=unlisted.error))
    return 0


async def _listing(config: Config) -> Listing:
    async with session(config, PATIENT) as running:
        failures = await learn(running)
        routes = [AUTO, *[name for name in config.models if name != AUTO]]
        names = [
            *[_cascade(running, name, "route") for name in routes],
            *[name for source in running.router.sources for name in _offered(running.router, source)],
            *[_cascade(running, name, "alias") for name in running.router.aliases()],
        ]
        marked = [msgspec.structs.replace(name, default=name.name == running.router.default) for name in names]
        return Listing(tuple(marked), tuple([Unlisted(name, error.message) for name, error in failures.items()]))


def _cascade(running: Runtime, name: str, kind: Kind) -> Name:
    try:
        asked = running.router.candidates(Request(name, ()))
    except ModelNotFound:
        return Name(name, kind)
    return Name(name, kind, asks=tuple(dict.fromkeys([candidate.name for candidate in asked])))


def _offered(router: Router, source: Source) -> list[Name]:
    """The models of `source`, its default first."""
    provider = source.provider.name
    if source.sole:
        return [Name(provider, "offline")]
    default = source.default_model
    models = [] if default is None or default in [info.id for info in source.models] else [ModelInfo(default)]
    models += sorted(source.models, key=lambda info: info.id != default)
    kind: Kind = "local" if source.local else "provider"
    return [_named(f"{provider}/{info.id}", kind, info, router.facts(source, info.id)) for info in models]


def _named(name: str, kind: Kind, info: ModelInfo, facts: ModelFacts) -> Name:
    rates = facts.prices.rates if facts.prices is not None else None
    return Name(
        name,
        kind,
        context_window=facts.context_window,
        loaded=info.loaded,
        input_price=rates.input if rates is not None else None,
        output_price=rates.output if rates is not None else None,
    )


def _show(listing: Listing) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column(say("name"), overflow="fold")
    table.add_column(say("kind"), no_wrap=True)
    table.add_column("", overflow="fold", style="dim")
    for name in listing.models:
        if name.kind == "alias" and not name.asks:
            # An alias built in for a provider that is not configured.
            continue
        table.add_row(line(name.name), _kind(name), _remarks(name))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Nothing is folded for a program that reads lines.
        console.width = 10_000
    console.print(table)


def _kind(name: Name) -> str:
    kinds: dict[Kind, str] = {
        "route": say("route"),
        "provider": say("provider"),
        "local": say("local"),
        "offline": say("offline"),
        "alias": say("alias"),
    }
    return kinds[name.kind]


def _remarks(name: Name) -> str:
    """What else is known of it."""
    remarks = [say("answers when no model is named")] if name.default else []
    if name.asks:
        remarks.append(say("asks {models}", models=" > ".join([line(asked) for asked in name.asks])))
    elif name.kind in ("route", "alias"):
        remarks.append(say("none of its models is there now"))
    if name.kind == "offline":
        remarks.append(say("answers from Cauce's own documentation"))
    if name.context_window is not None:
        remarks.append(say("window {tokens} tokens", tokens=name.context_window))
    if name.input_price is not None and name.output_price is not None:
        remarks.append(
            say(
                "{input} USD in, {output} USD out per million tokens",
                input=f"{name.input_price:g}",
                output=f"{name.output_price:g}",
            )
        )
    if name.loaded:
        remarks.append(say("loaded"))
    return ", ".join(remarks)
