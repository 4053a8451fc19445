"""`python -m bench`: measures the named systems and prints a JSON line for each and for the machine, then the tables.

Progress goes to standard error, results to standard output. Every phase, start and stop is bounded in time.
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from bench import report
from bench.catalogue import catalogue
from bench.driver import Driver
from bench.phases import FULL, QUICK


def _arguments() -> argparse.Namespace:
    known = ",".join(catalogue())
    parser = argparse.ArgumentParser(prog="python -m bench", description="Cauce measured beside its neighbours.")
    parser.add_argument("--systems", default=known, metavar="A,B", help=f"default: {known}")
    parser.add_argument("--rounds", type=int, help="interleaved rounds, the medians count (default: 5; quick: 3)")
    parser.add_argument("--quick", action="store_true", help="shorter phases: for a look, not for a claim")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything, each round included")
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.systems.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(catalogue())):
        parser.error(f"unknown system {', '.join(unknown)}; known are {known}")
    arguments.systems = list(dict.fromkeys(names))
    if arguments.rounds is None:
        arguments.rounds = 3 if arguments.quick else 5
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return arguments


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM leaves through the same doors as an error, so that everything started is stopped."""
    raise SystemExit(128 + number)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _end)
    known = catalogue()
    machine = report.machine()
    driver = Driver([known[name] for name in arguments.systems], QUICK if arguments.quick else FULL, _say)
    records = driver.run(arguments.rounds)
    summaries = report.summaries(records)
    for summary in summaries:
        print(json.dumps(summary))
    print(json.dumps({"machine": machine}))
    print()
    print(report.tables(records))
    if arguments.json:
        rounds = {record.name: record.rounds for record in records}
        whole = {"machine": machine, "quick": arguments.quick, "systems": summaries, "rounds": rounds}
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0 if any(record.rounds for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
