"""The terminal delta of an answer that did not reach its own, and the error of one whose process ended before it did."""

from cauce.domain.delta import Failed, Finish
from cauce.domain.errors import CauceError, Overloaded
from cauce.domain.usage import Usage

_UNKNOWN = Usage(estimated=True)


def failed(error: CauceError, usage: Usage = _UNKNOWN, *, text_delivered: bool) -> Finish:
    """How an answer ends that broke: `incomplete` if its reader has text of it, else `failed`. `usage` is what it has used."""
    outcome = "incomplete" if text_delivered else "failed"
    # A whole number would be shown otherwise than as it comes back out of a log.
    retry_after = None if error.retry_after is None else float(error.retry_after)
    return Finish("error", usage, outcome=outcome, error=Failed(error.code, error.message, retry_after))


def cancelled(usage: Usage = _UNKNOWN, cause: str = "") -> Finish:
    """How a cancelled answer ends. `usage` is what it has used, `cause` why it was cancelled."""
    return Finish("cancelled", usage, outcome="cancelled", cause=cause)


def cut_off() -> Overloaded:
    """The error of an answer whose process ended before it did, and that may be gone on with."""
    return Overloaded("the server stopped before the answer was complete", retry_after=1)


def cut_short() -> Overloaded:
    """The same where it is not gone on with."""
    return Overloaded("the server stopped before the answer was complete: ask again", retry_after=1)
