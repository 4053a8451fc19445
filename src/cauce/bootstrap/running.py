"""The running parts of one process."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import inf

import msgspec

from cauce.bootstrap.background import Background
from cauce.bootstrap.caching import cached_answers
from cauce.bootstrap.explaining import explainer
from cauce.bootstrap.keeping import FolderTaken, keeping, lock
from cauce.bootstrap.limiting import Counting, Renewal, limiting
from cauce.bootstrap.manners import manners
from cauce.bootstrap.resilience import breaks, hedges, retries, watch_ledger, watch_resilience, watch_streams
from cauce.bootstrap.sharing import sharing
from cauce.bootstrap.sources import make_router, measures
from cauce.bootstrap.streaming import Streaming, shared_streaming, streaming
from cauce.config import Config, ConfigError
from cauce.domain.delta import Level
from cauce.engine.caching.shelf import Books
from cauce.engine.compose import compose
from cauce.engine.concurrency import LONGEST_ASKED
from cauce.engine.counting import CountGuards
from cauce.engine.embedding import Embedding, opening_vectors
from cauce.engine.estimator import Estimator
from cauce.engine.fallback import fallback
from cauce.engine.faults import Faults
from cauce.engine.health import Health
from cauce.engine.hedging import hedgeable
from cauce.engine.policies.attempt import attempt
from cauce.engine.policies.breaker import Breakers, breaker
from cauce.engine.policies.concurrency import Upstreams, concurrency
from cauce.engine.policies.deadline import deadline
from cauce.engine.policies.health import health
from cauce.engine.policies.limit import limit_caller, limit_candidate
from cauce.engine.policies.meter import meter
from cauce.engine.policies.overflow import overflow
from cauce.engine.policies.patience import patience
from cauce.engine.policies.queue import Shares, queue
from cauce.engine.policies.retry import Allowances, retry
from cauce.engine.policies.structured import structured
from cauce.engine.policies.trace import trace
from cauce.engine.policies.whole import whole
from cauce.engine.queue.queue import Queue
from cauce.engine.recovery.recovery import recovery
from cauce.engine.routing.conditions import Conditions
from cauce.engine.routing.router import Router
from cauce.engine.streams.bills import Bills
from cauce.engine.turn import Defaults, Turn
from cauce.ports.chance import Chance
from cauce.ports.provider import Call, Deltas, Policy
from cauce.providers.fetch import Fetcher
from cauce.server.app import Application
from cauce.server.logged_responses import Settling
from cauce.server.services import Services
from cauce.system.chance import SystemChance
from cauce.system.clock import SystemClock
from cauce.system.ids import RandomIds
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.tokenizers.openai import Vocabularies, installed

logger = logging.getLogger("cauce.bootstrap")


class Runtime(msgspec.Struct, frozen=True):
    """Everything running. `first_scan` is set once local servers have been looked for, and models where none is configured."""

    config: Config
    services: Services
    router: Router
    turn: Turn
    first_scan: asyncio.Event


def runtime(
    config: Config,
    port: int | None = None,
    chance: Chance | None = None,
    *,
    on_disk: bool = False,
    joins: bool = False,
    streams: Callable[..., Streaming] = streaming,
) -> Runtime:
    """Build everything `config` asks for. Nothing runs yet: `services.start` starts it, `services.stop` ends it.

    `port` is the one really listened on, where that is not the configured one: discovery leaves it alone. `chance` is the
    machine's, unless given. `on_disk`: what is to outlive the process goes into the data folder, which the caller has locked.
    `joins`: another process has, and this one keeps only its ledger there, which all share. `streams` makes the streams, as `streaming` does. Raises `ConfigError` when it cannot.
    """
    clock = SystemClock()
    chance = chance or SystemChance()
    kept = keeping(config, clock, on_disk=on_disk, joins=joins)
    ledger = kept.books
    metrics = PrometheusMetrics()
    ids = RandomIds()
    shared = sharing(config, clock, ids, metrics)
    fetcher = Fetcher(config.fetch)

    def open_candidate(call: Call) -> Awaitable[Deltas]:
        return call.candidates[0].provider.open(call)

    estimator = Estimator()
    bills = Bills(ledger, estimator)
    faults = Faults()
    metered = meter(clock, bills, metrics, estimator, faults)
    breakers = Breakers(config.breaker, clock)
    measured = Health(clock) if measures(config) else None
    conditions = Conditions(clock, chance, measured, breakers if breaks(config) else None, ledger)
    router = make_router(config, fetcher, conditions)
    limits = limiting(config, Counting(clock, metrics, estimator, ledger, kept.workers, kept.node), shared)
    renewal = Renewal(None if limits is None or not config.budgets.any else limits.limiter, clock, kept.workers)
    lines = Queue(config.queue, clock, metrics.waited)
    queued = (limits is not None or config.limits.adaptive) and config.queue.length > 0
    upstreams = Upstreams(clock, metrics)
    guards: list[Policy] = []
    if retries(config):
        guards.append(retry(config.retry, clock, chance, Allowances(), queued=queued))
        guards.append(whole())
    if breaks(config):
        guards.append(breaker(breakers))
    if config.limits.adaptive:
        upstreams.on_room(lines.room)
        guards.append(concurrency(upstreams))
    if limits is not None:
        # Longer than that, who learns what is refused lets one try before.
        guards.append(limit_candidate(limits, LONGEST_ASKED if config.limits.adaptive else inf))
    watch = [health(clock, measured)] if measured is not None else []
    measure: list[Policy] = [metered, *watch, patience(clock)]
    per_candidate = compose(open_candidate, overflow(estimator), structured(clock), *guards, attempt(), *measure)
    answers: dict[Level, int] = {}
    entry: list[Policy] = [trace(answers), deadline(clock)]
    common = None if shared is None else shared.cache
    cached = cached_answers(config, Books(clock, ledger), metrics, shared=common, on_disk=on_disk)
    if cached is not None:
        entry.append(cached.caching.policy)
    beside = Allowances()
    hedging = [hedgeable(beside)] if hedges(config) else []
    room: list[Policy] = []
    if queued:
        room.append(queue(lines, Shares(config.limits.keys), limits.book if limits is not None else None))
    if limits is not None:
        limits.limiter.on_room(lines.room)
        if config.limits.keys:
            room.append(limit_caller(limits))
    stale = None if cached is None else cached.caching.stale
    cascade = [*hedging, *room, fallback(clock, stale, queued=queued, allowances=beside)]
    opened = compose(per_candidate, *entry, recovery(clock, config.recovery, chance), *cascade)
    vectors = compose(opening_vectors(router), *entry, *cascade, *guards, attempt(), *measure)
    watch_ledger(metrics, lambda: ledger.standing)
    watch_resilience(metrics, breakers, upstreams, lines, answers)
    defaults = Defaults(config.environment.temperature, config.environment.max_tokens)
    turn = Turn(router, opened, defaults, caches=cached is not None)
    streamed = streams(config, turn, clock, on_disk=on_disk, bills=bills)
    watch_streams(metrics, streamed)
    settling = Settling(streamed.streams, kept.responses, clock)
    background = Background(config, router, streamed.streams, clock, fetcher, port or config.server.port)

    async def start() -> None:
        kept.start()
        renewal.start()
        if shared is not None:
            await shared.start()
        if cached is not None:
            cached.start()
        await streamed.start()
        settling.start()
        await background.start()

    async def stop() -> None:
        await background.stop()
        await settling.stop()
        await streamed.stop()
        if cached is not None:
            await cached.stop()
        if shared is not None:
            await shared.stop()
        await renewal.stop()
        await kept.stop()

    services = Services(
        settings=config.server,
        stream_settings=config.streams,
        keys=config.auth.keys,
        message_timeout=config.timeouts.message,
        router=router,
        explainer=explainer(router, estimator, limits, upstreams),
        turn=turn,
        embedding=Embedding(router, vectors, caches=cached is not None),
        estimator=estimator,
        count_guards=CountGuards(clock, breakers, limits),
        tokenizer=Vocabularies() if installed() else None,
        streams=streamed.streams,
        responses=kept.responses,
        conversations=streamed.spoken.conversations,
        conversing=streamed.spoken.conversing,
        manners=manners(config, router.aliases()),
        clock=clock,
        ids=ids,
        began=clock.monotonic(),
        last_entry=ledger.last,
        fault=faults.of,
        ledger=lambda: ledger.standing,
        usage=ledger,
        feedback=ledger,
        answers=answers,
        circuits=breakers.standing,
        crowded=upstreams.crowded,
        waiting=lambda: len(lines.waiters),
        limits=shared.mode if shared is not None else lambda: "",
        stream_log=streamed.standing,
        exposition=metrics.exposition,
        start=start,
        stop=stop,
    )
    return Runtime(config, services, router, turn, background.first_scan)


def application(config: Config) -> Application:
    """The ASGI app of `config`. Several processes with one data folder share its ledger; the rest of it is the first one's."""
    try:
        held = lock(config)
    except ConfigError as error:
        joins, shared = isinstance(error, FolderTaken), config.streams.shared
        if not joins:
            logger.warning("%s; the ledger of this process is kept in its memory", error)
        if not shared:
            logger.warning(
                "%s; the streams of this process are kept in its memory, and other processes do not know them: "
                "[streams] folder or store has them share one log",
                error,
            )
        return Application(runtime(config, joins=joins, streams=shared_streaming if shared else streaming).services)
    services = runtime(config, on_disk=True).services

    async def stop() -> None:
        await services.stop()
        held.close()

    return Application(msgspec.structs.replace(services, stop=stop))
