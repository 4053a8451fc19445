"""What is known of a model: what it can do, how much it takes, what it costs."""

import msgspec

from cauce.domain.price import Prices


class ModelFacts(msgspec.Struct, frozen=True):
    """None everywhere means: not known. Windows are in tokens; without `prices` a call has no cost that could be told.

    `prefill`: it goes on from a last message of the assistant; `prefill_vouched`: whoever runs this server says so. `reasoning`: it
    thinks before it answers.
    """

    context_window: int | None = None
    max_output: int | None = None
    tools: bool | None = None
    images: bool | None = None
    json_schema: bool | None = None
    prefill: bool | None = None
    reasoning: bool | None = None
    prices: Prices | None = None
    prefill_vouched: bool = False


UNKNOWN = ModelFacts()
