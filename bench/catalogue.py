"""Every system the driver knows, in the order in which they are measured."""

from bench.systems.cauce import Cauce
from bench.systems.direct import Direct
from bench.systems.litellm import LiteLLM
from bench.systems.nginx import Nginx
from bench.systems.portkey import Portkey
from bench.systems.system import System
from bench.systems.tensorzero import TensorZero


def catalogue() -> dict[str, System]:
    """Name to system."""
    systems: tuple[System, ...] = (
        Direct(),
        Nginx(),
        Cauce(),
        Cauce(limited=True),
        TensorZero(),
        Portkey(),
        LiteLLM(),
        LiteLLM(production=True),
    )
    return {system.name: system for system in systems}
