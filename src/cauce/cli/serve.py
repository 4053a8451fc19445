"""Start the server. It works with nothing configured: local model servers are found by themselves, and the built-in offline
answerer knows Cauce's documentation.

Settings come from cauce.toml in this folder (or --config FILE) and from CAUCE_SECTION__KEY variables.
"""

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec

from cauce.bootstrap import runtime
from cauce.bootstrap.keeping import lock
from cauce.cli.banner import banner
from cauce.cli.ground import open_door
from cauce.cli.main import configuration_argument
from cauce.cli.unfitting import unfitting_globs
from cauce.config import Config, ConfigError, load
from cauce.server.door import places, raise_limit
from cauce.server.run import HTTPServer, listen

COLLECT_AFTER = (10_000, 20, 20)
"""How many objects more than were freed start a collection, and how many of one generation one of the next: a request makes a
few hundred, nearly all of them freed by counting."""

LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_TIME = "%Y-%m-%dT%H:%M:%S%z"

PORT_TAKEN = 1

logger = logging.getLogger("cauce.cli")


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    configuration_argument(command)
    command.add_argument("--host", help="address to listen on (default 127.0.0.1; others need API keys)")
    command.add_argument("--port", type=int, help="port to listen on (default 8000)")
    command.add_argument("--insecure", action="store_true", help="listen on other addresses even without API keys")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    config = _configured(arguments)
    logging.basicConfig(level=config.log.level.upper(), format=LOG_LINE, datefmt=LOG_TIME, stream=sys.stderr)
    if config.log.level == "info":
        # What uvicorn tells at this level, the banner tells better.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    _refuse_open_door(config, insecure=arguments.insecure)
    # What is kept holds what people asked: it is for this user alone.
    os.umask(0o077)
    files = raise_limit()
    try:
        sockets = listen(config.server.host, config.server.port)
    except OSError as error:
        print(_port_taken(config, error), file=sys.stderr)
        return PORT_TAKEN
    held = lock(config)
    built = runtime(config, sockets[0].getsockname()[1], on_disk=True)

    async def ready() -> None:
        await built.first_scan.wait()
        # What is built by now stays: the collector need not look at it with every few hundred requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        for sentence in unfitting_globs(built):
            logger.warning("%s", sentence)
        print(banner(built, sockets), flush=True)

    # uvicorn ends gracefully on these and then raises them again: to us they have done their work.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _done)
    HTTPServer(built.services, ready, most=places(files)).run(sockets)
    held.close()
    return 0


def _done(number: int, frame: object) -> None:
    """A signal that has been answered."""


def _configured(arguments: argparse.Namespace) -> Config:
    config = load(arguments.config, os.environ, Path.cwd())
    given = {name: getattr(arguments, name) for name in ("host", "port") if getattr(arguments, name) is not None}
    if not given:
        return config
    if not 0 <= given.get("port", 0) <= 65535:
        raise ConfigError("--port: must be a number from 0 to 65535")
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **given))


def _refuse_open_door(config: Config, *, insecure: bool) -> None:
    if insecure or not open_door(config):
        return
    raise ConfigError(
        f"listening on {config.server.host} without API keys would let anyone use your models: "
        "make a key with `cauce keys new NAME`, or pass --insecure"
    )


def _port_taken(config: Config, error: OSError) -> str:
    server = config.server
    return (
        f"cauce: cannot listen on {server.host}:{server.port}: {error.strerror or error}. "
        "If another Cauce or a vLLM server (same default port) holds it, stop that one or choose another: "
        f"cauce serve --port {server.port + 1}"
    )
