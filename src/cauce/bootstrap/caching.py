"""The cache of answers, as the configuration describes it."""

from collections.abc import Awaitable, Callable
from hashlib import blake2b

import msgspec

from cauce.config import Config
from cauce.engine.caching.key import Keys
from cauce.engine.caching.shelf import Books, Shelf, Tally
from cauce.engine.policies.cache import Caching
from cauce.ports.cache import BoundedCache
from cauce.stores.inproc.cache import InprocCache
from cauce.stores.layered_cache import LayeredCache
from cauce.stores.sqlite.cache import SqliteCache
from cauce.telemetry.prometheus import PrometheusMetrics
from cauce.telemetry.watched import Samples, Watched

FILE = "cache.sqlite"
"""In the data folder. It may be deleted while no server runs."""


class Cached(msgspec.Struct, frozen=True):
    """`start` and `stop` are what the store needs around its work."""

    caching: Caching
    start: Callable[[], None]
    stop: Callable[[], Awaitable[None]]


def cached_answers(
    config: Config,
    books: Books,
    metrics: PrometheusMetrics,
    *,
    shared: BoundedCache | None = None,
    on_disk: bool = False,
) -> Cached | None:
    """Who gives answers of before; None where nothing is kept.

    Behind the memory is what processes share, if there is such; else the data folder, if it is ours (`on_disk`). What is private
    stays out of what is shared.
    """
    settings = config.cache
    if not settings.enabled or not settings.keep:
        return None
    near = InprocCache(books.clock, settings.memory)
    keys = Keys(settings.scope, _meaning(config))
    file: SqliteCache | None = None
    behind: BoundedCache | None = shared
    if behind is None and on_disk and settings.disk:
        behind = file = SqliteCache(config.data_dir / FILE, books.clock, settings.disk)
    store = near if behind is None else LayeredCache(near, behind, books.clock, settings.keep)
    shelf = Shelf(store, store if shared is None else near, settings, keys, books, Tally())
    caching = Caching(shelf)
    holding: dict[str, BoundedCache | None] = {"memory": near, "disk": file, "redis": shared}
    _watch(metrics, shelf.tally, {where: cache for where, cache in holding.items() if cache is not None})
    if file is None:
        return Cached(caching, _nothing, _nothing_to_wait_for)
    return Cached(caching, file.start, file.aclose)


def _meaning(config: Config) -> bytes:
    """What the names of providers stand for: an answer of another server, or another model, is another answer."""
    meant = [
        (name, one.kind, one.base_url, one.wire, one.dialect, one.default_model, one.llamacpp)
        for name, one in sorted(config.providers.items())
    ]
    return blake2b(msgspec.json.encode(meant, enc_hook=str)).digest()


def _watch(metrics: PrometheusMetrics, tally: Tally, holding: dict[str, BoundedCache]) -> None:
    """Have what the cache does, and what is held where, among the figures."""

    def requests() -> Samples:
        for result in ("hits", "shared", "stale", "misses"):
            yield (_RESULTS[result],), float(getattr(tally, result))

    def held() -> Samples:
        for where, cache in holding.items():
            yield (where,), float(cache.size)

    metrics.watch(
        Watched("cauce_cache_requests", "Requests that looked for a cached answer.", ("result",), requests, "counter")
    )
    metrics.watch(Watched("cauce_cache_bytes", "Bytes of cached answers.", ("where",), held))


_RESULTS = {"hits": "hit", "shared": "shared", "stale": "stale", "misses": "miss"}


def _nothing() -> None:
    return None


async def _nothing_to_wait_for() -> None:
    return None
