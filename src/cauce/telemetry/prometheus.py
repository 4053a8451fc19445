"""Metrics as Prometheus reads them."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cauce.domain.delta import Outcome
from cauce.domain.usage import Usage
from cauce.telemetry.attempts import SECONDS, Attempts
from cauce.telemetry.watched import Watched, Watching


class PrometheusMetrics:
    """See `ports.metrics.Metrics`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._attempts = Attempts()
        self._registry.register(self._attempts)
        self._watching = Watching()
        self._registry.register(self._watching)
        self._denied = Counter(
            "cauce_denied", "Calls that a limit or a budget denied.", ("whose", "what"), registry=self._registry
        )

        self._waited = Histogram(
            "cauce_queue_seconds", "Time calls waited for room.", buckets=SECONDS, registry=self._registry
        )

    def attempt(
        self, provider: str, model: str, outcome: Outcome, latency: float, first_delta: float | None, usage: Usage
    ) -> None:
        self._attempts.of(provider, model).count(outcome, latency, first_delta, usage)

    def denied(self, whose: str, what: str) -> None:
        self._denied.labels(whose, what).inc()

    def waited(self, seconds: float) -> None:
        self._waited.observe(seconds)

    def watch(self, watched: Watched) -> None:
        """Have `watched` among the figures."""
        self._watching.add(watched)

    def exposition(self) -> tuple[bytes, str]:
        """The figures in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
