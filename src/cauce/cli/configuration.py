"""How commands that write for people come by their configuration."""

import argparse
import logging
import os
import sys
from pathlib import Path

from cauce.cli.terminal import lenient_output
from cauce.config import Config, load


def configured(arguments: argparse.Namespace) -> Config:
    """The configuration that `arguments` name. Raises `ConfigError`.

    Prepares the process for a command that writes for people: the log says only what is broken, unless it is set to `debug`.
    """
    config = load(arguments.config, os.environ, Path.cwd())
    level = logging.DEBUG if config.log.level == "debug" else logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    lenient_output()
    return config
