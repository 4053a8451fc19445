"""What a client wishes of routing in headers, for SDKs that cannot put it into the body: `x-cauce-task`, `x-cauce-privacy`."""

from typing import TypeVar

import msgspec

from cauce.domain.embedding import EmbeddingRequest
from cauce.domain.request import Request
from cauce.server.exchange import Exchange

R = TypeVar("R", Request, EmbeddingRequest)

_TASK = b"x-cauce-task"
_PRIVACY = b"x-cauce-privacy"


def wished(exchange: Exchange, request: R) -> R:
    """`request` with what its headers say. A task in the body is the one that counts."""
    headers = exchange.request_headers
    if _TASK in headers and request.task is None and isinstance(request, Request):
        request = msgspec.structs.replace(request, task=exchange.header(_TASK))
    if _PRIVACY in headers:
        request = msgspec.structs.replace(request, privacy=exchange.header(_PRIVACY))
    return request
