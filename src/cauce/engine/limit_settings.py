"""Settings of limits and budgets, as the configuration fills them."""

from typing import Annotated

import msgspec

Count = Annotated[float, msgspec.Meta(ge=0)]
Dollars = Annotated[float, msgspec.Meta(ge=0)]
Weight = Annotated[float, msgspec.Meta(gt=0)]


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """None: nothing is said, so what is said more generally holds. 0: no limit. `concurrent` counts calls under way."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None


class KeyRates(Rates, frozen=True, forbid_unknown_fields=True):
    """Those of an API key, and its standing in the queue: of two priorities the greater goes first, of one priority each key
    gets on in the proportion of its weight."""

    priority: int | None = None
    weight: Weight | None = None


class LimitsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By glob of `provider/model`, and of the names of API keys. What a glob says holds for each that it fits, by itself; of several
    that fit, the later ones win, setting by setting. `adaptive`: how much at once an upstream takes is learned from what it refuses."""

    adaptive: bool = True
    models: dict[str, Rates] = {}
    keys: dict[str, KeyRates] = {}


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """USD by calendar day and month, in UTC. None: nothing is said. 0: no budget."""

    day: Dollars | None = None
    month: Dollars | None = None


class BudgetsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By glob of the names of keys, users and tenants. `assumed_output`: tokens that an answer is bound to at least, where its request
    bounds it not, and the budget has no room for all that the model can write."""

    assumed_output: Annotated[int, msgspec.Meta(ge=1)] = 4096
    keys: dict[str, Budget] = {}
    users: dict[str, Budget] = {}
    tenants: dict[str, Budget] = {}

    @property
    def any(self) -> bool:
        """Whether there is a budget at all."""
        return bool(self.keys or self.users or self.tenants)
