"""Every error Cauce raises on purpose, and the two tables that say how each is treated.

    CauceError                      something a client is told about, in words it can act on
    ├── RequestError                the caller can mend it: the request is refused before any model is asked
    │   ├── InvalidRequest          invalid_request          names the field
    │   ├── Unsupported             invalid_request          this model or wire cannot do it; another candidate may
    │   ├── ContextTooLong          context_length_exceeded  it does not fit this candidate's window; another's may be larger
    │   ├── Unauthorized            unauthorized
    │   ├── Forbidden               forbidden
    │   ├── NotFound                not_found
    │   ├── ModelNotFound           model_not_found          names the nearest model
    │   ├── Conflict                conflict
    │   ├── Gone                    gone
    │   ├── PayloadTooLarge         payload_too_large
    │   ├── HeadersTooLarge         headers_too_large
    │   └── RequestTimeout          request_timeout          the client was too slow to send
    ├── ProviderFailure             an upstream failed; carries the class of the failure
    ├── DeadlineExceeded            timeout                  the time for this call is used up
    ├── Overloaded                  overloaded               this server cannot take more now
    ├── Throttled                   rate_limited             a limit of ours says: not now. Nobody was asked
    ├── CircuitOpen                 overloaded               a candidate is left alone until it is well. Nobody was asked
    ├── BudgetExceeded              quota_exceeded           a budget of ours is used up. Nobody was asked
    ├── NotCached                   timeout                  only a cached answer was wanted, and there is none (RFC 9111: 504)
    └── InternalError               internal                 a bug of ours

Only `server/errors.py` turns these into HTTP; provider and driver errors are translated into them once, in the adapter.
"""

from typing import Literal

import msgspec

ErrorCode = Literal[
    "invalid_request",
    "context_length_exceeded",
    "unauthorized",
    "forbidden",
    "not_found",
    "model_not_found",
    "request_timeout",
    "conflict",
    "gone",
    "payload_too_large",
    "headers_too_large",
    "rate_limited",
    "quota_exceeded",
    "overloaded",
    "provider_error",
    "timeout",
    "internal",
]

Failure = Literal["bad_request", "auth", "rate_limited", "quota", "overloaded", "transient", "content_filter"]

STATUS: dict[ErrorCode, int] = {
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "model_not_found": 404,
    "request_timeout": 408,
    "conflict": 409,
    "gone": 410,
    "payload_too_large": 413,
    "headers_too_large": 431,
    "rate_limited": 429,
    "quota_exceeded": 429,
    "overloaded": 503,
    "provider_error": 502,
    "timeout": 504,
    "internal": 500,
}
"""HTTP status of each code."""


class Treatment(msgspec.Struct, frozen=True):
    """What a failure class means for the call it ended."""

    same_again: bool
    """May the same candidate be asked again?"""
    next_candidate: bool
    """May the next candidate be asked?"""
    breaks: bool
    """Does it count for the candidate's circuit breaker?"""
    code: ErrorCode
    """What the client sees when nothing is left to ask."""


TREATMENT: dict[Failure, Treatment] = {
    "bad_request": Treatment(same_again=False, next_candidate=False, breaks=False, code="invalid_request"),
    "auth": Treatment(same_again=False, next_candidate=True, breaks=True, code="provider_error"),
    "rate_limited": Treatment(same_again=True, next_candidate=True, breaks=True, code="rate_limited"),
    "quota": Treatment(same_again=False, next_candidate=True, breaks=True, code="quota_exceeded"),
    "overloaded": Treatment(same_again=True, next_candidate=True, breaks=True, code="overloaded"),
    "transient": Treatment(same_again=True, next_candidate=True, breaks=True, code="provider_error"),
    "content_filter": Treatment(same_again=False, next_candidate=False, breaks=False, code="invalid_request"),
}

_ANOTHER_MODEL_MAY: frozenset[ErrorCode] = frozenset({"context_length_exceeded", "model_not_found"})


class CauceError(Exception):
    """Base of all of them.

    `code` is what the client sees, `failure` the class that decides retries, `retry_after` seconds (None: unknown),
    `field` the path of the offending field in the request, where there is one, `facts` what else a program may want to know.
    `lasting`: asking again brings the same.
    """

    code: ErrorCode = "internal"
    failure: Failure | None = None
    lasting: bool = False

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.facts: dict[str, object] = {}
        self.message = message
        self.field = field
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """HTTP status of this error."""
        return STATUS[self.code]


class RequestError(CauceError):
    """The caller can mend it."""

    failure: Failure | None = "bad_request"


class InvalidRequest(RequestError):
    code = "invalid_request"


class Unsupported(RequestError):
    """The request holds what this candidate's wire, server or model cannot do. The next candidate is asked."""

    code = "invalid_request"


class ContextTooLong(RequestError):
    """The request does not fit the window of this candidate. `final`: no other is to be asked instead."""

    code = "context_length_exceeded"

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Unauthorized(RequestError):
    code = "unauthorized"


class Forbidden(RequestError):
    code = "forbidden"


class NotFound(RequestError):
    code = "not_found"


class ModelNotFound(RequestError):
    code = "model_not_found"


class Conflict(RequestError):
    code = "conflict"

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = facts
        # Whoever is told a reason has to ask for something else.
        self.lasting = "reason" in facts


class Gone(RequestError):
    code = "gone"


class PayloadTooLarge(RequestError):
    code = "payload_too_large"


class HeadersTooLarge(RequestError):
    code = "headers_too_large"


class RequestTimeout(RequestError):
    code = "request_timeout"


class ProviderFailure(CauceError):
    """An upstream refused, failed or broke its protocol.

    `provider` is its configured name, `upstream_status` its HTTP status where one arrived, `should_retry` its own word on
    whether asking again makes sense (`x-should-retry`), stronger than the class of the failure. `shape`: what it sent is no
    answer of its wire, which says nothing of its health. `waits`: this call was one too many for it, and here there will be room,
    as in `Throttled`; empty for every other failure.
    """

    def __init__(
        self,
        message: str,
        *,
        failure: Failure,
        provider: str,
        code: ErrorCode | None = None,
        upstream_status: int | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        shape: bool = False,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.failure = failure
        self.should_retry = should_retry
        self.shape = shape
        self.waits: dict[str, float] = {}
        self.code = code or TREATMENT[failure].code
        self.provider = provider
        self.upstream_status = upstream_status


class DeadlineExceeded(CauceError):
    code = "timeout"
    failure: Failure | None = "transient"


class Overloaded(CauceError):
    code = "overloaded"
    failure: Failure | None = "overloaded"


class Throttled(CauceError):
    """A limit of ours denied the call before anybody was asked. Waiting helps: `retry_after` says how long, at least.

    `bottleneck` is the key of the limit that denied it; `waits` has, by key, the seconds of every limit that did: any of them may be
    the first to have room. `after` is what somebody else who was asked, or the same one before that, has failed with.
    """

    code = "rate_limited"
    failure: Failure | None = "rate_limited"

    def __init__(self, message: str, *, retry_after: float, bottleneck: str) -> None:
        super().__init__(message, retry_after=retry_after)
        self.bottleneck = bottleneck
        self.waits: dict[str, float] = {bottleneck: retry_after}
        self.after: CauceError | None = None


class CircuitOpen(CauceError):
    """The breaker of a candidate is open: it has failed too often, or said until when it will."""

    code = "overloaded"
    failure: Failure | None = "overloaded"


class BudgetExceeded(CauceError):
    """A budget of ours does not cover the call: a cheaper candidate may fit."""

    code = "quota_exceeded"
    failure: Failure | None = "quota"

    @property
    def status(self) -> int:
        return 402


DENIALS = (Throttled, CircuitOpen, BudgetExceeded)
"""What we ourselves deny before anybody is asked: it says nothing of a provider's health, and is not an attempt."""


class NotCached(CauceError):
    """The client wants an answer only if one is kept already. Nobody was asked."""

    code = "timeout"


class InternalError(CauceError):
    code = "internal"


_PASSING: frozenset[int] = frozenset({408, 409, 425, 429})
"""Statuses of the fours that another try may not meet again."""


def may_ask_again(error: ProviderFailure) -> bool:
    """Whether the same candidate may be asked again after `error`: by its class, then the upstream's own word, then its status."""
    if error.failure is None or error.should_retry is False or not TREATMENT[error.failure].same_again:
        return False
    # A wrong address stays wrong.
    return error.should_retry is True or error.failure != "transient" or not _lasting(error.upstream_status)


def says_unwell(error: ProviderFailure) -> bool:
    """Whether `error` tells of a candidate that is not well: what a circuit breaker counts.

    Transport errors, timeouts, 5xx, 408, 409, 429, refused keys and used-up quotas do. What the caller got wrong, what a filter
    stopped, other 4xx and answers of the wrong shape do not, nor does what was one too many (`waits`).
    """
    if error.failure is None or error.shape or error.waits or not TREATMENT[error.failure].breaks:
        return False
    return error.failure != "transient" or not _lasting(error.upstream_status)


def _lasting(status: int | None) -> bool:
    """Whether `status` says that the request went to the wrong place, or was the wrong one."""
    return status is not None and 300 <= status < 500 and status not in _PASSING


def may_ask_next(error: CauceError) -> bool:
    """Whether the next candidate may be asked after `error`: by its class, or because another model may do what this one cannot."""
    if isinstance(error, ContextTooLong) and error.final:
        return False
    if error.code in _ANOTHER_MODEL_MAY or isinstance(error, Unsupported):
        return True
    return error.failure is not None and TREATMENT[error.failure].next_candidate
