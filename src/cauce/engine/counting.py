"""The use case: how many input tokens a request would be."""

import msgspec

from cauce.domain.errors import CauceError, may_ask_next
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens
from cauce.engine.router import Router


class Counted(msgspec.Struct, frozen=True):
    """A count of tokens. `exact`: the provider counted them itself, else it is an estimate."""

    tokens: int
    exact: bool


async def count_tokens(router: Router, request: Request) -> Counted:
    """The input tokens of `request` for the first candidate that would be asked.

    Where that one cannot count, or cannot be asked now and another may answer in its place, they are estimated. Raises
    `ModelNotFound`, and what makes the request wrong for all of them.
    """
    candidate = router.candidates(request)[0]
    try:
        tokens = await candidate.provider.count_tokens(request, candidate.model)
    except CauceError as error:
        if not may_ask_next(error):
            raise
        tokens = None
    if tokens is None:
        return Counted(estimate_input_tokens(request), exact=False)
    return Counted(tokens, exact=True)
