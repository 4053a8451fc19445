"""What goes wrong for a client, as errors it can tell apart.

CauceError
├── CallFailed      the server answered with an error, or its stream ended in one: `code` says which
├── ParseError      there is an answer, but not one of the type that was asked for: `text` is what there is
└── Unreachable     no answer of a Cauce came: no connection, a broken one, or somebody else answered
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from cauce.domain.errors import STATUS, CauceError, ErrorCode

_MOST_SHOWN = 200


class CallFailed(CauceError):
    """The server's word. `facts` is what else it told, `status` the HTTP status (of a stream: the one its code stands for)."""

    def __init__(
        self,
        message: str,
        code: ErrorCode,
        *,
        status: int | None = None,
        field: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, field=field, retry_after=retry_after)
        self.code = code
        self.request_id = request_id
        self._status = status

    @property
    def status(self) -> int:
        return self._status if self._status is not None else STATUS.get(self.code, 500)


class ParseError(CauceError):
    """`text` is the answer as it came."""

    code = "provider_error"

    def __init__(self, message: str, text: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.text = text
        self.request_id = request_id


class Unreachable(CauceError):
    """Nobody can say what became of the request."""

    code = "overloaded"
    request_id: str | None = None


class _ErrorBody(msgspec.Struct):
    error: str
    error_code: str
    request_id: str | None = None
    field: str | None = None
    retry_after: float | None = None


_KNOWN = frozenset(_ErrorBody.__struct_fields__)
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def refused(status: int, headers: Mapping[str, str], body: bytes) -> CauceError:
    """The error that an answer other than 200 stands for."""
    try:
        raw = _decode(body)
        told = msgspec.convert(raw, _ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        shown = body[:_MOST_SHOWN].decode("utf-8", "replace")
        return Unreachable(
            f"what answered with HTTP {status} is no Cauce; check base_url: {shown}", retry_after=_seconds(headers)
        )
    # A newer server may know codes that we do not.
    error = CallFailed(
        told.error,
        cast(ErrorCode, told.error_code),
        status=status,
        field=told.field,
        retry_after=told.retry_after if told.retry_after is not None else _seconds(headers),
        request_id=told.request_id or headers.get("x-cauce-request-id"),
    )
    error.facts = {name: value for name, value in raw.items() if name not in _KNOWN}
    return error


def _seconds(headers: Mapping[str, str]) -> float | None:
    """The header Retry-After, where it tells seconds."""
    told = headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() else None
