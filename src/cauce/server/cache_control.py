"""What a request's `Cache-Control` says (RFC 9111 5.2.1, RFC 5861 4), as far as it is about answers that are kept here.

| directive | meaning here |
|---|---|
| `no-cache`, `max-age=0` | ask a model; its answer is kept if the cache is asked for all the same |
| `no-store` | ask a model; keep nothing |
| `max-age=N` | an answer that is no older than N seconds will do, in place of `[cache] ttl` |
| `min-fresh=N` | it must stay fresh for N more seconds |
| `max-stale`, `max-stale=N` | one that is older than that, by N seconds at most, will do |
| `stale-if-error=N` | the same, where no model answers |
| `only-if-cached` | ask no model: 504 if there is nothing |

All but the first two ask for the cache, also for requests that it would not be asked for by itself. A directive that is not known, or
whose number is none, is not there.
"""

from math import inf

from cauce.ports.cache import ANY_ANSWER, CacheControl
from cauce.server.exchange import Exchange

_LONGEST = 10 * 366 * 86_400
"""Seconds. Nobody means more; beyond that a figure is no figure (RFC 9111 1.2.2)."""


def cache_control(exchange: Exchange) -> CacheControl:
    """What the client of `exchange` says."""
    header = exchange.request_headers.get(b"cache-control")
    return ANY_ANSWER if header is None else parse_cache_control(header.decode("latin-1"))


def parse_cache_control(header: str) -> CacheControl:
    """What the value of the header says."""
    said: dict[str, str] = {}
    for directive in header.split(","):
        name, _, value = directive.partition("=")
        said.setdefault(name.strip().lower(), value.strip().strip('"'))
    max_age = _seconds(said, "max-age")
    max_stale = inf if said.get("max-stale") == "" else _seconds(said, "max-stale")
    min_fresh = _seconds(said, "min-fresh")
    on_error = _seconds(said, "stale-if-error")
    only_cached = "only-if-cached" in said
    ages = (max_age or None, max_stale, min_fresh, on_error)
    return CacheControl(
        read="no-cache" not in said and max_age != 0,
        store="no-store" not in said,
        wanted=only_cached or any([age is not None for age in ages]),
        only_cached=only_cached,
        max_age=max_age,
        max_stale=max_stale,
        min_fresh=min_fresh or 0.0,
        stale_if_error=on_error,
    )


def _seconds(said: dict[str, str], name: str) -> float | None:
    value = said.get(name, "")
    return float(min(int(value[:12]), _LONGEST)) if value.isdecimal() and value.isascii() else None
