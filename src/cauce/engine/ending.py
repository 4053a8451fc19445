"""The terminal delta of an answer that did not reach its own."""

from cauce.domain.delta import Failed, Finish
from cauce.domain.errors import CauceError
from cauce.domain.usage import Usage


def failed(error: CauceError, *, text_delivered: bool) -> Finish:
    """How an answer ends that broke: `incomplete` if its reader has text of it, else `failed`."""
    outcome = "incomplete" if text_delivered else "failed"
    return Finish(
        "error",
        Usage(estimated=True),
        outcome=outcome,
        error=Failed(error.code, error.message, error.retry_after),
    )


def cancelled() -> Finish:
    """How a cancelled answer ends."""
    return Finish("cancelled", Usage(estimated=True), outcome="cancelled")
