"""Errors of the OpenAI wires: `{"error": {"message", "type", "param", "code"}}`, and what servers alike make of that."""

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from cauce.domain.delta import Failed
from cauce.domain.errors import CauceError, ErrorCode, Failure, ProviderFailure
from cauce.wire.openai_chat.delays import told_delay
from cauce.wire.openai_chat.extras import member
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

Class = tuple[Failure, ErrorCode | None]

_QUOTA: Class = ("quota", None)
_LIMITED: Class = ("rate_limited", None)
_AUTH: Class = ("auth", None)
_BUSY: Class = ("overloaded", None)
_BAD: Class = ("bad_request", None)
_BROKEN: Class = ("transient", None)
_FILTERED: Class = ("content_filter", None)
_NO_MODEL: Class = ("bad_request", "model_not_found")
_TOO_LONG: Class = ("bad_request", "context_length_exceeded")

# Codes and types, in lower case, and what they mean whatever the status says.
_BY_CODE: dict[str, Class] = {
    # OpenAI, "Error codes"
    "insufficient_quota": _QUOTA,
    "credit_balance_exhausted": _QUOTA,
    "billing_hard_limit_reached": _QUOTA,
    "billing_not_active": _QUOTA,
    "rate_limit_exceeded": _LIMITED,
    "rate_limit_error": _LIMITED,
    "invalid_api_key": _AUTH,
    "authentication_error": _AUTH,
    "permission_error": _AUTH,
    "unsupported_country_region_territory": _AUTH,
    "model_not_found": _NO_MODEL,
    "context_length_exceeded": _TOO_LONG,
    "server_is_overloaded": _BUSY,
    "service_unavailable_error": _BUSY,
    "slow_down": _BUSY,
    "overloaded_error": _BUSY,
    "engine_overloaded": _BUSY,
    "content_policy_violation": _FILTERED,
    "invalid_prompt": _FILTERED,
    # Azure OpenAI, "Content filtering"; its deployments are its models
    "content_filter": _FILTERED,
    "deploymentnotfound": _NO_MODEL,
    "ratelimitreached": _LIMITED,
    "nocapacity": _BUSY,
    # Groq, "API error codes": what a model wrote was no call or no JSON; the next try may be
    "tool_use_failed": _BROKEN,
    "json_validate_failed": _BROKEN,
    "model_decommissioned": _NO_MODEL,
    # Mistral, seen in public issues
    "rate_limited": _LIMITED,
    "service_tier_capacity_exceeded": _BUSY,
    "invalid_model": _NO_MODEL,
    # llama.cpp, tools/server; https://github.com/ggml-org/llama.cpp/pull/15780
    "exceed_context_size_error": _TOO_LONG,
    "unavailable_error": _BUSY,
    "not_supported_error": _BAD,
    # Google's endpoint of this wire
    "unauthenticated": _AUTH,
    "permission_denied": _AUTH,
    "resource_exhausted": _LIMITED,
    "unavailable": _BUSY,
}

_CONTEXT = (
    r"maximum context length|context (?:window|length|size)|too many tokens|prompt is too long|request too large"
    r"|input is too long|reduce the length"
)
_MONEY = (
    r"insufficient (?:balance|credits|funds|quota)|more credits|out of credits|any credits|available credits"
    r"|(?:spending|usage|credit|monthly|billing) limit (?:has been )?reached|monthly spending limit"
)
_DAILY = r"per[ -]?day|\b(?:RPD|TPD)\b|daily (?:limit|quota)"
_MODEL = (
    r"model not exist|invalid model|not a valid model|no endpoints found|no models loaded"
    r"|model\b.{0,120}(?:does not exist|not found|not supported here)|(?:unknown|no such) model"
)
_KEY = (
    r"incorrect api key|invalid api key|api key not valid|no auth credentials"
    r"|api key (?:is |has been )?(?:blocked|deleted|disabled|expired|revoked)"
)
_FILTER = r"content management policy|violates (?:our )?usage guidelines|flagged by|input was flagged|safety_check"

# What messages say, for servers whose codes and statuses do not. Only statuses that leave it open are looked at so.
_BY_MESSAGE: tuple[tuple[frozenset[int | None], re.Pattern[str], Class], ...] = (
    (frozenset({400, 403, None}), re.compile(_FILTER, re.I), _FILTERED),
    (frozenset({400, 413, 422, 429, 500, None}), re.compile(_CONTEXT, re.I), _TOO_LONG),
    (frozenset({400, 401, 403, 429, None}), re.compile(_MONEY, re.I), _QUOTA),
    (frozenset({429, None}), re.compile(_DAILY, re.I), _QUOTA),
    (frozenset({400, 403}), re.compile(_KEY, re.I), _AUTH),
    (frozenset({400, 404, 422, None}), re.compile(_MODEL, re.I), _NO_MODEL),
)

_BY_STATUS: dict[int, Class] = {
    401: _AUTH,
    402: _QUOTA,
    429: _LIMITED,
    498: _BUSY,
    501: _BAD,
    503: _BUSY,
    529: _BUSY,
    **dict.fromkeys((400, 405, 413, 415, 422), _BAD),
}
"""Of statuses that stand here; all others are transient. 498 is Groq's "flex tier capacity exceeded". A 403
that names neither a key nor a permission is a filter's before the service, and of this request: it says nothing of the key."""

_LONGEST_RAW = 300
"""Characters of what stands behind a gateway's own words."""


class UpstreamError(msgspec.Struct, frozen=True):
    """What an error body says. `status` is the one in the body."""

    message: str
    type: str = ""
    code: str = ""
    status: int | None = None


def render_error(error: CauceError) -> dict[str, Any]:
    """`error` as this wire shows it. What else a program may want to know stands beside it."""
    body = _body(error.code, error.message, error.field, error.retry_after)
    return {"error": {**body["error"], **error.facts}} if error.facts else body


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
        return UpstreamError(_words(value))
    error = cast(dict[str, Any], value)
    inner = error.get("error")
    if isinstance(inner, dict) and inner:
        return parse_error(cast(Any, inner))
    code, status = error.get("code"), error.get("status_code") or error.get("status")
    if isinstance(code, int) or (isinstance(code, str) and re.fullmatch(r"[1-5]\d\d", code)):
        status, code = int(code), status if isinstance(status, str) else None
    said = _words(error.get("message") or error.get("detail") or "no message")
    kind = error.get("type") or member(error, "innererror").get("code")
    return UpstreamError(
        said + _behind(error), str(kind or ""), str(code or ""), status if isinstance(status, int) else None
    )


def _words(value: Any) -> str:
    """A message as text: servers that check fields send lists of what is wrong where."""
    match value:
        case str():
            return value
        case {"detail": detail}:
            return _words(detail)
        case {"loc": [*place], "msg": str(said)}:
            return f"{'.'.join([str(step) for step in place])}: {said}"
        case {"message": str(said)} | {"msg": str(said)}:
            return said
        case [*entries]:
            return "; ".join([_words(entry) for entry in entries])
        case _:
            return str(value)


def _behind(error: dict[str, Any]) -> str:
    """What the provider behind a gateway said (OpenRouter's `metadata`), and what a wait is told in (Google's `details`)."""
    metadata = member(error, "metadata")
    raw, name = metadata.get("raw"), metadata.get("provider_name")
    said = _inner_message(raw) if isinstance(raw, str) and raw else ""
    if said:
        return f" ({name}: {said[:_LONGEST_RAW]})" if isinstance(name, str) else f" ({said[:_LONGEST_RAW]})"
    if reasons := metadata.get("reasons"):
        return f" (flagged by moderation: {_words(reasons)[:_LONGEST_RAW]})"
    return _limits(error.get("details"))


def _limits(details: Any) -> str:
    """What Google's `details` say of the limit that was hit (google.rpc `RetryInfo` and `QuotaFailure`)."""
    said = ""
    for entry in cast(list[Any], details) if isinstance(details, list) else ():
        match entry:
            case {"retryDelay": str(delay)}:
                said += f" (retry in {delay})"
            case {"violations": [*violations]} if "PerDay" in str(violations):
                said += " (a limit per day)"
            case _:
                continue
    return said


def _inner_message(raw: str) -> str:
    inner = _error_in(raw.encode("utf-8", "replace"))
    return inner.message if inner is not None else raw


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
    error = members.get("error")
    if isinstance(error, str):
        # xAI: the words stand in `error`, and beside it a code in words.
        return UpstreamError(error, code=str(members.get("code") or ""))
    if not error and "message" in members:
        return parse_error(members)
    return parse_error(error or members.get("detail"))


_NO_HEADERS: Mapping[str, str] = {}


def to_failure(
    error: UpstreamError, *, provider: str, status: int | None = None, headers: Mapping[str, str] = _NO_HEADERS
) -> ProviderFailure:
    """The failure an upstream's error stands for: by its code, then its type, then its words, then the status."""
    status = status if status is not None and status != 200 else error.status
    failure, code = _classify(error, status)
    waits = failure in ("rate_limited", "quota", "overloaded")
    return ProviderFailure(
        f"{provider}: {error.message}",
        failure=failure,
        provider=provider,
        code=code,
        upstream_status=status,
        retry_after=told_delay(headers, error.message) if waits else retry_after(headers),
        should_retry=should_retry(headers),
    )


def _classify(error: UpstreamError, status: int | None) -> Class:
    named = next((_BY_CODE[word.lower()] for word in (error.code, error.type) if word.lower() in _BY_CODE), None)
    if named is not None and named not in (_LIMITED, _BROKEN):
        return named
    # A limit may be one that no waiting opens: by the day, of money, or smaller than the request.
    status_or_429 = 429 if named is _LIMITED else status
    for statuses, pattern, meaning in _BY_MESSAGE:
        if status_or_429 in statuses and pattern.search(error.message):
            return meaning
    if named is not None:
        return named
    if status == 404:
        return _NO_MODEL if "model" in error.message.lower() else _BROKEN
    return _BY_STATUS.get(status, _BROKEN) if status is not None else _BROKEN
