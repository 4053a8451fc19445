"""Metrics as Prometheus reads them."""

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cauce.domain.delta import Outcome
from cauce.domain.usage import Usage
from cauce.telemetry.attempts import Attempts


class PrometheusMetrics:
    """See `ports.metrics.Metrics`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._attempts = Attempts()
        self._registry.register(self._attempts)
        self._denied = Counter(
            "cauce_denied", "Calls that a limit or a budget denied.", ("whose", "what"), registry=self._registry
        )

    def attempt(
        self, provider: str, model: str, outcome: Outcome, latency: float, first_delta: float | None, usage: Usage
    ) -> None:
        self._attempts.of(provider, model).count(outcome, latency, first_delta, usage)

    def denied(self, whose: str, what: str) -> None:
        self._denied.labels(whose, what).inc()

    def exposition(self) -> tuple[bytes, str]:
        """The figures in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
