"""What a client wishes in headers, for SDKs that cannot put it into the body: `x-cauce-task`, `x-cauce-privacy`, `x-cauce-timeout`."""

import re
from typing import TypeVar

import msgspec

from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.errors import InvalidRequest
from cauce.domain.request import Request
from cauce.server.exchange import Exchange
from cauce.wire.native.request import LONGEST, SHORTEST

R = TypeVar("R", Request, EmbeddingRequest)

_TASK = b"x-cauce-task"
_PRIVACY = b"x-cauce-privacy"
_TIMEOUT = b"x-cauce-timeout"
_SECONDS = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,20})?")


def wished(exchange: Exchange, request: R) -> R:
    """`request` with what its headers say. A task, a time or a privacy of `local` in the body is the one that counts. Raises `InvalidRequest`."""
    headers = exchange.request_headers
    if _TASK in headers and request.task is None and isinstance(request, Request):
        request = msgspec.structs.replace(request, task=exchange.header(_TASK))
    if _PRIVACY in headers and (request.privacy or "").strip().lower() != "local":
        # A header does not undo what the body asks for.
        request = msgspec.structs.replace(request, privacy=exchange.header(_PRIVACY))
    if _TIMEOUT in headers:
        seconds = _timeout(exchange.header(_TIMEOUT))
        if request.timeout is None:
            request = msgspec.structs.replace(request, timeout=seconds)
    return request


def _timeout(value: str) -> float:
    """Seconds. Raises `InvalidRequest`."""
    seconds = float(value) if _SECONDS.fullmatch(value) else 0.0
    if not SHORTEST <= seconds <= LONGEST:
        what = f"X-Cauce-Timeout: must be seconds from {SHORTEST:g} to {LONGEST:g}, such as 30 or 2.5, not {value!r}"
        raise InvalidRequest(what, field="X-Cauce-Timeout")
    return seconds
