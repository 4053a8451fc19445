"""A node of the chaos runs: `cauce serve`, whose clock can be moved and whose disk is watched, with the parts of one mutant put in.

python -m tests.chaos.node MUTANT --config FILE --port N

It is the shipped server but for that: it sweeps often, and what SQLite syncs is noted (`power`). The mutant `none` has no parts.
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from cauce.cli.main import main
from tests.chaos import power
from tests.chaos.clocks import moved_by
from tests.chaos.mutants import MUTANTS

_SWEEP_EVERY = 0.25


def put_in(parts: Mapping[str, object]) -> None:
    """Have these in place of ours."""
    for place, part in parts.items():
        module, _, name = place.partition(":")
        found = importlib.import_module(module)
        # A place that is not there any more would make a mutant that is none.
        assert hasattr(found, name), f"{place} is gone: what is put there has to move"
        setattr(found, name, part)


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    config = Path(rest[rest.index("--config") + 1])
    put_in(
        {
            "cauce.bootstrap.running:SystemClock": moved_by(config.with_suffix(".clock")),
            "cauce.engine.streams.streams:_SWEEP_EVERY": _SWEEP_EVERY,
        }
    )
    power.watch()
    put_in(MUTANTS[name].parts)
    sys.exit(main(["serve", *rest]))
