"""What is counted of every attempt: added up in plain numbers, and put into Prometheus' shape when it asks. An attempt costs about 1 µs."""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cauce.domain.delta import Outcome
from cauce.domain.usage import Usage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Bounds of the buckets of times."""

MOST_SERIES = 500
"""Pairs of provider and model that get series of their own; further ones are counted under model `other`."""

_LABELS = ("provider", "model")


class Times:
    """How many took how long: one count per bucket, the last one without a bound."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Bounds and how many were within them, as Prometheus wants them."""
        within, told = 0, list[tuple[str, float]]()
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            within += count
            told.append((bound, within))
        return told


class Series:
    """The figures of one model of one provider."""

    __slots__ = (
        "cached",
        "cost",
        "first",
        "input",
        "latency",
        "outcomes",
        "output",
        "reasoning",
        "unpriced",
    )

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = {"completed": 0, "incomplete": 0, "failed": 0, "cancelled": 0}
        self.latency = Times()
        self.first = Times()
        self.input = 0
        self.output = 0
        self.cached = 0
        self.reasoning = 0
        self.cost = {"reported": 0.0, "priced": 0.0, "estimated": 0.0}
        self.unpriced = 0

    def count(self, outcome: Outcome, latency: float, first_delta: float | None, usage: Usage) -> None:
        self.outcomes[outcome] += 1
        self.latency.add(latency)
        if first_delta is not None:
            self.first.add(first_delta)
        self.input += usage.input_tokens
        self.output += usage.output_tokens
        self.cached += usage.cached_tokens
        self.reasoning += usage.reasoning_tokens
        if usage.cost_source == "unpriced":
            self.unpriced += bool(usage.total_tokens)
        elif usage.cost > 0:
            self.cost[usage.cost_source] += usage.cost


class Attempts(Collector):
    """The series of all models, and how Prometheus is told of them."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}

    def of(self, provider: str, model: str) -> Series:
        """The series of `model`, or the one of all that came too late for their own."""
        series = self._series.get((provider, model))
        if series is None:
            shown = model if len(self._series) < MOST_SERIES else "other"
            series = self._series.setdefault((provider, shown), Series())
        return series

    def collect(self) -> Iterator[Metric]:
        attempts = CounterMetricFamily("cauce_attempts", "Provider calls that ended.", labels=(*_LABELS, "outcome"))
        latency = HistogramMetricFamily("cauce_attempt_seconds", "Time of a provider call.", labels=_LABELS)
        first = HistogramMetricFamily("cauce_first_delta_seconds", "Time to the first delta.", labels=_LABELS)
        tokens = CounterMetricFamily("cauce_tokens", "Tokens used.", labels=(*_LABELS, "kind"))
        cost = CounterMetricFamily("cauce_cost_usd", "Cost where it is known.", labels=(*_LABELS, "source"))
        unpriced = CounterMetricFamily(
            "cauce_unpriced_attempts", "Provider calls whose price is not known.", labels=_LABELS
        )
        for labels, series in self._series.items():
            for outcome, count in series.outcomes.items():
                attempts.add_metric((*labels, outcome), count)
            latency.add_metric(labels, series.latency.buckets(), series.latency.sum)
            first.add_metric(labels, series.first.buckets(), series.first.sum)
            for kind in ("input", "output", "cached", "reasoning"):
                tokens.add_metric((*labels, kind), getattr(series, kind))
            for source, dollars in series.cost.items():
                cost.add_metric((*labels, source), dollars)
            unpriced.add_metric(labels, series.unpriced)
        yield from (attempts, latency, first, tokens, cost, unpriced)
