"""The phases of one round of one system, and the figures they yield.

CPU is user plus system time of the system's whole process tree, read before a phase and again once the
system has been left alone for half a second after it, so that work put off until after the answer counts.

- Per request: the CPU of the plain phase / its answers.
- Per chunk: the CPU of a stream phase / the content deltas that arrived (64 per stream). It is the whole
  cost of the streamed requests spread over their deltas: nothing is subtracted for accepting, routing or
  closing them. The project's targets per relayed chunk are meant so. For a system whose plain request
  costs R us, R/64 is the share that a subtraction would take away.
"""

import time
from dataclasses import dataclass
from typing import TypeAlias

import uvloop

from bench import process_tree, traffic
from bench.load import Load, Outcome, Target, run

SETTLE_SECONDS = 0.5


@dataclass(frozen=True)
class Sizes:
    """Counts and seconds of each phase; a phase ends with whichever is reached first."""

    warm_up: Load
    warm_up_stream: Load
    plain: Load
    alone: Load
    crowd: Load
    burst: Load
    paced: Load
    tools: Load
    translated: Load
    cached: Load
    missed: Load


FULL = Sizes(
    warm_up=Load(traffic.PLAIN, concurrency=32, count=2_000, seconds=3),
    warm_up_stream=Load(traffic.BURST, concurrency=8, count=100, seconds=2),
    plain=Load(traffic.PLAIN, concurrency=32, count=20_000, seconds=8),
    alone=Load(traffic.PLAIN, concurrency=1, count=3_000, seconds=5),
    crowd=Load(traffic.PLAIN, concurrency=64, count=15_000, seconds=6),
    burst=Load(traffic.BURST, concurrency=8, count=2_000, seconds=8),
    paced=Load(traffic.PACED, concurrency=8, count=24, seconds=8),
    tools=Load(traffic.TOOLS, concurrency=8, count=1_000, seconds=6),
    translated=Load(traffic.TRANSLATED, concurrency=8, count=1_000, seconds=6),
    cached=Load(traffic.CACHED, concurrency=32, count=20_000, seconds=6),
    missed=Load(traffic.MISSED, concurrency=32, count=10_000, seconds=6),
)
QUICK = Sizes(
    warm_up=Load(traffic.PLAIN, concurrency=32, count=500, seconds=1.5),
    warm_up_stream=Load(traffic.BURST, concurrency=8, count=40, seconds=1),
    plain=Load(traffic.PLAIN, concurrency=32, count=5_000, seconds=2.5),
    alone=Load(traffic.PLAIN, concurrency=1, count=500, seconds=2),
    crowd=Load(traffic.PLAIN, concurrency=64, count=4_000, seconds=2),
    burst=Load(traffic.BURST, concurrency=8, count=400, seconds=2.5),
    paced=Load(traffic.PACED, concurrency=8, count=8, seconds=4),
    tools=Load(traffic.TOOLS, concurrency=8, count=300, seconds=2.5),
    translated=Load(traffic.TRANSLATED, concurrency=8, count=300, seconds=2.5),
    cached=Load(traffic.CACHED, concurrency=32, count=5_000, seconds=2),
    missed=Load(traffic.MISSED, concurrency=32, count=3_000, seconds=2),
)

Figures: TypeAlias = dict[str, float]


class Round:
    """Runs the phases against one started system and keeps what they yield."""

    def __init__(self, target: Target, pid: int) -> None:
        self.figures: Figures = {}
        self.errors = 0
        self.first_error: str | None = None
        self._target = target
        self._pid = pid

    def run(self, sizes: Sizes) -> None:
        """All phases in order; the figures are complete afterwards, save where no answer came."""
        time.sleep(SETTLE_SECONDS)
        idle = process_tree.resident_megabytes(self._pid)
        memory = [idle]
        for load in (sizes.warm_up, sizes.warm_up_stream):
            self._send(load)
        phases = (self._plain, self._latencies, self._burst, self._paced, self._tools, self._translated, self._caching)
        for phase in phases:
            phase(sizes)
            memory.append(process_tree.resident_megabytes(self._pid))
        self.figures |= {"rss_idle_mb": idle, "rss_load_mb": max(memory)}

    def _plain(self, sizes: Sizes) -> None:
        outcome, cpu = self._measure(sizes.plain)
        if outcome.completed:
            self.figures["cpu_us_per_request"] = cpu / outcome.completed / 1000
            self.figures["requests_per_second"] = outcome.per_second
            self.figures["core_busy"] = cpu / 1e9 / outcome.seconds

    def _latencies(self, sizes: Sizes) -> None:
        for load in (sizes.alone, sizes.crowd):
            outcome = self._send(load)
            if outcome.completed:
                self.figures[f"p50_us_c{load.concurrency}"] = outcome.percentile(0.5)
                self.figures[f"p99_us_c{load.concurrency}"] = outcome.percentile(0.99)

    def _burst(self, sizes: Sizes) -> None:
        outcome, cpu = self._measure(sizes.burst)
        if outcome.chunks:
            self.figures["cpu_us_per_chunk_burst"] = cpu / outcome.chunks / 1000
            self.figures["burst_stream_p50_us"] = outcome.percentile(0.5)
            self.figures["burst_stream_p99_us"] = outcome.percentile(0.99)

    def _paced(self, sizes: Sizes) -> None:
        outcome, cpu = self._measure(sizes.paced)
        if outcome.chunks:
            self.figures["cpu_us_per_chunk_paced"] = cpu / outcome.chunks / 1000

    def _tools(self, sizes: Sizes) -> None:
        outcome, cpu = self._measure(sizes.tools)
        if outcome.chunks:
            self.figures["cpu_us_per_chunk_tools"] = cpu / outcome.chunks / 1000

    def _translated(self, sizes: Sizes) -> None:
        if self._target.translated is None:
            return
        outcome, cpu = self._measure(sizes.translated)
        if outcome.chunks:
            self.figures["cpu_us_per_chunk_translated"] = cpu / outcome.chunks / 1000

    def _caching(self, sizes: Sizes) -> None:
        """Answers that were given before, and requests that were looked up in vain and whose answers are kept."""
        if not self._target.caches:
            return
        for load, figure in ((sizes.cached, "cpu_us_per_cache_hit"), (sizes.missed, "cpu_us_per_cache_miss")):
            outcome, cpu = self._measure(load)
            if outcome.completed:
                self.figures[figure] = cpu / outcome.completed / 1000

    def _measure(self, load: Load) -> tuple[Outcome, int]:
        """The outcome and the nanoseconds of CPU that the tree spent on it."""
        before = process_tree.cpu_nanoseconds(self._pid)
        outcome = self._send(load)
        time.sleep(SETTLE_SECONDS)
        return outcome, process_tree.cpu_nanoseconds(self._pid) - before

    def _send(self, load: Load) -> Outcome:
        target = self._target.of(load.model)
        assert target is not None, f"{load.model} is not asked of a system that does not offer it"
        outcome = uvloop.run(run(target, load))
        self.errors += outcome.errors
        if outcome.first_error and self.first_error is None:
            self.first_error = f"{load.model}, concurrency {load.concurrency}: {outcome.first_error}"
        return outcome
