"""Turns the records of a run into one JSON line per system and three tables. Computes, prints nothing."""

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from bench.driver import Record
from bench.phases import Figures

Pick: TypeAlias = Callable[[str, Sequence[float]], float]

BASE = "direct"
REFERENCE = "cauce"
_LATENCIES = ("p50_us_c1", "p99_us_c1", "p50_us_c64", "p99_us_c64")

_COLUMNS = (
    ("cpu_us_per_request", "CPU us/request"),
    ("cpu_us_per_chunk_burst", "us/chunk burst"),
    ("cpu_us_per_chunk_paced", "us/chunk paced"),
    ("cpu_us_per_chunk_tools", "us/chunk tools"),
    ("cpu_us_per_chunk_translated", "us/chunk translated"),
    ("cpu_us_per_cache_hit", "us/cache hit"),
    ("cpu_us_per_cache_miss", "us/cache miss"),
    ("requests_per_second", "requests/s"),
    ("p50_us_c1", "c=1 p50 us"),
    ("p99_us_c1", "c=1 p99 us"),
    ("added_p50_us_c1", "c=1 added p50"),
    ("added_p99_us_c1", "c=1 added p99"),
    ("added_p50_us_c64", "c=64 added p50"),
    ("added_p99_us_c64", "c=64 added p99"),
    ("rss_idle_mb", "idle MB"),
    ("rss_load_mb", "loaded MB"),
    ("start_to_first_answer_s", "start s"),
)


def machine() -> dict[str, object]:
    """What the figures depend on besides the systems."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def median(_: str, values: Sequence[float]) -> float:
    """What half of the rounds do not exceed."""
    return statistics.median(values)


def best(name: str, values: Sequence[float]) -> float:
    """What the machine gave while its neighbours let it."""
    return max(values) if name == "requests_per_second" else min(values)


def figures_of(record: Record, base: Record | None, pick: Pick = median) -> Figures:
    """Each figure, picked from those of the rounds.

    An added latency is the difference to `direct` in the same round, then one of those.
    """
    rounds = [dict(figures) for figures in record.rounds]
    if base is not None and record.name != BASE:
        for figures, beside in zip(rounds, base.rounds, strict=False):
            for name in _LATENCIES:
                if name in figures and name in beside:
                    figures[f"added_{name}"] = figures[name] - beside[name]
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {name: pick(name, [figures[name] for figures in rounds if name in figures]) for name in names}


def summaries(records: Sequence[Record]) -> list[dict[str, object]]:
    """One JSON-ready value per system."""
    base = next((record for record in records if record.name == BASE), None)
    return [_summary(record, base) for record in records]


def _summary(record: Record, base: Record | None) -> dict[str, object]:
    if record.skipped is not None:
        return {"system": record.name, "skipped": record.skipped}
    figures = {name: _rounded(value) for name, value in figures_of(record, base).items()}
    head: dict[str, object] = {
        "system": record.name,
        "version": record.version,
        "rounds": sum(map(bool, record.rounds)),
    }
    return head | figures | {"errors": record.errors, "first_error": record.first_error}


def _rounded(value: float) -> float:
    return round(value) if abs(value) >= 1000 else round(value, 1 if abs(value) >= 100 else 2)


def tables(records: Sequence[Record]) -> str:
    """The medians, each divided by Cauce's, and the best of the rounds, as Markdown."""
    base = next((record for record in records if record.name == BASE), None)
    measured = [record for record in records if any(record.rounds)]
    rows = {record.name: figures_of(record, base) for record in measured}
    parts = [_table("", rows, _plain)]
    if reference := rows.get(REFERENCE):
        ratios = {
            name: {key: value / reference[key] for key, value in figures.items() if reference.get(key)}
            for name, figures in rows.items()
        }
        parts.append(_table(f"Each divided by {REFERENCE}'s:\n\n", ratios, lambda value: f"{value:.2f}"))
    bests = {record.name: figures_of(record, base, best) for record in measured}
    parts.append(_table("The best of the rounds:\n\n", bests, _plain))
    return "\n".join(parts)


def _plain(value: float) -> str:
    return f"{_rounded(value):g}" if abs(value) < 1000 else f"{value:,.0f}"


def _table(heading: str, rows: Mapping[str, Figures], show: Callable[[float], str]) -> str:
    lines = [
        "| system | " + " | ".join(title for _, title in _COLUMNS) + " |",
        "|---" + "|--:" * len(_COLUMNS) + "|",
    ]
    for name, figures in rows.items():
        cells = [show(figures[key]) if key in figures else "-" for key, _ in _COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return heading + "\n".join(lines) + "\n"
