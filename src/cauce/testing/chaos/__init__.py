"""Chaos: streams of real nodes are read while nodes, provider and connections are hurt, and judged by what must hold of them.

    found = await chaos(Settings(Ground("sqlite", folder), streams=60, harm={"kill": 3}))
    assert not found.violations, found.broken

`cauce chaos` is the same as a command. Everything runs on loopback; the provider is `Oracle`, which knows what it said.
"""

from cauce.testing.chaos.faults import CALM, NodeFault, Rates
from cauce.testing.chaos.invariants import INVARIANTS, Violation
from cauce.testing.chaos.node import SERVE, Ground
from cauce.testing.chaos.plan import Settings, lasting, shortest
from cauce.testing.chaos.report import Report, page, write
from cauce.testing.chaos.run import chaos
from cauce.testing.chaos.settings import NodeSettings, Route

__all__ = [
    "CALM",
    "INVARIANTS",
    "SERVE",
    "Ground",
    "NodeFault",
    "NodeSettings",
    "Rates",
    "Report",
    "Route",
    "Settings",
    "Violation",
    "chaos",
    "lasting",
    "page",
    "shortest",
    "write",
]
