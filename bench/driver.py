"""The run: try every system once, then measure them in turn, round after round, beside one mock.

With two cores or more, the system under test has one to itself and mock and load share another. Rounds are
interleaved (A B C, A B C) so that a slow minute of the machine hits all alike.
"""

import http.client
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from bench import process_tree, traffic
from bench.load import Target
from bench.phases import Figures, Round, Sizes
from bench.server_process import ServerProcess, ask, free_port
from bench.systems.system import Launch, System, Unavailable

_PATIENCE_SECONDS = 90.0
_TRIAL_SECONDS = 30.0
_MOCK_SECONDS = 6 * 3600

Say: TypeAlias = Callable[[str], None]


@dataclass
class Record:
    """What became of one system: its figures per round, or why it was skipped."""

    name: str
    version: str = ""
    rounds: list[Figures] = field(default_factory=list[Figures])
    errors: int = 0
    first_error: str | None = None
    skipped: str | None = None

    def note_error(self, count: int, text: str | None) -> None:
        self.errors += count
        self.first_error = self.first_error or text


@dataclass(frozen=True)
class Started:
    """A system that answers: where to call it, whose CPU and memory count, how long it took."""

    target: Target
    pid: int
    seconds: float | None


def cores() -> tuple[int | None, int | None]:
    """The core for the system under test and the one for mock and load; None twice on a single core."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


class Driver:
    """Owns the mock and starts systems beside it."""

    def __init__(self, systems: Sequence[System], sizes: Sizes, say: Say) -> None:
        self._systems = systems
        self._sizes = sizes
        self._say = say
        self._system_core, self._load_core = cores()

    def run(self, rounds: int) -> list[Record]:
        """One record per system, in the order given; nothing a system does ends the run."""
        records = {system.name: Record(system.name) for system in self._systems}
        for system in self._systems:
            self._say(f"preparing {system.name}")
            try:
                records[system.name].version = system.install()
            except Unavailable as error:
                self._skip(records[system.name], error)
        if self._load_core is not None:
            os.sched_setaffinity(0, {self._load_core})
        with self._mock() as mock:
            for system in self._alive(records):
                self._try_out(system, mock, records[system.name])
            for number in range(1, rounds + 1):
                for system in self._alive(records):
                    self._say(f"round {number} of {rounds}: {system.name}")
                    self._measure(system, mock, records[system.name])
        return list(records.values())

    def _alive(self, records: dict[str, Record]) -> list[System]:
        return [system for system in self._systems if records[system.name].skipped is None]

    def _skip(self, record: Record, error: Unavailable) -> None:
        record.skipped = " ".join(str(error).split())
        self._say(f"skipped {record.name}: {record.skipped}")

    @contextmanager
    def _mock(self) -> Generator[ServerProcess, None, None]:
        port = free_port()
        command = (sys.executable, "-m", "bench.mock", "--port", str(port), "--seconds", str(_MOCK_SECONDS))
        here = str(Path(__file__).resolve().parents[1])
        with tempfile.TemporaryDirectory(prefix="cauce-bench-") as name:
            mock = ServerProcess(Launch(command, Target(port), {"PYTHONPATH": here}), Path(name), self._load_core)
            try:
                mock.wait_for_answer(_PATIENCE_SECONDS)
                yield mock
            finally:
                mock.stop()

    @contextmanager
    def _started(self, system: System, mock: ServerProcess) -> Generator[Started, None, None]:
        """Starts the system in a folder of its own and stops it afterwards. Raises Unavailable."""
        with tempfile.TemporaryDirectory(prefix="cauce-bench-") as name:
            launch = system.launch(Path(name), free_port(), mock.target.port)
            if not launch.command:
                yield Started(launch.target, mock.pid, None)
                return
            server = ServerProcess(launch, Path(name), self._system_core)
            try:
                seconds = server.wait_for_answer(_PATIENCE_SECONDS)
                if exposed := process_tree.exposed_listeners(server.pid):
                    raise Unavailable(f"it listens beyond loopback on port {exposed}; stopped at once")
                yield Started(server.target, server.pid, seconds)
            finally:
                server.stop()

    def _try_out(self, system: System, mock: ServerProcess, record: Record) -> None:
        """A first start, not measured: proves each kind of stream word for word and writes byte-code."""
        self._say(f"trying {system.name} {record.version}")
        try:
            with self._started(system, mock) as started:
                for model in (traffic.BURST, traffic.PACED, traffic.TOOLS, traffic.TRANSLATED):
                    if (target := started.target.of(model)) is not None:
                        _prove_stream(target, model)
        except Unavailable as error:
            self._skip(record, error)

    def _measure(self, system: System, mock: ServerProcess, record: Record) -> None:
        try:
            with self._started(system, mock) as started:
                measured = Round(started.target, started.pid)
                measured.run(self._sizes)
        except Unavailable as error:
            record.note_error(1, str(error))
            # Keeps the rounds of all systems side by side; an added latency needs its neighbour.
            record.rounds.append({})
            return
        if started.seconds is not None:
            measured.figures["start_to_first_answer_s"] = started.seconds
        record.rounds.append(measured.figures)
        record.note_error(measured.errors, measured.first_error)


def _prove_stream(target: Target, model: str) -> None:
    """Raises Unavailable unless the stream carries every word in order and ends as it should."""
    try:
        status, body = ask(target, model, stream=True, timeout=_TRIAL_SECONDS)
        if status != 200:
            raise Unavailable(f"{model}: status {status}: {body[:200].decode(errors='replace')}")
        fault = traffic.fault_in_stream(body)
        if fault is None and traffic.stream_text(body) != traffic.STREAM_TEXT:
            fault = "the text is not the one that was sent"
    except (OSError, http.client.HTTPException, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        raise Unavailable(f"{model}: {fault}")
