"""The running parts of one process."""

import asyncio

import msgspec

from cauce.bootstrap.background import Background
from cauce.bootstrap.limiting import Counting, limiting
from cauce.bootstrap.sources import make_router
from cauce.config import Config
from cauce.engine.compose import compose
from cauce.engine.embedding import Embedding
from cauce.engine.estimator import Estimator
from cauce.engine.fallback import fallback
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.breaker import Breakers, breaker
from cauce.engine.policies.deadline import deadline
from cauce.engine.policies.limit import limit_caller, limit_candidate
from cauce.engine.policies.meter import meter
from cauce.engine.policies.patience import patience
from cauce.engine.policies.retry import Allowances, retry
from cauce.engine.policies.structured import structured
from cauce.engine.policies.trace import trace
from cauce.engine.routing.router import Router
from cauce.engine.streams.streams import Streams
from cauce.engine.turn import Defaults, Turn
from cauce.ports.provider import Call, Deltas, Policy
from cauce.providers.fetch import Fetcher
from cauce.server.app import Application
from cauce.server.services import Services
from cauce.stores.inproc.ledger import InprocLedger
from cauce.stores.inproc.responses import InprocResponses
from cauce.stores.inproc.stream_log import InprocStreamLog
from cauce.system.chance import SystemChance
from cauce.system.clock import SystemClock
from cauce.system.ids import RandomIds
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.tokenizers.openai import Vocabularies, installed


class Runtime(msgspec.Struct, frozen=True):
    """Everything running. `first_scan` is set once local servers have been looked for, and models where none is configured."""

    config: Config
    services: Services
    router: Router
    turn: Turn
    first_scan: asyncio.Event


def runtime(config: Config, port: int | None = None) -> Runtime:
    """Build everything `config` asks for. Nothing runs yet: `services.start` starts it, `services.stop` ends it.

    `port` is the one really listened on, where that is not the configured one: discovery leaves it alone.
    """
    clock = SystemClock()
    ledger = InprocLedger()
    metrics = PrometheusMetrics()
    fetcher = Fetcher(config.fetch)
    router = make_router(config, fetcher)

    async def open_candidate(call: Call) -> Deltas:
        return await call.candidate.provider.open(call)

    estimator = Estimator()
    metered = meter(clock, ledger, metrics, estimator)
    breakers = Breakers(config.breaker, clock)
    guards: list[Policy] = []
    if config.retry.attempts > 1:
        guards.append(retry(config.retry, clock, SystemChance(), Allowances()))
    if config.breaker.enabled:
        guards.append(breaker(breakers))
    limits = limiting(config, router, Counting(clock, metrics, estimator))
    if limits is not None:
        guards.append(limit_candidate(limits))
    per_candidate = compose(open_candidate, *guards, attempt(), structured(clock), metered, patience(clock))
    entry: list[Policy] = [trace(), deadline(clock)]
    if limits is not None and config.limits.keys:
        entry.append(limit_caller(limits))
    opened = compose(per_candidate, *entry, fallback(clock))
    turn = Turn(router, opened, Defaults(config.environment.temperature, config.environment.max_tokens))
    log = InprocStreamLog(clock, retention=config.streams.retention, max_bytes=config.streams.max_bytes)
    streams = Streams(log, turn, clock)
    background = Background(config, router, streams, clock, fetcher, port or config.server.port)
    services = Services(
        settings=config.server,
        stream_settings=config.streams,
        keys=config.auth.keys,
        message_timeout=config.timeouts.message,
        router=router,
        turn=turn,
        embedding=Embedding(router, clock, ledger, metrics),
        estimator=estimator,
        tokenizer=Vocabularies() if installed() else None,
        streams=streams,
        responses=InprocResponses(clock),
        clock=clock,
        ids=RandomIds(),
        began=clock.monotonic(),
        last_entry=ledger.last,
        exposition=metrics.exposition,
        start=background.start,
        stop=background.stop,
    )
    return Runtime(config, services, router, turn, background.first_scan)


def application(config: Config) -> Application:
    """The ASGI app of `config`."""
    return Application(runtime(config).services)
