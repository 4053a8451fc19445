"""Errors of this wire: `{"type": "error", "error": {"type", "message", "details"}, "request_id"}`."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec

from cauce.domain.delta import Failed
from cauce.domain.errors import CauceError, ErrorCode, Failure, ProviderFailure
from cauce.wire.retrying import retry_after, should_retry

_TYPES: dict[ErrorCode, str] = {
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "not_found_error",
    "model_not_found": "not_found_error",
    "payload_too_large": "request_too_large",
    "rate_limited": "rate_limit_error",
    "quota_exceeded": "rate_limit_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "provider_error": "api_error",
    "internal": "api_error",
}
"""The API's word for each of our codes; those not listed are `invalid_request_error`."""

# Types of errors and what they mean whatever the status says: inside a stream there is none.
_BY_TYPE: dict[str, Failure] = {
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "quota",
    "rate_limit_error": "rate_limited",
    "overloaded_error": "overloaded",
    "timeout_error": "transient",
    "api_error": "transient",
    "invalid_request_error": "bad_request",
    "request_too_large": "bad_request",
}
# A 403 that names no permission is a filter's before the API, and of this request: it says nothing of the key.
_BY_STATUS: dict[int, Failure] = {
    400: "bad_request",
    401: "auth",
    402: "quota",
    405: "bad_request",
    412: "bad_request",
    413: "bad_request",
    415: "bad_request",
    422: "bad_request",
    429: "rate_limited",
    431: "bad_request",
    503: "overloaded",
    529: "overloaded",
}

_MONTHLY = "enforced_spend_limit_reached"
_SPEND_LIMIT = re.compile(r"spend(?:ing)? limit|api usage limits", re.I)
_NO_CREDIT = re.compile(r"credit balance|lacks credit", re.I)
_CONTEXT = re.compile(r"prompt is too long|exceeds? (?:the )?context|context (?:window|length|limit)", re.I)
_FILTERED = re.compile(r"content filtering policy", re.I)
_MODEL = re.compile(r"\bmodel\b", re.I)


class UpstreamError(msgspec.Struct, frozen=True):
    """What an error body says. `code` is that of its details."""

    message: str
    type: str = ""
    code: str = ""


def render_error(error: CauceError, request_id: str) -> dict[str, Any]:
    """`error` as this wire shows it."""
    kind = "billing_error" if error.status == 402 else _TYPES.get(error.code, "invalid_request_error")
    body = _body(kind, error.message, error.retry_after, request_id)
    return {**body, "error": {**body["error"], **error.facts}} if error.facts else body


def render_failed(failed: Failed) -> dict[str, Any]:
    """The error a stream ended with, as this wire shows it."""
    return _body(_TYPES.get(failed.code, "invalid_request_error"), failed.message, failed.retry_after, None)


def _body(kind: str, message: str, wait: float | None, request_id: str | None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": message}
    if wait is not None:
        error["retry_after"] = wait
    return {"type": "error", "error": error, "request_id": request_id}


def parse_error(value: Any) -> UpstreamError:
    """What a body or an event of type `error` says, whatever its shape."""
    match value:
        case {"error": dict()}:
            error = cast(dict[str, Any], value["error"])
        case {"error": str(message)}:
            return UpstreamError(message)
        case dict():
            error = cast(dict[str, Any], value)
        case _:
            return UpstreamError(str(value))
    code = ""
    match error:
        case {"details": {"error_code": str(word)}}:
            code = word
        case _:
            pass
    return UpstreamError(str(error.get("message") or "no message"), str(error.get("type") or ""), code)


def refused(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
    """The failure that an answer other than 200 stands for."""
    try:
        error = parse_error(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = UpstreamError(f"HTTP {status}: {body[:200].decode('utf-8', 'replace').strip()}")
    return to_failure(error, provider=provider, status=status, headers=headers)


_NO_HEADERS: Mapping[str, str] = {}


def to_failure(
    error: UpstreamError, *, provider: str, status: int | None = None, headers: Mapping[str, str] = _NO_HEADERS
) -> ProviderFailure:
    """The failure an upstream's error stands for: by what it says of money and length, then its status, then its type."""
    failure, code = _classify(error, status)
    wait = retry_after(headers)
    if failure == "quota" and wait is None and _monthly(error):
        wait = until_next_month(headers.get("date"))
    return ProviderFailure(
        f"{provider}: {error.message}",
        failure=failure,
        provider=provider,
        code=code,
        upstream_status=status,
        retry_after=wait,
        should_retry=should_retry(headers),
    )


def until_next_month(date: str | None) -> float | None:
    """Seconds from `date`, an HTTP date, to the first of the next month, 00:00 UTC: when a monthly limit is lifted.

    None where there is no such date.
    """
    try:
        now = parsedate_to_datetime(date or "").astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return (datetime(year, month, 1, tzinfo=UTC) - now).total_seconds() if year < 10_000 else None


def _monthly(error: UpstreamError) -> bool:
    return error.code == _MONTHLY or _SPEND_LIMIT.search(error.message) is not None


def _classify(error: UpstreamError, status: int | None) -> tuple[Failure, ErrorCode | None]:
    if _monthly(error) or _NO_CREDIT.search(error.message):
        return "quota", None
    if status == 404 or error.type == "not_found_error":
        return ("bad_request", "model_not_found") if _MODEL.search(error.message) else ("transient", None)
    failure = _BY_STATUS.get(status or 0) or _BY_TYPE.get(error.type, "transient")
    if failure != "bad_request":
        return failure, None
    if _CONTEXT.search(error.message):
        return failure, "context_length_exceeded"
    if _FILTERED.search(error.message):
        return "content_filter", None
    return failure, "payload_too_large" if status == 413 or error.type == "request_too_large" else None
