"""Metrics as Prometheus reads them. Label handles are bound once per (provider, model): an observation costs about 1 µs."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cauce.domain.delta import Outcome
from cauce.domain.usage import Usage

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

MOST_SERIES = 500
"""Pairs of provider and model that get series of their own; further ones are counted under model `other`."""


class PrometheusMetrics:
    """See `ports.metrics.Metrics`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("provider", "model")
        self._attempts = Counter(
            "cauce_attempts", "Provider calls that ended.", (*labels, "outcome"), registry=self._registry
        )
        self._latency = Histogram(
            "cauce_attempt_seconds", "Time of a provider call.", labels, buckets=_SECONDS, registry=self._registry
        )
        self._first = Histogram(
            "cauce_first_delta_seconds", "Time to the first delta.", labels, buckets=_SECONDS, registry=self._registry
        )
        self._tokens = Counter("cauce_tokens", "Tokens used.", (*labels, "kind"), registry=self._registry)
        self._cost = Counter("cauce_cost_usd", "Cost where it is known.", (*labels, "source"), registry=self._registry)
        self._unpriced = Counter(
            "cauce_unpriced_attempts", "Provider calls whose price is not known.", labels, registry=self._registry
        )
        self._series: dict[tuple[str, str], _Series] = {}

    def attempt(
        self, provider: str, model: str, outcome: Outcome, latency: float, first_delta: float | None, usage: Usage
    ) -> None:
        series = self._series.get((provider, model))
        if series is None:
            series = self._bind(provider, model)
        series.count(outcome, latency, first_delta, usage)

    def exposition(self) -> tuple[bytes, str]:
        """The figures in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _bind(self, provider: str, model: str) -> "_Series":
        shown = model if len(self._series) < MOST_SERIES else "other"
        labels = (provider, shown)
        series = _Series(
            {outcome: self._attempts.labels(*labels, outcome) for outcome in _OUTCOMES},
            self._latency.labels(*labels),
            self._first.labels(*labels),
            {kind: self._tokens.labels(*labels, kind) for kind in ("input", "output", "cached", "reasoning")},
            {source: self._cost.labels(*labels, source) for source in ("reported", "priced", "estimated")},
            self._unpriced.labels(*labels),
        )
        if shown == model:
            self._series[(provider, model)] = series
        return series


_OUTCOMES: tuple[Outcome, ...] = ("completed", "incomplete", "failed", "cancelled")


class _Series:
    __slots__ = ("_attempts", "_cost", "_first", "_latency", "_tokens", "_unpriced")

    def __init__(
        self,
        attempts: dict[Outcome, Counter],
        latency: Histogram,
        first: Histogram,
        tokens: dict[str, Counter],
        cost: dict[str, Counter],
        unpriced: Counter,
    ) -> None:
        self._attempts = attempts
        self._latency = latency
        self._first = first
        self._tokens = tokens
        self._cost = cost
        self._unpriced = unpriced

    def count(self, outcome: Outcome, latency: float, first_delta: float | None, usage: Usage) -> None:
        self._attempts[outcome].inc()
        self._latency.observe(latency)
        if first_delta is not None:
            self._first.observe(first_delta)
        if usage.input_tokens:
            self._tokens["input"].inc(usage.input_tokens)
        if usage.output_tokens:
            self._tokens["output"].inc(usage.output_tokens)
        if usage.cached_tokens:
            self._tokens["cached"].inc(usage.cached_tokens)
        if usage.reasoning_tokens:
            self._tokens["reasoning"].inc(usage.reasoning_tokens)
        if usage.cost > 0 and usage.cost_source != "unpriced":
            self._cost[usage.cost_source].inc(usage.cost)
        elif usage.cost_source == "unpriced" and usage.total_tokens:
            self._unpriced.inc()
