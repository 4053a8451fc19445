"""Which guards anybody needs, and what operators see of streams, circuits, queue and degradation."""

from collections.abc import Callable

from cauce.bootstrap.streaming import Streaming
from cauce.config import Config
from cauce.domain.delta import Level
from cauce.domain.stream import TERMINAL
from cauce.engine.circuits import State
from cauce.engine.policies.breaker import Breakers
from cauce.engine.policies.concurrency import Upstreams
from cauce.engine.queue.queue import Queue
from cauce.ports.ledger import LedgerStanding
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.telemetry.watched import Samples, Watched

_FIGURES: dict[State, float] = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


def retries(config: Config) -> bool:
    """Whether some candidate may be asked again."""
    own = [one.retry.attempts for one in (*config.providers.values(), *config.models.values())]
    return any([attempts is not None and attempts > 1 for attempts in (config.retry.attempts, *own)])


def hedges(config: Config) -> bool:
    """Whether some call may have a second model asked beside the first."""
    return any([model.hedge is not None for model in config.models.values()])


def breaks(config: Config) -> bool:
    """Whether some candidate has a circuit."""
    own = [one.breaker.enabled for one in (*config.providers.values(), *config.models.values())]
    return config.breaker.enabled or True in own


def watch_ledger(metrics: PrometheusMetrics, standing: Callable[[], LedgerStanding]) -> None:
    """Have among the figures what the disk does not take."""
    metrics.watch(
        Watched(
            "cauce_ledger_waiting",
            "Ledger entries in memory only, since the disk takes none.",
            (),
            lambda: [((), float(standing().waiting))],
        )
    )
    metrics.watch(
        Watched(
            "cauce_ledger_lost",
            "Ledger entries that neither disk nor memory had room for.",
            (),
            lambda: [((), float(standing().lost))],
            "counter",
        )
    )


def watch_streams(metrics: PrometheusMetrics, streamed: Streaming) -> None:
    """Have how the streams of this process fare, and their log, among the figures."""
    streams = streamed.streams

    def ended() -> Samples:
        counts = streams.ended
        return [((state,), float(counts[state])) for state in sorted(TERMINAL)]

    opened, taken = "Streams that this server writes now.", "Streams that this server has taken over from another."
    for watched in (
        Watched("cauce_stream_log_up", "1 while the log of streams answers.", (), lambda: _one(streamed.standing().up)),
        Watched("cauce_streams_open", opened, (), lambda: _one(streams.open_streams)),
        Watched("cauce_streams_ended", "Streams that ended on this server.", ("outcome",), ended, "counter"),
        Watched("cauce_streams_taken_over", taken, (), lambda: _one(streams.taken_over), "counter"),
    ):
        metrics.watch(watched)


def _one(value: float) -> Samples:
    return [((), float(value))]


def watch_resilience(
    metrics: PrometheusMetrics, breakers: Breakers, upstreams: Upstreams, lines: Queue, answers: dict[Level, int]
) -> None:
    """Have how circuits stand, what upstreams take, who waits, and how good the answers are, among the figures."""

    def circuits() -> Samples:
        return [
            ((one.provider, one.deployment, one.model, one.endpoint, one.route), _FIGURES[one.state])
            for one in breakers.standing()
        ]

    labels = ("provider", "deployment", "model", "endpoint", "route")
    metrics.watch(
        Watched("cauce_circuit_open", "1: left alone, 0.5: being probed, 0: asked as usual.", labels, circuits)
    )
    metrics.watch(
        Watched(
            "cauce_upstream_concurrency",
            "Calls at once that a model which has refused some takes, as far as is known.",
            labels[:3],
            lambda: [((one.provider, one.deployment, one.model), float(one.most)) for one in upstreams.crowded()],
        )
    )
    metrics.watch(
        Watched("cauce_queue_waiting", "Calls that wait for room.", (), lambda: [((), float(len(lines.waiters)))])
    )
    metrics.watch(
        Watched(
            "cauce_answers",
            "Calls that were answered.",
            ("level",),
            lambda: [((level,), float(count)) for level, count in answers.items()],
            "counter",
        )
    )
