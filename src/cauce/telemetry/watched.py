"""Figures that others keep, and that are looked at only when Prometheus asks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values of labels, and the figure that goes with them."""


class Watched(msgspec.Struct, frozen=True):
    """One figure, or one per combination of `labels`. `read` must not block."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[], Samples]
    kind: Literal["gauge", "counter"] = "gauge"


class Watching(Collector):
    """Figures are added while the server is built."""

    def __init__(self) -> None:
        self._watched: list[Watched] = []

    def add(self, watched: Watched) -> None:
        """Tell `watched` from now on."""
        self._watched.append(watched)

    def collect(self) -> Iterator[Metric]:
        for watched in self._watched:
            family = GaugeMetricFamily if watched.kind == "gauge" else CounterMetricFamily
            metric = family(watched.name, watched.help, labels=watched.labels)
            for labels, value in watched.read():
                metric.add_metric(labels, value)
            yield metric
