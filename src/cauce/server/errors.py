"""Errors as HTTP: the only place that turns a `CauceError` into a status, headers and a body in the surface's own shape."""

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from cauce.domain.errors import CauceError, InternalError, InvalidRequest
from cauce.server.exchange import Exchange, Header
from cauce.wire.anthropic_messages.errors import render_error as render_anthropic_error
from cauce.wire.gemini.errors import render_error as render_gemini_error
from cauce.wire.native.answer import render_error as render_native_error
from cauce.wire.openai_chat.errors import render_error as render_openai_error

LONGEST_RETRY_AFTER = 60.0
"""Seconds. Clients sleep through the whole header; longer waits stand in the body only."""


RETRY_AFTER = 1.0
"""Seconds to wait where nobody has said how long: a client that knows nothing would come back at once."""


async def respond_error(exchange: Exchange, error: CauceError) -> None:
    """Answer with `error`."""
    headers: list[Header] = []
    wait = error.retry_after
    if wait is None and error.code in ("rate_limited", "overloaded"):
        wait = RETRY_AFTER
    if error.lasting:
        headers.append((b"x-should-retry", b"false"))
    elif wait is not None and wait <= LONGEST_RETRY_AFTER:
        headers.append((b"retry-after", b"%d" % math.ceil(wait)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(wait * 1000)))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await exchange.respond_json(
        error.status, msgspec.json.encode(error_body(exchange.path, error, exchange.request_id)), *headers
    )


Shape = Callable[[CauceError, str], dict[str, Any]]
"""From an error and the id of the request to the body a surface shows it in."""

_SHAPES: tuple[tuple[re.Pattern[str], Shape], ...] = (
    (re.compile(r"/v1/messages(?:/|$)"), render_anthropic_error),
    (re.compile(r"/v1beta(?:/|$)|/v1/models/.+:"), render_gemini_error),
    (re.compile(r"/v1(?:/|$)"), lambda error, _: render_openai_error(error)),
)
"""The first pattern that the path begins with decides."""


def error_body(path: str, error: CauceError, request_id: str) -> dict[str, Any]:
    """`error` in the shape of the surface that `path` belongs to."""
    for pattern, shape in _SHAPES:
        if pattern.match(path):
            return shape(error, request_id)
    return render_native_error(error, request_id)


class MethodNotAllowed(InvalidRequest):
    """The path exists, the method does not."""

    @property
    def status(self) -> int:
        return 405


def not_allowed(exchange: Exchange, allowed: str) -> MethodNotAllowed:
    """The error for a method that `exchange`'s path does not take; `allowed` are those it does."""
    exchange.headers.append((b"allow", f"{allowed}, OPTIONS".encode()))
    return MethodNotAllowed(f"{exchange.path} takes {allowed}, not {exchange.method}")


def unexpected() -> InternalError:
    """The error of a bug: its details are in the log, not in the answer."""
    return InternalError("an unexpected error happened here: the server's log has it under this request id")
