"""Errors of this wire: `{"error": {"code", "message", "status", "details"}}`, at times the one member of a list."""

import math
import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from cauce.domain.delta import Failed
from cauce.domain.errors import STATUS, CauceError, ErrorCode, Failure, ProviderFailure
from cauce.wire.gemini.names import items, word
from cauce.wire.retrying import retry_after, sensible, should_retry

_WORDS: dict[ErrorCode, str] = {
    "unauthorized": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "model_not_found": "NOT_FOUND",
    "conflict": "ABORTED",
    "rate_limited": "RESOURCE_EXHAUSTED",
    "quota_exceeded": "RESOURCE_EXHAUSTED",
    "overloaded": "UNAVAILABLE",
    "provider_error": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED",
    "internal": "INTERNAL",
}
"""The API's word for each of our codes; those not listed are INVALID_ARGUMENT."""

_BY_WORD: dict[str, Failure] = {
    "INVALID_ARGUMENT": "bad_request",
    "FAILED_PRECONDITION": "bad_request",
    "OUT_OF_RANGE": "bad_request",
    "UNAUTHENTICATED": "auth",
    "PERMISSION_DENIED": "auth",
    "NOT_FOUND": "bad_request",
    "RESOURCE_EXHAUSTED": "rate_limited",
    "UNAVAILABLE": "overloaded",
}
# A 403 that names no permission is a filter's before the API, and of this request: it says nothing of the key.
_BY_STATUS: dict[int, Failure] = {
    400: "bad_request",
    401: "auth",
    402: "quota",
    404: "bad_request",
    413: "bad_request",
    422: "bad_request",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")
_CONTEXT = re.compile(r"input token count .*exceeds|exceeds the maximum number of tokens", re.I)
_NOT_HERE = re.compile(r"location is not supported", re.I)
_NO_QUOTA = re.compile(r"limit: 0\b|per ?day", re.I)


class UpstreamError(msgspec.Struct, frozen=True):
    """What an error body says. `delay` is in seconds; `spent`: waiting a minute does not help."""

    message: str
    status: int | None = None
    word: str = ""
    delay: float | None = None
    spent: bool = False
    bad_key: bool = False


def parse_error(value: Any) -> UpstreamError | None:
    """What a body says, whatever its shape; None if it is no error."""
    if isinstance(value, list) and value:
        value = cast(list[Any], value)[0]
    error: Any = cast(dict[str, Any], value).get("error") if isinstance(value, dict) else None
    if not error:
        return None
    if not isinstance(error, dict):
        return UpstreamError(str(error))
    fields = cast(dict[str, Any], error)
    message, code, details = (
        str(fields.get("message") or "no message"),
        fields.get("code"),
        items(fields.get("details")),
    )
    violations = [one for detail in details for one in items(detail.get("violations"))]
    return UpstreamError(
        message,
        code if type(code) is int else None,
        word(fields.get("status")),
        _delay(details),
        _NO_QUOTA.search(message) is not None
        or any(["perday" in word(one.get("quotaId")).lower() for one in violations]),
        any([detail.get("reason") == "API_KEY_INVALID" for detail in details]) or "API key not valid" in message,
    )


def _delay(details: list[dict[str, Any]]) -> float | None:
    for detail in details:
        match = _DELAY.fullmatch(word(detail.get("retryDelay")))
        if detail.get("@type") == _RETRY_INFO and match is not None:
            return sensible(float(match[1]))
    return None


def refused(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
    """The failure that an answer other than 200 stands for."""
    try:
        error = parse_error(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None
    if error is None:
        error = UpstreamError(f"HTTP {status}: {body[:200].decode('utf-8', 'replace').strip()}")
    return to_failure(error, provider=provider, status=status, headers=headers)


_NO_HEADERS: Mapping[str, str] = {}


def to_failure(
    error: UpstreamError, *, provider: str, status: int | None = None, headers: Mapping[str, str] = _NO_HEADERS
) -> ProviderFailure:
    """The failure an upstream's error stands for: by its word, then its status."""
    failure, code = _classify(error, status or error.status)
    return ProviderFailure(
        f"{provider}: {error.message}",
        failure=failure,
        provider=provider,
        code=code,
        upstream_status=status or error.status,
        retry_after=error.delay if error.delay is not None else retry_after(headers),
        should_retry=should_retry(headers),
    )


def _classify(error: UpstreamError, status: int | None) -> tuple[Failure, ErrorCode | None]:
    if error.bad_key:
        return "auth", None
    failure = _BY_WORD.get(error.word) or _BY_STATUS.get(status or 0, "transient")
    if failure == "rate_limited" and error.spent:
        return "quota", None
    if failure != "bad_request":
        return failure, None
    if status == 404 or error.word == "NOT_FOUND":
        return "bad_request", "model_not_found"
    if _NOT_HERE.search(error.message):
        # A 400 about where this server stands, not about what was asked: others may serve it.
        return "auth", None
    if _CONTEXT.search(error.message):
        return "bad_request", "context_length_exceeded"
    return "bad_request", None


def render_error(error: CauceError, _: str = "") -> dict[str, Any]:
    """`error` as this wire shows it."""
    body = _body(error.code, error.status, error.message, error.retry_after)
    if (reason := error.facts.get("reason")) is not None:
        body["error"]["details"] = [{"@type": _ERROR_INFO, "reason": reason}, *body["error"].get("details", ())]
    return body


def render_failed(failed: Failed) -> dict[str, Any]:
    """The error a stream ended with, as this wire shows it."""
    return _body(failed.code, STATUS[failed.code], failed.message, failed.retry_after)


def _body(code: ErrorCode, status: int, message: str, wait: float | None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": status, "message": message, "status": _WORDS.get(code, "INVALID_ARGUMENT")}
    if wait is not None:
        error["details"] = [
            {"@type": _RETRY_INFO, "retryDelay": f"{math.ceil(wait * 10) / 10:.1f}".removesuffix(".0") + "s"}
        ]
    return {"error": error}
