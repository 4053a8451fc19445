"""What a configuration may say of models, over what is known of them."""

from typing import Annotated

import msgspec

Tokens = Annotated[int, msgspec.Meta(gt=0)]
Dollars = Annotated[float, msgspec.Meta(ge=0)]


class FactsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts of the models that a glob of `provider/model` holds for. What is not given stays as it is known.

    Prices are USD per million tokens. `input_price` and `output_price` stand together and replace the listed price as a whole;
    without `cached_price` or `cache_write_price` these tokens cost what input costs.
    """

    context_window: Tokens | None = None
    max_output: Tokens | None = None
    tools: bool | None = None
    images: bool | None = None
    json_schema: bool | None = None
    prefill: bool | None = None
    reasoning: bool | None = None
    input_price: Dollars | None = None
    output_price: Dollars | None = None
    cached_price: Dollars | None = None
    cache_write_price: Dollars | None = None
