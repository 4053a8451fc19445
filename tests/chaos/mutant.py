"""What a mutant is: a server that breaks one rule, and the run that has to find it out."""

from collections.abc import Mapping
from typing import Any

import msgspec

from cauce.testing.chaos import NodeSettings


class Mutant(msgspec.Struct, frozen=True):
    """`rule` is what it does not keep, `parts` what it has in place of ours, by `module:name`, `caught` the invariants that it breaks.

    `run` are the settings of the run that is aimed at it, `settings` those of its nodes, but for their lease; two nodes share one file.
    """

    name: str
    rule: str
    caught: tuple[str, ...]
    parts: Mapping[str, object]
    run: Mapping[str, Any] = {}
    settings: NodeSettings = NodeSettings()
