"""`make chaos`: the short run, and every mutant. `make chaos-long` (`--long`): hundreds of streams on each store.

python -m tests.chaos [--long] [--seed N] [--store NAME] [--write]
"""

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path

from cauce.testing.chaos import Report, chaos, write
from tests.chaos.mutants import CATCHABLE, POWER, POWER_NORMAL
from tests.chaos.runs import (
    LONG_AT_LEAST,
    LONG_STORES,
    REFERENCE,
    alone,
    away,
    caught,
    long,
    long_losing,
    losing,
    reference,
    shared,
    short,
    standing,
    told,
    too_little,
)

_REPORTS = Path(".bench")


def main() -> int:
    """Exit code 1 when something was violated, or a mutant survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long run")
    parser.add_argument("--store", choices=LONG_STORES, help="of the long run, this store only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the tables of docs/reference/chaos.md")
    arguments = parser.parse_args()
    if arguments.write:
        REFERENCE.write_text(reference(REFERENCE.read_text("utf-8")), "utf-8")
        return 0
    if arguments.long:
        return _long((arguments.store,) if arguments.store else LONG_STORES, arguments.seed)
    return _short(arguments.seed)


def _short(seed: int) -> int:
    with alone() as there:
        found = asyncio.run(chaos(short(there, seed)))
    print(told(found), flush=True)
    _REPORTS.mkdir(exist_ok=True)
    write(found, _REPORTS / "chaos.html")
    violations, little = len(found.violations), too_little(found)
    for run in (POWER, POWER_NORMAL):
        found = asyncio.run(caught(run))
        print(f"{run.name}: {told(found)}", flush=True)
        violations += len(found.violations)
    for store in ("postgres", "redis"):
        with standing(store, lease=1.0) as (ground, _):
            found = asyncio.run(chaos(shared(ground)))
        print(f"{store}, two nodes: {told(found)}", flush=True)
        violations += len(found.violations)
    violations += sum([len(found.violations) for found in _redis()])
    survived = 0
    for mutant in CATCHABLE:
        broken = asyncio.run(caught(mutant)).broken
        dead = set(mutant.caught) <= set(broken)
        survived += not dead
        seen = ", ".join([f"{name} ({count})" for name, count in broken.items()])
        print(f"  {'caught  ' if dead else 'SURVIVED'}  {mutant.name:<40} {seen}", flush=True)
    print(f"{len(CATCHABLE) - survived} of {len(CATCHABLE)} mutants were caught")
    if little:
        print(f"too little of: {', '.join(little)}")
    return 1 if survived or violations or little else 0


def _redis() -> list[Report]:
    """The runs in which Redis itself dies."""
    reports: list[Report] = []
    for name, settings in (("away", away), ("its tail lost", losing)):
        with standing("redis", lease=1.0) as (there, backing):
            assert backing is not None
            reports.append(asyncio.run(chaos(settings(there, backing))))
        print(f"redis, {name}: {told(reports[-1])}", flush=True)
    return reports


def _long(stores: tuple[str, ...], seed: int) -> int:
    all_of: Counter[str] = Counter()
    violations = 0
    for number, store in enumerate(stores):
        with standing(store) as (there, backing):
            settings = long_losing if store == "sqlite-normal" else long
            found = asyncio.run(chaos(settings(there, seed + number, backing)))
        print(f"{store}: {told(found)}", flush=True)
        _REPORTS.mkdir(exist_ok=True)
        write(found, _REPORTS / f"chaos-{store}.html")
        all_of.update({"events": found.events, **found.faults})
        violations += len(found.violations)
    if "redis" in stores:
        violations += sum([len(found.violations) for found in _redis()])
    hurt = ", ".join([f"{all_of[what]:,} {what}" for what in LONG_AT_LEAST])
    print(f"together: {hurt}, {violations} violations")
    short_of = [what for what, least in LONG_AT_LEAST.items() if stores == LONG_STORES and all_of[what] < least]
    if short_of:
        print(f"too little of: {', '.join(short_of)}")
    return 1 if violations or short_of else 0


if __name__ == "__main__":
    sys.exit(main())
