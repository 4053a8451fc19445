"""The mock itself, called without anything between: what every added latency is measured against."""

from pathlib import Path

from bench.load import Target
from bench.systems.system import Launch


class Direct:
    """No process of its own. Its CPU is the mock's and shows that the mock is not the bottleneck."""

    name = "direct"

    def install(self) -> str:
        return "the mock"

    def launch(self, folder: Path, port: int, upstream_port: int) -> Launch:
        return Launch(command=(), target=Target(upstream_port))
