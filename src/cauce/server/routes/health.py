"""`/health`, `/health/live`, `/health/ready` and `/metrics`. None of them calls a provider, except `/health?probe=MODEL`."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cauce import __version__
from cauce.domain.errors import CauceError
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request as ModelRequest
from cauce.domain.request import Sampling, Scope
from cauce.engine.compose import collect
from cauce.engine.routing.source import Source
from cauce.ports.cache import NO_CACHE
from cauce.ports.ledger import LedgerStanding
from cauce.server.services import Services

_TOO_MANY = frozenset({"rate_limited", "overloaded"})


class CircuitHealth(msgspec.Struct, omit_defaults=True):
    """A model that is left alone (`state` open), or asked once to see whether it is well (`half_open`). It is asked again after
    `seconds`."""

    model: str
    endpoint: str
    state: str
    seconds: float
    deployment: str = ""
    route: str = ""
    """The route whose calls alone it holds for; empty: all the others."""


class CrowdHealth(msgspec.Struct, omit_defaults=True):
    """A model that has refused calls lately, as too many: it is asked for `most` at once, of which `under_way` are there, and for no
    more within `seconds`."""

    model: str
    most: int
    under_way: int
    seconds: float = 0.0
    deployment: str = ""


class ProviderHealth(msgspec.Struct, omit_defaults=True):
    """`status` is `up`, `down` (its last call failed through its own fault, which `last_error` names; `auth`: its key is refused) or
    `unknown` (not called yet)."""

    status: str
    local: bool = False
    models: int = 0
    last_error: str | None = None
    circuits: list[CircuitHealth] = []
    crowded: list[CrowdHealth] = []


class ProbeBody(msgspec.Struct, omit_defaults=True):
    """What one token from a model told. `seconds` is how long it took."""

    model: str
    ok: bool
    seconds: float
    error: str | None = None


class HealthBody(msgspec.Struct, omit_defaults=True):
    """`status` is `healthy`, `degraded` (a provider is down, or one of its models left alone) or `unhealthy` (nothing can answer); `uptime` is in seconds."""

    status: str
    version: str
    uptime: float
    providers: dict[str, ProviderHealth]
    open_streams: int = 0
    waiting: int = 0
    """Calls that wait for room."""
    answers: dict[str, int] = {}
    """Calls that were answered since the start, by level."""
    limits: str = ""
    """`shared` with other processes, or `local share` while the store they share is gone."""
    stream_log: str = ""
    """Where streams are kept: `sqlite`, `postgres`, `redis` or `memory`; with ` (gone)` behind it while that does not answer, or takes no
    writes."""
    ledger: str = ""
    """What is wrong with the ledger now; empty where nothing is."""
    probe: ProbeBody | None = None


async def health(request: Request) -> Response:
    """How the server stands."""
    services: Services = request.app.state.services
    resting: dict[str, list[CircuitHealth]] = {}
    for one in services.circuits():
        if one.state != "closed":
            told = CircuitHealth(one.model, one.endpoint, one.state, round(one.seconds, 3), one.deployment, one.route)
            resting.setdefault(one.provider, []).append(told)
    crowded: dict[str, list[CrowdHealth]] = {}
    for crowd in services.crowded():
        shown = CrowdHealth(crowd.model, crowd.most, crowd.under_way, round(crowd.seconds, 3), crowd.deployment)
        crowded.setdefault(crowd.provider, []).append(shown)
    providers: dict[str, ProviderHealth] = {}
    for source in services.router.sources:
        name = source.provider.name
        providers[name] = _provider(services, source, resting.get(name, []), crowded.get(name, []))
    ailing = any(one.status == "down" or one.circuits for one in providers.values())
    limits = services.limits()
    log = services.stream_log()
    ledger = _ledger(services.ledger())
    status = "degraded" if ailing or ledger or limits == "local share" or not log.up else "healthy"
    if not providers or services.streams.draining:
        status = "unhealthy"
    model = request.query_params.get("probe")
    body = HealthBody(
        status,
        __version__,
        round(services.clock.monotonic() - services.began, 3),
        providers,
        services.streams.open_streams,
        services.waiting(),
        {level: count for level, count in services.answers.items() if count},
        limits,
        log.store if log.up else f"{log.store} (gone)",
        ledger,
        await _probe(services, model, request.state.scope) if model else None,
    )
    return _json(503 if status == "unhealthy" else 200, body)


async def live(_: Request) -> Response:
    """The process answers."""
    return _json(200, {"status": "alive"})


async def ready(request: Request) -> Response:
    """Whether new requests should be sent here: not while it shuts down."""
    draining = request.app.state.services.streams.draining
    return _json(503 if draining else 200, {"status": "draining" if draining else "ready"})


async def metrics(request: Request) -> Response:
    """Figures in Prometheus' text format."""
    services: Services = request.app.state.services
    figures, content_type = services.exposition()
    return Response(figures, media_type=content_type)


def _provider(
    services: Services, source: Source, circuits: list[CircuitHealth], crowded: list[CrowdHealth]
) -> ProviderHealth:
    models = len(source.models)
    fault = services.fault(source.provider.name)
    if fault is not None and not _too_many(fault.code, crowded):
        # What a refused key is told by, `provider_error`, could as well be a crash.
        error = "auth" if fault.failure == "auth" else fault.code
        return ProviderHealth("down", source.local, models, error, circuits, crowded)
    known = services.last_entry(source.provider.name) is not None
    return ProviderHealth("up" if known else "unknown", source.local, models, None, circuits, crowded)


def _too_many(error_code: str, crowded: list[CrowdHealth]) -> bool:
    """Whether `error_code` says no more than that a call was one too many: who refuses it while others are under way is there."""
    return error_code in _TOO_MANY and any([error_code == "rate_limited" or one.under_way > 0 for one in crowded])


def _ledger(standing: LedgerStanding) -> str:
    if standing.waiting:
        return f"entries in memory only, since the disk takes none: {standing.waiting}; make room in the data folder"
    return "its file cannot be written: entries wait on disk beside it" if standing.behind else ""


async def _probe(services: Services, model: str, scope: Scope) -> ProbeBody:
    began = services.clock.monotonic()
    asked = ModelRequest(
        model, (Message("user", (TextPart("ping"),)),), Sampling(max_tokens=1), timeout=services.message_timeout
    )
    error: str | None = None
    try:
        # An answer that is kept says nothing of the provider.
        call = services.turn.call(asked, scope, request_id=services.ids.new("probe"), streamed=False, cache=NO_CACHE)
        await collect(await services.turn.open(call))
    except CauceError as failed:
        error = failed.message
    return ProbeBody(model, error is None, round(services.clock.monotonic() - began, 6), error)


def _json(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
