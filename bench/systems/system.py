"""What the driver needs to know of a system under test, and nothing about how it is measured."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.load import Target


class Unavailable(Exception):
    """The system cannot be installed or started here; the text is the one line that says why."""


@dataclass(frozen=True)
class Launch:
    """How to start a configured system. An empty command means that the mock itself is the system.

    A server that picks its own port gets a target with port 0 and writes the port it got to `port_file`.
    """

    command: tuple[str, ...]
    target: Target
    environment: dict[str, str] = field(default_factory=dict[str, str])
    port_file: Path | None = None


class System(Protocol):
    """A system under test. Its servers bind 127.0.0.1 and call the upstream on 127.0.0.1 only."""

    @property
    def name(self) -> str: ...

    def install(self) -> str:
        """Makes it ready to start, once, and returns its version. Raises Unavailable."""
        ...

    def launch(self, folder: Path, port: int, upstream_port: int) -> Launch:
        """Writes its configuration into the empty `folder` and says how to start it on `port`."""
        ...
