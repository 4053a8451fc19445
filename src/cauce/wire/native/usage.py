"""Answers of `/usage`, `/usage/forecast`, `/usage/estimate` and `/feedback`, as JSON has them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.histogram import Counts, percentiles
from cauce.ports.usage import Dimension, Group, Opinion, Report, Sums, Votes
from cauce.wire.fields import check, decode_object

_SHARES = (0.5, 0.95, 0.99)
_DIGITS = 9
"""Of costs, in USD: sums of floats need no more."""


class FiguresBody(msgspec.Struct):
    """Tokens as in `usage` of an answer, `cost` in USD. A request may have had several attempts: `requests` counts it where it was
    asked first, `answered` where an attempt gave the whole answer, be it out of a cache."""

    requests: int
    attempts: int
    answered: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost: float


class PercentilesBody(msgspec.Struct):
    """Seconds that so many percent of the completed attempts did not exceed, within 5 %; null where there were none."""

    p50: float | None
    p95: float | None
    p99: float | None


class TimesBody(msgspec.Struct):
    """`latency` and `first_delta` are of attempts, `request` is from the beginning of a request to its answer's end."""

    latency: PercentilesBody
    first_delta: PercentilesBody
    request: PercentilesBody


class ErrorsBody(msgspec.Struct):
    """`rate` is the share of attempts that failed or broke off; `by_code` counts them."""

    rate: float
    by_code: dict[str, int]


class VotesBody(msgspec.Struct):
    """What people thought of the answers. `mean_score` is null where nobody gave a score."""

    up: int
    down: int
    mean_score: float | None


class ReportBody(msgspec.Struct):
    """Answer of `GET /usage`. Attempts without a known price add nothing to `cost` and stand in `unpriced`.

    Each of `groups` has its value under the name it is grouped by, the fields of `total`, and the other figures of this answer.
    `left_out` counts groups beyond `limit`.
    """

    group_by: list[str]
    total: FiguresBody
    estimated: FiguresBody
    unpriced: FiguresBody
    percentiles: TimesBody
    errors: ErrorsBody
    feedback: VotesBody
    groups: list[dict[str, Any]]
    left_out: int
    since: str = msgspec.field(name="from")
    until: str = msgspec.field(name="to")


class BandBody(msgspec.Struct):
    """What the month has come to, and will have at its end. Null where too little is known."""

    so_far: float
    expected: float | None
    low: float | None
    high: float | None


class ForecastBody(msgspec.Struct, omit_defaults=True):
    """Answer of `GET /usage/forecast`. `low` and `high` hold the end with a probability of `band`; `note` says why they may be missing."""

    month: str
    band: float
    days_known: int
    cost: BandBody
    tokens: BandBody
    unpriced_tokens: int
    note: str | None = None


class RangeBody(msgspec.Struct):
    """From the least to the most that is likely; `expected` is what such answers mostly are, where enough of them are known."""

    low: float
    expected: float
    high: float


class CandidateBody(msgspec.Struct):
    """What one model would cost. `cost` is null where its price is not known, and 0 and `priced` where it costs nothing, since it runs here;
    `exact`: its tokens were counted, not estimated."""

    model: str
    level: str
    input_tokens: int
    exact: bool
    output_tokens: RangeBody
    cost: RangeBody | None
    cost_source: Literal["priced", "estimated", "unpriced"]


class EstimateBody(msgspec.Struct):
    """Answer of `POST /usage/estimate`: the models that would be asked, in this order. Nothing has been sent to them."""

    candidates: list[CandidateBody]


class FeedbackBody(msgspec.Struct):
    """Body of `POST /feedback`: about which answer (`stream_id` or `request_id`), and a `thumb`, a `score` from 0 to 1, or both."""

    stream_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    thumb: Literal["up", "down"] | None = None
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    comment: Annotated[str, msgspec.Meta(max_length=4000)] = ""


class Noted(msgspec.Struct):
    """Answer of `POST /feedback`."""

    recorded: bool = True


def parse_feedback(body: bytes) -> Opinion:
    """The opinion in `body`. Raises `InvalidRequest` naming the field."""
    given = check(decode_object(body), FeedbackBody)
    id = given.stream_id or given.request_id
    if id is None:
        raise InvalidRequest("stream_id: is required, or request_id: which answer is this about?", field="stream_id")
    if given.stream_id is not None and given.request_id is not None:
        raise InvalidRequest("request_id: one of stream_id and request_id is enough", field="request_id")
    if given.thumb is None and given.score is None:
        raise InvalidRequest("thumb: is required (up or down), or score (0 to 1)", field="thumb")
    return Opinion(id, given.thumb, given.score, given.comment)


def usage_body(report: Report, by: tuple[Dimension, ...], limit: int) -> ReportBody:
    """`report` as JSON, with the first `limit` of its groups."""
    total = report.total
    return ReportBody(
        list(by),
        _figures(total.sums),
        _figures(total.estimated),
        _figures(total.unpriced),
        _times(total),
        _errors(total),
        _votes(total.votes),
        [_group(group, by) for group in report.groups[:limit]],
        max(0, len(report.groups) - limit),
        stamp(report.since),
        stamp(report.until),
    )


def stamp(at: float) -> str:
    """A UNIX time as 2026-11-21T08:00:00Z."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _group(group: Group, by: tuple[Dimension, ...]) -> dict[str, Any]:
    return {
        **dict(zip(by, group.by, strict=True)),
        **msgspec.structs.asdict(_figures(group.sums)),
        "estimated": _figures(group.estimated),
        "unpriced": _figures(group.unpriced),
        "percentiles": _times(group),
        "errors": _errors(group),
        "feedback": _votes(group.votes),
    }


def _figures(sums: Sums) -> FiguresBody:
    return FiguresBody(
        sums.requests,
        sums.attempts,
        sums.answered,
        sums.input_tokens,
        sums.output_tokens,
        sums.cached_tokens,
        sums.cache_write_tokens,
        sums.reasoning_tokens,
        round(sums.cost, _DIGITS),
    )


def _times(group: Group) -> TimesBody:
    spread = group.spread
    return TimesBody(_percentiles(spread.latency), _percentiles(spread.first_delta), _percentiles(spread.request))


def _percentiles(counts: Counts) -> PercentilesBody:
    return PercentilesBody(*[None if value is None else round(value, 6) for value in percentiles(counts, _SHARES)])


def _errors(group: Group) -> ErrorsBody:
    return ErrorsBody(round(group.error_rate, 6), dict(sorted(group.errors.items())))


def _votes(votes: Votes) -> VotesBody:
    mean = votes.mean_score
    return VotesBody(votes.up, votes.down, None if mean is None else round(mean, 6))
