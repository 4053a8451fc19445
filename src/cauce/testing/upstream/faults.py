"""Everything that goes wrong with providers before the first delta, in each wire's own words.

    upstream.answers = [fault("quota"), Reply(text="hello")]      # fails once, then answers

What stands in bodies is what the providers send; the sources are their error pages.
"""

from typing import Any

from cauce.testing.upstream.record import Limits
from cauce.testing.upstream.reply import Answer, Ask, Reply

HTML = b"<!doctype html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
DELAY = 0.05
"""Seconds that a 429 asks to wait."""
SLOW = 30.0
"""Seconds that slow headers take."""

_HTML = {"content-type": "text/html; charset=utf-8"}
_EVENTS = {"content-type": "text/event-stream"}
_SPENT_TODAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [
        {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            "quotaValue": "250",
        }
    ],
}
_LIMITED_THIS_MINUTE = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "quotaValue": "10"}],
}
_LIMITED: dict[str, dict[str, Any]] = {
    # https://platform.openai.com/docs/guides/error-codes
    "openai": {
        "message": "Rate limit reached for requests. Visit https://platform.openai.com/account/rate-limits.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    },
    # https://docs.claude.com/en/api/errors
    "anthropic": {
        "type": "rate_limit_error",
        "message": "This request would exceed the rate limit for your organization.",
    },
    # https://ai.google.dev/gemini-api/docs/rate-limits
    "gemini": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "details": [_LIMITED_THIS_MINUTE],
    },
}
_QUOTA: dict[str, dict[str, Any]] = {
    "openai": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    },
    "anthropic": {
        "type": "rate_limit_error",
        "message": "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
    },
    "gemini": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "details": [_SPENT_TODAY],
    },
}
_BUSY: dict[str, dict[str, Any]] = {
    "openai": {
        "message": "The engine is currently overloaded.",
        "type": "server_error",
        "code": "server_is_overloaded",
    },
    "anthropic": {"type": "overloaded_error", "message": "Overloaded"},
    "gemini": {"message": "The model is overloaded. Please try again later."},
}
_ILL: dict[str, dict[str, Any]] = {
    "openai": {
        "message": "The server had an error while processing your request.",
        "type": "server_error",
        "code": None,
    },
    "anthropic": {"type": "api_error", "message": "Internal server error"},
    "gemini": {"message": "An internal error has occurred."},
}


def _maker(ask: Ask) -> str:
    return ask.wire if ask.wire in ("anthropic", "gemini") else "openai"


def _refused(status: int, errors: dict[str, dict[str, Any]], retry_after: float | None = None) -> Answer:
    return lambda ask: Reply(status=status, error=errors[_maker(ask)], retry_after=retry_after)


def _malformed(ask: Ask) -> Reply:
    broken = b'{"id": "x", "choices": [{"index": 0, "message"'
    return Reply(raw=b"data: " + broken + b"\n\n", headers=_EVENTS) if ask.streamed else Reply(raw=broken)


def _mislabelled(ask: Ask) -> Reply:
    """The answer that was asked for, and a label that says otherwise."""
    return Reply(headers={"content-type": "application/json"} if ask.streamed else _HTML)


FAULTS: dict[str, Answer] = {
    "reset before headers": Reply(reset=True),
    "hang": Reply(silent=True),
    "slow headers": Reply(delay=SLOW),
    "429 with delay": _refused(429, _LIMITED, DELAY),
    "429 without delay": _refused(429, _LIMITED),
    "quota": _refused(429, _QUOTA),
    "500": _refused(500, _ILL),
    "503": _refused(503, _BUSY),
    "529": _refused(529, _BUSY),
    "HTML with 200": Reply(raw=HTML, headers=_HTML),
    "HTML with 502": Reply(status=502, raw=HTML, headers=_HTML),
    "malformed JSON": _malformed,
    "wrong content type": _mislabelled,
    "empty body": Reply(raw=b""),
    "truncated JSON": Reply(truncated=True),
    "stalled stream": Reply(stall_after=0),
    "cut before the first delta": Reply(cut_after=0),
}
"""By name. Each is a reply, or makes one of what was asked."""


def over_limits(ask: Ask, limits: Limits) -> Reply:
    """What a request over the fake's own limits is told."""
    errors = _LIMITED if limits.status == 429 else _BUSY
    return Reply(status=limits.status, error=errors[_maker(ask)], retry_after=limits.retry_after)


def fault(name: str) -> Answer:
    """The fault of that name."""
    return FAULTS[name]
