"""Errors of the OpenAI wires: `{"error": {"message", "type", "param", "code"}}`."""

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from cauce.domain.delta import Failed
from cauce.domain.errors import CauceError, ErrorCode, Failure, ProviderFailure
from cauce.wire.retrying import retry_after, should_retry

_TYPES: dict[ErrorCode, str] = {
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "rate_limited": "rate_limit_error",
    "quota_exceeded": "insufficient_quota",
    "overloaded": "service_unavailable_error",
    "provider_error": "server_error",
    "timeout": "server_error",
    "internal": "server_error",
}

# Codes and types that OpenAI and servers alike it use, and what they mean whatever the status says.
_BY_CODE: dict[str, tuple[Failure, ErrorCode | None]] = {
    "insufficient_quota": ("quota", None),
    "credit_balance_exhausted": ("quota", None),
    "billing_hard_limit_reached": ("quota", None),
    "rate_limit_exceeded": ("rate_limited", None),
    "rate_limit_error": ("rate_limited", None),
    "invalid_api_key": ("auth", None),
    "authentication_error": ("auth", None),
    "model_not_found": ("bad_request", "model_not_found"),
    "context_length_exceeded": ("bad_request", "context_length_exceeded"),
    "server_is_overloaded": ("overloaded", None),
    "service_unavailable_error": ("overloaded", None),
    "overloaded_error": ("overloaded", None),
    "content_filter": ("content_filter", None),
    "content_policy_violation": ("content_filter", None),
}

_CONTEXT = re.compile(r"maximum context length|context (?:window|length|size)|too many tokens|prompt is too long", re.I)


class UpstreamError(msgspec.Struct, frozen=True):
    """What an error body says."""

    message: str
    type: str = ""
    code: str = ""
    status: int | None = None


def render_error(error: CauceError) -> dict[str, Any]:
    """`error` as this wire shows it."""
    return _body(error.code, error.message, error.field, error.retry_after)


def render_failed(failed: Failed) -> dict[str, Any]:
    """The error a stream ended with, as this wire shows it."""
    return _body(failed.code, failed.message, None, failed.retry_after)


def _body(code: ErrorCode, message: str, field: str | None, retry_after: float | None) -> dict[str, Any]:
    # The SDKs read `code` of a wrong key by this name.
    shown = "invalid_api_key" if code == "unauthorized" else code
    error: dict[str, Any] = {
        "message": message,
        "type": _TYPES.get(code, "invalid_request_error"),
        "param": field,
        "code": shown,
    }
    if retry_after is not None:
        error["retry_after"] = retry_after
    return {"error": error}


def parse_error(value: Any) -> UpstreamError | None:
    """What the `error` member of an answer says; None if `value` is no error. Servers send objects and bare strings."""
    if not value:
        return None
    if not isinstance(value, dict):
        return UpstreamError(str(value))
    error = cast(dict[str, Any], value)
    code = error.get("code")
    status = error.get("status_code")
    if isinstance(code, int):
        status, code = code, None
    message = error.get("message") or error.get("detail") or "no message"
    return UpstreamError(
        str(message), str(error.get("type") or ""), str(code or ""), status if isinstance(status, int) else None
    )


def refused(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
    """The failure that an answer other than 200 stands for."""
    error = _error_in(body) or UpstreamError(f"HTTP {status}: {body[:200].decode('utf-8', 'replace').strip()}")
    return to_failure(error, provider=provider, status=status, headers=headers)


def _error_in(body: bytes) -> UpstreamError | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = cast(list[Any], value)[0]
    if not isinstance(value, dict):
        return None
    members = cast(dict[str, Any], value)
    return parse_error(members.get("error") or members.get("detail") or members.get("message"))


_NO_HEADERS: Mapping[str, str] = {}


def to_failure(
    error: UpstreamError, *, provider: str, status: int | None = None, headers: Mapping[str, str] = _NO_HEADERS
) -> ProviderFailure:
    """The failure an upstream's error stands for: by its code, then its type, then the status."""
    status = status if status is not None and status != 200 else error.status
    failure, code = _classify(error, status)
    return ProviderFailure(
        f"{provider}: {error.message}",
        failure=failure,
        provider=provider,
        code=code,
        upstream_status=status,
        retry_after=retry_after(headers),
        should_retry=should_retry(headers),
    )


def _classify(error: UpstreamError, status: int | None) -> tuple[Failure, ErrorCode | None]:
    for word in (error.code, error.type):
        if word in _BY_CODE:
            return _BY_CODE[word]
    match status:
        case 401 | 403:
            return "auth", None
        case 402:
            return "quota", None
        case 404:
            missing_model = "model" in error.message.lower()
            return ("bad_request", "model_not_found") if missing_model else ("transient", None)
        case 429:
            return "rate_limited", None
        case 503 | 529:
            return "overloaded", None
        case 400 | 413 | 422 if _CONTEXT.search(error.message):
            return "bad_request", "context_length_exceeded"
        case 400 | 405 | 413 | 415 | 422:
            return "bad_request", None
        case _:
            return "transient", None
