"""Write a commented configuration file, or show the configuration in force.

cauce config init             write cauce.toml here: every setting, commented out, with its default
cauce config show             what holds now, from file and variables together, without secrets
"""

import argparse
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import msgspec

from cauce.cli.configuration import configured
from cauce.cli.keys import SHOWN_DIGITS
from cauce.cli.main import MISUSE, configuration_argument
from cauce.cli.terminal import complain
from cauce.cli.words import say
from cauce.config import FILE, Config

FAILED = 1

_SECTIONS = (
    *("server", "timeouts", "retry", "recovery", "breaker", "queue", "limits", "budgets", "cache"),
    *("streams", "discovery", "fetch", "ledger", "responses", "conversations", "log"),
)


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = actions.add_parser("init", help="write a commented configuration file")
    init.add_argument("file", nargs="?", type=Path, default=Path(FILE), metavar="FILE", help=f"default: {FILE}")
    init.add_argument("--force", action="store_true", help="overwrite a file that is there")
    show = actions.add_parser("show", help="show the configuration in force, without secrets")
    configuration_argument(show)


def run(arguments: argparse.Namespace) -> int:
    """Write the file or show what holds."""
    if arguments.action == "init":
        return _init(arguments.file, force=arguments.force)
    for text in _shown(configured(arguments)):
        print(text)
    return 0


def template() -> str:
    """The commented file."""
    return files("cauce.cli").joinpath("template.toml").read_text("utf-8")


def _init(file: Path, *, force: bool) -> int:
    # Somebody will write a key into it, so it is its owner's alone from the start.
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(file, flags, 0o600), "w", encoding="utf-8") as opened:
            opened.write(template())
    except FileExistsError:
        complain(say("{file} is there already: --force overwrites it", file=file))
        return MISUSE
    except OSError as error:
        complain(say("{file} cannot be written: {reason}", file=file, reason=error.strerror))
        return FAILED
    print(say("{file} is written. Every setting in it is commented out: nothing has changed yet.", file=file))
    return 0


def _shown(config: Config) -> Iterator[str]:
    """`config` as TOML. Secrets are masked, so it is for reading, not for keeping."""
    yield f"# {', '.join(config.sources) or say('defaults')}"
    yield from [f"# {note}" for note in config.notes]
    for section in _SECTIONS:
        yield from _table(section, msgspec.structs.asdict(getattr(config, section)))
    if config.redis.url:
        yield from _table("redis", {**msgspec.structs.asdict(config.redis), "url": _masked(config.redis.url)})
    if config.postgres.url:
        yield from _table("postgres", {**msgspec.structs.asdict(config.postgres), "url": _masked(config.postgres.url)})
    for name, provider in config.providers.items():
        values = msgspec.structs.asdict(provider)
        masked: dict[str, Any] = {"api_key": _masked(provider.api_key)}
        masked["deployments"] = [
            msgspec.structs.replace(one, api_key=_masked(one.api_key)) for one in provider.deployments
        ]
        yield from _table(f"providers.{_key(name)}", {**values, **masked})
    for name, model in config.models.items():
        yield from _table(f"models.{_key(name)}", msgspec.structs.asdict(model))
    for pattern, facts in config.facts.items():
        yield from _table(f"facts.{_key(pattern)}", msgspec.structs.asdict(facts))
    if config.aliases:
        yield from _table("aliases", config.aliases)
    for key in config.auth.keys:
        digits = key.hash.removeprefix("sha256:")[:SHOWN_DIGITS]
        yield from _table("[auth.keys]", {"name": key.name, "hash": f"sha256:{digits}…", "tenant": key.tenant})
    defaults = {name: value for name, value in msgspec.structs.asdict(config.environment).items() if value}
    if defaults:
        yield (
            "\n# " + say("from other variables") + ": " + ", ".join([f"{k} = {_value(v)}" for k, v in defaults.items()])
        )


def _masked(secret: str) -> str:
    return "***" if secret else ""


def _table(name: str, values: dict[str, Any]) -> Iterator[str]:
    yield f"\n[{name}]"
    yield from [f"{_key(key)} = {_value(value)}" for key, value in values.items() if _is_set(value)]


def _is_set(value: Any) -> bool:
    return value is not None and (not isinstance(value, msgspec.Struct) or bool(_members(value)))


def _members(value: msgspec.Struct | dict[str, Any]) -> dict[str, Any]:
    members = msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value
    return {name: member for name, member in members.items() if member is not None}


def _key(name: str) -> str:
    bare = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    return name if bare else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, msgspec.Struct | dict):
        members = _members(cast(msgspec.Struct | dict[str, Any], value))
        inside = ", ".join([f"{_key(name)} = {_value(member)}" for name, member in members.items()])
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple) and any([isinstance(one, msgspec.Struct) for one in cast(list[Any], value)]):
        return f"[{', '.join([_value(one) for one in cast(list[Any], value)])}]"
    # JSON's strings are TOML's basic strings but for DEL, and its lists of them, of numbers and of booleans are TOML's too.
    return msgspec.json.encode(value).decode()
