"""`GET /usage`, `GET /usage/forecast`, `POST /usage/estimate` and `POST /feedback`: all of the caller's tenant only."""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import cast, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cauce.domain.errors import InvalidRequest, NotFound
from cauce.domain.request import Request as ModelRequest
from cauce.engine.forecast import BAND, ENOUGH, HISTORY, month_end
from cauce.engine.forecast import Forecast as MonthEnd
from cauce.engine.prediction import Prediction, Range
from cauce.ports.usage import Dimension, Query, Report, Tenants
from cauce.server.exchange import Exchange
from cauce.server.services import Services
from cauce.wire.fields import decode_object
from cauce.wire.native.request import MessageRequestBody
from cauce.wire.native.request import parse_request as parse_native
from cauce.wire.native.usage import (
    BandBody,
    CandidateBody,
    EstimateBody,
    ForecastBody,
    Noted,
    RangeBody,
    parse_feedback,
    usage_body,
)
from cauce.wire.openai_chat.request import parse_request as parse_chat

GROUPS = tuple([name for name in get_args(Dimension) if name != "tenant"])
"""What a client may group by."""

FILTERS = tuple([name for name in GROUPS if name != "day"])
"""What a client may ask for alone: `?key=web`."""

_ASKED = ("group_by", "from", "to", "limit", *FILTERS)
"""What `/usage` is asked with."""

MOST_GROUPS = 10_000
_USUAL_GROUPS = 1000
_LAST_YEAR = 9000

_ONLY_NATIVE = frozenset({"fallbacks", "timeout", "task", "conversation_id"})
_NATIVE = frozenset(MessageRequestBody.__struct_fields__)


async def usage(request: Request) -> Response:
    """What was used, by whom, for how much."""
    services: Services = request.app.state.services
    given = request.query_params
    _check_names(given, _ASKED)
    by = _group_by(given.get("group_by", ""))
    limit = _limit(given.get("limit"))
    since, until = span(given.get("from"), given.get("to"), services.clock.now())
    query = Query(request.state.scope.tenant, since, until, by, _filters(request))
    report = await services.usage.report(query)
    return _json(usage_body(report, by, limit))


async def forecast(request: Request) -> Response:
    """What the month will have come to at its end."""
    services: Services = request.app.state.services
    _check_names(request.query_params, FILTERS)
    now = services.clock.now()
    query = days_query(request.state.scope.tenant, now, _filters(request))
    return _json(forecast_body(await services.usage.report(query), now))


async def estimate(exchange: Exchange, services: Services) -> None:
    """What a request would cost, before anything is sent."""
    asked = _parse(await exchange.body(services.settings.max_body))
    call = services.turn.call(asked, exchange.scope, request_id=exchange.request_id, streamed=False)
    prediction = Prediction(services.estimator, services.tokenizer, services.usage)
    predicted = await prediction.predict(call, services.clock.now())
    body = EstimateBody(
        [
            CandidateBody(
                one.candidate.name,
                one.candidate.level,
                one.input_tokens,
                one.exact,
                _range(one.output_tokens),
                None if one.cost is None else _range(one.cost),
                one.cost_source,
            )
            for one in predicted
        ]
    )
    await exchange.respond_json(200, msgspec.json.encode(body))


async def feedback(exchange: Exchange, services: Services) -> None:
    """Take what somebody thinks of an answer."""
    opinion = parse_feedback(await exchange.body(services.settings.max_body))
    if not await services.feedback.give(exchange.scope, opinion):
        raise NotFound(
            f"there is no answer {opinion.id!r}: x-cauce-stream-id and x-cauce-request-id of an answer name it"
        )
    await exchange.respond_json(200, msgspec.json.encode(Noted()))


def span(first: str | None, last: str | None, now: float) -> tuple[float, float]:
    """From when to when, in UNIX seconds; this month up to `now` where nothing is said. Raises `InvalidRequest`."""
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since, until = _time("from", first, month.timestamp()), _time("to", last, now + 1)
    if since >= until:
        raise InvalidRequest("from: must be before to", field="from")
    return since, until


def days_query(tenant: Tenants, now: float, where: tuple[tuple[Dimension, str], ...] = ()) -> Query:
    """What a forecast is made of. `now` is a UNIX time."""
    return Query(tenant, now - (HISTORY + 1) * 86400, now + 1, ("day",), where)


def forecast_body(report: Report, now: float) -> ForecastBody:
    """The forecast of what `report` says of each day. `now` is a UNIX time."""
    days = {date.fromisoformat(group.by[0]): group for group in report.groups}
    cost = month_end({day: group.sums.cost for day, group in days.items()}, now)
    tokens = month_end({day: float(group.sums.tokens) for day, group in days.items()}, now)
    today = datetime.fromtimestamp(now, UTC).date()
    known = max(cost.known, tokens.known)
    note = None
    if known < ENOUGH:
        note = f"only {known} whole days are known: a band needs {ENOUGH}"
    month = [group for day, group in days.items() if (day.year, day.month) == (today.year, today.month)]
    unpriced = sum([group.unpriced.tokens for group in month])
    return ForecastBody(f"{today:%Y-%m}", BAND, known, _band(cost), _band(tokens), unpriced, note)


def _parse(body: bytes) -> ModelRequest:
    """A body of `/llm/message` or of `/v1/chat/completions`: as the former, unless it has fields that only the latter knows."""
    names = decode_object(body).keys()
    return parse_native(body) if names <= _NATIVE or names & _ONLY_NATIVE else parse_chat(body)


def _check_names(given: Iterable[str], known: Sequence[str]) -> None:
    """Raises `InvalidRequest` for what nobody knows: left out, the answer would be about something else."""
    for name in given:
        if name not in known:
            raise InvalidRequest(f"{name}: is nothing to ask for here: known are {', '.join(known)}", field=name)


def _group_by(text: str) -> tuple[Dimension, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in GROUPS:
            raise InvalidRequest(f"group_by: must be some of {', '.join(GROUPS)}, not {name!r}", field="group_by")
    return tuple(dict.fromkeys(cast(list[Dimension], names)))


def _filters(request: Request) -> tuple[tuple[Dimension, str], ...]:
    given = request.query_params
    return tuple([(cast(Dimension, name), given[name]) for name in FILTERS if name in given])


def _limit(text: str | None) -> int:
    if text is None:
        return _USUAL_GROUPS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_GROUPS or len(text) > 9:
        raise InvalidRequest(f"limit: must be a whole number from 1 to {MOST_GROUPS}", field="limit")
    return int(text)


def _time(field: str, text: str | None, otherwise: float) -> float:
    """A UNIX time in seconds, or an ISO date or time (UTC unless it says so). A date as `to` includes that day."""
    if text is None or text == "":
        return otherwise
    at = _seconds(text)
    if at is None:
        try:
            # The plus of a time zone is a space in a query that is not quoted.
            moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
            if len(text) == 10 and field == "to":
                moment += timedelta(days=1)
            at = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as error:
            raise _notime_of(field, text) from error
    if not 0 <= at < (_LAST_YEAR - 1970) * 365.25 * 86400:
        raise _notime_of(field, text)
    return at


def _seconds(text: str) -> float | None:
    # Eight digits are a date without dashes to ISO, but so few seconds are a day of 1970 that nobody means.
    try:
        at = float(text)
    except ValueError:
        return None
    return at if math.isfinite(at) and not (len(text) == 8 and text.isdigit()) else None


def _notime_of(field: str, text: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field}: must be a date such as 2026-11-21, a time, or UNIX seconds, not {text!r}", field=field
    )


def _range(range: Range) -> RangeBody:
    return RangeBody(round(range.low, 9), round(range.expected, 9), round(range.high, 9))


def _band(end: MonthEnd) -> BandBody:
    figures = (end.so_far, end.expected, end.low, end.high)
    return BandBody(*[None if figure is None else round(figure, 9) for figure in figures])  # pyright: ignore[reportArgumentType]


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
