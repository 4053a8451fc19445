"""A real PostgreSQL server for tests, from the package `pgserver`."""

import contextlib
import importlib.util
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a server that runs. Skips the test, and says so, where none can be had."""
    if importlib.util.find_spec("pgserver") is None:
        pytest.skip(f"no PostgreSQL server: `pgserver` carries none for {sys.platform} with this Python")
    with warnings.catch_warnings():
        # One of its own dependencies tells where it puts its lock.
        warnings.simplefilter("ignore")
        import pgserver

        # Not below the test's own folder: the path of its socket would be too long.
        folder = tempfile.mkdtemp(prefix="cauce-pg-")
        server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
