"""`python -m bench.open_streams`: many slow streams open at once on one Cauce process; what they need of memory and CPU.

Every stream has 64 deltas, `--pace` seconds apart: slow enough that all are open together. One line of JSON on standard output.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvloop

from bench import process_tree, traffic
from bench.driver import cores
from bench.load import Load, Target, run
from bench.server_process import ServerProcess, free_port
from bench.systems.cauce import Cauce
from bench.systems.system import Launch

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.25


class Peak(threading.Thread):
    """Looks at the resident memory of a process tree now and then, and keeps the most it saw."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self.megabytes = 0.0

    def run(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            self.megabytes = max(self.megabytes, process_tree.resident_megabytes(self._pid))

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.megabytes


def measure(streams: int, pace: float) -> dict[str, object]:
    """The figures of `streams` open together, with a delta every `pace` seconds each."""
    system_core, load_core = cores()
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="cauce-bench-") as name:
        folder = Path(name)
        (folder / "mock").mkdir()
        (folder / "cauce").mkdir()
        port = free_port()
        here = str(Path(__file__).resolve().parents[1])
        command = (sys.executable, "-m", "bench.mock", "--port", str(port), "--pace", str(pace))
        mock = ServerProcess(Launch(command, Target(port), {"PYTHONPATH": here}), folder / "mock", load_core)
        try:
            mock.wait_for_answer(PATIENCE_SECONDS)
            served = ServerProcess(Cauce().launch(folder / "cauce", free_port(), port), folder / "cauce", system_core)
            try:
                served.wait_for_answer(PATIENCE_SECONDS)
                return _with(served, streams, pace)
            finally:
                served.stop()
        finally:
            mock.stop()


def _with(served: ServerProcess, streams: int, pace: float) -> dict[str, object]:
    load = Load(traffic.PACED, concurrency=streams, count=streams, seconds=PATIENCE_SECONDS + traffic.DELTAS * pace)
    idle = process_tree.resident_megabytes(served.pid)
    before = process_tree.cpu_nanoseconds(served.pid)
    peak = Peak(served.pid)
    peak.start()
    outcome = uvloop.run(run(served.target, load))
    loaded = peak.stop()
    cpu = process_tree.cpu_nanoseconds(served.pid) - before
    time.sleep(1.0)
    return {
        "streams": streams,
        "complete": outcome.completed,
        "errors": outcome.errors,
        "first_error": outcome.first_error,
        "seconds": round(outcome.seconds, 1),
        "idle_mb": round(idle, 1),
        "open_mb": round(loaded, 1),
        "after_mb": round(process_tree.resident_megabytes(served.pid), 1),
        "kb_per_stream": round((loaded - idle) * 1000 / streams, 1),
        "core_busy": round(cpu / 1e9 / outcome.seconds, 3),
        "cpu_us_per_chunk": round(cpu / max(1, outcome.chunks) / 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.open_streams", description="Many slow streams on one process."
    )
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--pace", type=float, default=0.25, help="seconds between two deltas of a stream")
    arguments = parser.parse_args()
    measured = measure(arguments.streams, arguments.pace)
    print(json.dumps(measured))
    if measured["complete"] != arguments.streams:
        sys.exit("not all streams are complete")


if __name__ == "__main__":
    main()
