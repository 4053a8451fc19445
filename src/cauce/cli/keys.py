"""Make and list API keys.

  cauce keys new web                    print a new key, once, and the lines that make a server accept it
  cauce keys new web --write cauce.toml    add those lines to a file; only the key goes to stdout
  cauce keys list                       names, tenants, and the first digits of their hashes

The configuration holds hashes only, so a lost key cannot be shown again: make another.
"""

import argparse
import os
import re
import secrets
import sys
import tomllib
from pathlib import Path

from cauce.cli.configuration import configured
from cauce.cli.main import MISUSE, configuration_argument
from cauce.cli.terminal import complain
from cauce.cli.words import say
from cauce.config import Config, ConfigError, load
from cauce.server.gate import hash_key

SHOWN_DIGITS = 12
"""Digits of a hash that are ever shown: enough to tell keys apart."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RANDOM_BYTES = 32


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make a key and print it, once")
    new.add_argument("name", help="who will use it: letters, digits, dots, dashes, underscores")
    new.add_argument("--tenant", default="default", help="whose conversations and memory it reaches (default: default)")
    new.add_argument("--write", type=Path, metavar="FILE", help="add the lines to this configuration file")
    configuration_argument(new)
    listing = actions.add_parser("list", help="list the keys of the configuration")
    configuration_argument(listing)


def run(arguments: argparse.Namespace) -> int:
    """Make a key or list them."""
    if arguments.action == "list":
        return _list(configured(arguments))
    for place, value in (("NAME", arguments.name), ("--tenant", arguments.tenant)):
        if _NAME.fullmatch(value) is None:
            complain(
                say(
                    "{place}: begins with a letter or digit, then letters, digits, dots, dashes and underscores",
                    place=place,
                )
            )
            return MISUSE
    return _new(arguments)


def new_key() -> str:
    """A key: 8 digits that tell it from others, and 32 random bytes."""
    return f"cauce_{secrets.token_hex(4)}_{secrets.token_urlsafe(_RANDOM_BYTES)}"


def _new(arguments: argparse.Namespace) -> int:
    file: Path | None = arguments.write
    config = load(file, os.environ, Path.cwd()) if file is not None and file.exists() else configured(arguments)
    if arguments.name in [key.name for key in config.auth.keys]:
        complain(say("there is a key called {name} already: choose another name", name=arguments.name))
        return MISUSE
    key = new_key()
    lines = f'[[auth.keys]]\nname = "{arguments.name}"\nhash = "{hash_key(key)}"\ntenant = "{arguments.tenant}"\n'
    if file is not None:
        _append(file, lines)
        _explain(say("{file} accepts this key from the next start on; it is not shown again:", file=file))
        print(key)
    else:
        _explain(say("The key. It is not shown again:"))
        print(key)
        _explain("\n" + say("Add these lines to cauce.toml and start the server again:"))
        print(f"\n{lines}", end="")
    return 0


def _append(file: Path, lines: str) -> None:
    """Add `lines` to `file`, which is made for its owner alone. Raises `ConfigError` if it could not be read afterwards."""
    try:
        before = file.read_text("utf-8") if file.exists() else ""
        addition = ("" if before == "" or before.endswith("\n") else "\n") + ("\n" if before else "") + lines
        tomllib.loads(before + addition)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8") as opened:
            opened.write(addition)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{file}: its keys are written as one list, which nothing can be added to at the end: "
            "write each as [[auth.keys]], or add the new one by hand"
        ) from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error


def _list(config: Config) -> int:
    keys = config.auth.keys
    if not keys:
        _explain(say("no keys: any key or none is accepted, from this machine only"))
        return 0
    width = max([len(key.name) for key in keys])
    tenant_width = max([len(key.tenant) for key in keys])
    for key in keys:
        digits = key.hash.removeprefix("sha256:")[:SHOWN_DIGITS]
        print(f"{key.name:<{width}}  {key.tenant:<{tenant_width}}  sha256:{digits}…")
    return 0


def _explain(text: str) -> None:
    """Say something beside the output, which scripts may keep: on stderr."""
    print(text, file=sys.stderr, flush=True)
