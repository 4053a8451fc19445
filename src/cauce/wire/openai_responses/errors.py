"""Errors inside answers of this wire: an `error` event, or a response that says `failed`. Refusals before one are chat's."""

from typing import Any, cast

import msgspec

from cauce.domain.delta import Failed
from cauce.domain.errors import ErrorCode, ProviderFailure
from cauce.wire.openai_chat.errors import UpstreamError, parse_error, render_failed, to_failure

_BAD_REQUEST = ("invalid_", "image_", "unsupported_image", "empty_image", "failed_to_download_image")
_FILTERED = ("content_policy", "image_content_policy", "bio_policy", "cyber_policy", "misalignment_policy")

_CODES: dict[ErrorCode, str] = {
    "rate_limited": "rate_limit_exceeded",
    "quota_exceeded": "insufficient_quota",
    "context_length_exceeded": "context_length_exceeded",
    "overloaded": "server_is_overloaded",
    "invalid_request": "invalid_prompt",
    "model_not_found": "model_not_found",
}
"""The words this wire's clients know; all others are `server_error`."""


def failure_in(event: dict[str, Any], provider: str) -> ProviderFailure:
    """The failure that an `error` event or a failed response's `error` stands for. Servers nest its fields or do not."""
    nested = event.get("error")
    error = parse_error(nested if nested else {name: event.get(name) for name in ("message", "code", "type")})
    return _failure(error or UpstreamError("the answer failed, and it was not said why"), provider)


def _failure(error: UpstreamError, provider: str) -> ProviderFailure:
    word = error.code or error.type
    if word.startswith(_FILTERED):
        error = msgspec.structs.replace(error, code="content_policy_violation")
    elif word.startswith(_BAD_REQUEST) and error.status is None:
        # The status of the request itself was 200: this is what it would have been.
        error = msgspec.structs.replace(error, status=400)
    return to_failure(error, provider=provider)


def render_failure(failed: Failed) -> tuple[dict[str, Any], dict[str, Any]]:
    """The error a stream ended with: as the `error` event tells it, and as its response does."""
    told = cast(dict[str, Any], render_failed(failed)["error"])
    told["code"] = _CODES.get(failed.code, "server_error")
    return told, {"code": told["code"], "message": failed.message}
