"""The use case: how many input tokens a request would be."""

import msgspec

from cauce.domain.errors import CauceError, may_ask_next
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens
from cauce.engine.estimator import Estimator
from cauce.engine.routing.router import Router
from cauce.ports.tokenizer import Tokenizer


class Counted(msgspec.Struct, frozen=True):
    """A count of tokens. `exact`: they were counted as the model does, by its provider or here, else it is an estimate."""

    tokens: int
    exact: bool


async def count_tokens(
    router: Router, request: Request, estimator: Estimator | None = None, tokenizer: Tokenizer | None = None
) -> Counted:
    """The input tokens of `request` for the first candidate that would be asked.

    Where that one cannot count, or cannot be asked now and another may answer in its place, `tokenizer` counts if it can, else
    they are estimated. Raises `ModelNotFound`, and what makes the request wrong for all of them.
    """
    candidate = router.candidates(request)[0]
    try:
        tokens = await candidate.provider.count_tokens(request, candidate.model)
    except CauceError as error:
        if not may_ask_next(error):
            raise
        tokens = None
    if tokens is None and tokenizer is not None:
        tokens = await tokenizer.count(request, candidate.model)
    if tokens is not None:
        return Counted(tokens, exact=True)
    if estimator is not None:
        return Counted(estimator.estimate(request, candidate.name), exact=False)
    return Counted(estimate_input_tokens(request), exact=False)
