"""A node of the chaos runs: `cauce serve` with the parts of one mutant put in, where the streams are made.

python -m tests.chaos.node MUTANT --config FILE --port N
"""

import functools
import importlib
import sys
from typing import Any

from cauce.bootstrap import runtime
from cauce.bootstrap.streaming import Streaming, streaming
from cauce.cli import serve
from cauce.cli.main import main
from tests.chaos.mutants import MUTANTS, Mutant


def made(mutant: Mutant, *arguments: Any, **named: Any) -> Streaming:
    """The streams, with what the mutant has in place of ours."""
    for place, part in mutant.parts.items():
        module, _, name = place.partition(":")
        found = importlib.import_module(module)
        # A place that is not there any more would make a mutant that is none.
        assert hasattr(found, name), f"{place} is gone: the mutant {mutant.name!r} has to move"
        setattr(found, name, part)
    return streaming(*arguments, **named)


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    serve.runtime = functools.partial(runtime, streams=functools.partial(made, MUTANTS[name]))
    sys.exit(main(["serve", *rest]))
