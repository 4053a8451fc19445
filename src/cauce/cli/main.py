"""The command `cauce`: which commands there are, and running the one that was named.

Only the named command's module is imported, so that `cauce serve` does not wait for what `cauce chat` needs.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cauce import __version__
from cauce.cli.terminal import INTERRUPTED
from cauce.config import ConfigError

COMMANDS: dict[str, str] = {
    "serve": "start the server",
    "ask": "ask one question and print the answer as it comes",
    "chat": "talk with a model in the terminal",
    "models": "list the models that can be asked",
    "route": "explain where a request would go",
    "usage": "show what was used and what it cost",
    "keys": "make and list API keys",
    "check": "explain the configuration and try each provider",
    "config": "write a commented configuration file",
    "chaos": "prove that streams lose nothing, while everything is hurt",
}

_EPILOG = """\
first steps:
  cauce serve                      start on http://127.0.0.1:8000, no key needed
  cauce ask "What is Cauce?"       answered from the built-in documentation
  cauce config init                write cauce.toml, with every setting explained
  cauce check                      see what is configured and whether it works

`cauce COMMAND --help` explains a command.
"""

MISUSE = 2
"""Exit code of a mistake in the call or the configuration."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (default: the process's own); returns its exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="cauce",
        description="Cauce, the LLM application server: any client can talk to it, any model can answer.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cauce {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, help_line in COMMANDS.items():
        command = commands.add_parser(name, help=help_line, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == named:
            module = importlib.import_module(f"cauce.cli.{name}")
            command.description = module.__doc__
            module.configure(command)
            command.set_defaults(run=module.run)
    parsed = parser.parse_args(argv)
    try:
        return parsed.run(parsed)
    except ConfigError as error:
        print(f"cauce: {error}", file=sys.stderr)
        return MISUSE
    except BrokenPipeError:
        # The reader of our output has closed it (`cauce models | head`): what is left unwritten has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def configuration_argument(command: argparse.ArgumentParser) -> None:
    """The `--config` that every command takes which reads the configuration."""
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration file (default: $CAUCE_CONFIG, else ./cauce.toml if it is there)",
    )
