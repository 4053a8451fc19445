"""Turns of a structured answer that are still to be asked for."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from cauce.domain.errors import CauceError
from cauce.domain.request import Request
from cauce.domain.usage import Usage


class Further(msgspec.Struct, frozen=True):
    """What a candidate is asked next for the structured answer to the request `of`.

    `form` numbers the ways to ask for it that are left behind; `repair` is the request to put right what it has answered, `used`
    what that took, and `after` what was wrong (None: nothing was asked yet).
    """

    of: Request
    form: int = 0
    repair: Request | None = None
    used: Usage | None = None
    after: CauceError | None = None


Turns = Mapping[tuple[str, str, str], Further]
"""By provider, deployment and model."""

NO_TURNS: Turns = MappingProxyType({})
