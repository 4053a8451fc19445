"""The catalogue that ships with the server, with what the configuration says laid over it.

`facts.json` is read at the start, when there are file descriptors for it, and of its price lists only those that are asked for.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path

import msgspec

from cauce.catalogue.names import forms, matches, own_names
from cauce.catalogue.settings import FactsSettings
from cauce.catalogue.vendors import UNKNOWN
from cauce.domain.model import ModelFacts
from cauce.domain.price import Prices, Rates, Tier

FILE = Path(__file__).with_name("facts.json")

MOST_MODELS = 2048
"""Answers that are kept: clients may ask for models that do not exist."""

CONFIGURED = "configuration"
"""The snapshot of prices that the configuration tells."""

_MAKERS = ("openai", "anthropic", "google", "x-ai")
"""Whose models are the same wherever they are asked: their windows hold at servers that nobody knows."""

_Rates = tuple[float | None, ...]


class _Model(msgspec.Struct, frozen=True, rename={"exceptions": "except"}):
    names: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    window: int | None = None
    price: _Rates = ()
    tiers: tuple[tuple[int, _Rates], ...] = ()
    request: float = 0.0


class _Vendor(msgspec.Struct, dict=True):
    models: tuple[_Model, ...]
    fallbacks: tuple[str, ...] = ()

    @cached_property
    def named(self) -> dict[str, _Model]:
        return {name: model for model in self.models for name in model.names}

    @cached_property
    def patterned(self) -> list[tuple[str, _Model]]:
        return [(glob, model) for model in self.models for glob in model.globs]


class _Family(msgspec.Struct, frozen=True):
    globs: tuple[str, ...]
    window: int | None = None
    max_output: int | None = None
    tools: bool | None = None
    images: bool | None = None
    json_schema: bool | None = None
    prefill: bool | None = None
    reasoning: bool | None = None


class _Content(msgspec.Struct, frozen=True):
    snapshot: str
    vendors: dict[str, msgspec.Raw]
    families: tuple[_Family, ...]


_content_decoder = msgspec.json.Decoder(_Content)
_vendor_decoder = msgspec.json.Decoder(_Vendor)


class PackagedCatalogue:
    """See `ports.catalogue.Catalogue`. `overrides` are by glob of `provider/model`; of several that hold, the later ones win."""

    def __init__(self, overrides: Mapping[str, FactsSettings] | None = None) -> None:
        self._content = _content_decoder.decode(FILE.read_bytes())
        self._overrides = tuple((overrides or {}).items())
        self._vendors: dict[str, _Vendor | None] = {}
        self._known = lru_cache(MOST_MODELS)(self._facts)

    @property
    def snapshot(self) -> str:
        """The price list: where it comes from, the day it holds for, a hash of all that is in it."""
        return self._content.snapshot

    def facts(self, provider: str, vendor: str, model: str, window: int | None = None) -> ModelFacts:
        return self._known(provider, vendor, model, window)

    def _facts(self, provider: str, vendor: str, model: str, window: int | None) -> ModelFacts:
        listed = self._listed(vendor, model)
        if window is None and listed is not None:
            window = listed.window
        if window is None and vendor == UNKNOWN:
            window = self._makers_window(model)
        prices = self._prices(listed) if listed is not None and listed.price else None
        facts = _by_name(self._content.families, model, ModelFacts(context_window=window, prices=prices))
        for glob, settings in self._overrides:
            if fnmatchcase(f"{provider}/{model}", glob):
                facts = _overridden(facts, settings)
        return facts

    def _vendor(self, name: str) -> _Vendor | None:
        if name not in self._vendors:
            raw = self._content.vendors.get(name)
            self._vendors[name] = _vendor_decoder.decode(raw) if raw is not None else None
        return self._vendors[name]

    def _listed(self, vendor: str, model: str) -> _Model | None:
        """The entry for `model` in the list of `vendor`, or in those of vendors whose models it serves at their prices."""
        own = self._vendor(vendor)
        if own is None:
            return None
        lists = [own, *[each for name in own.fallbacks if (each := self._vendor(name)) is not None]]
        for name in forms(model):
            for each in lists:
                if (found := _entry(each, name)) is not None:
                    return found
        return None

    def _makers_window(self, model: str) -> int | None:
        for name in own_names(model):
            for maker in _MAKERS:
                vendor = self._vendor(maker)
                found = _entry(vendor, name) if vendor is not None else None
                if found is not None:
                    return found.window
        return None

    def _prices(self, model: _Model) -> Prices:
        tiers = tuple([Tier(above, _rates(rates)) for above, rates in model.tiers])
        return Prices(_rates(model.price), tiers, model.request, self.snapshot)


def _entry(vendor: _Vendor, name: str) -> _Model | None:
    found = vendor.named.get(name)
    if found is not None:
        return found
    for glob, model in vendor.patterned:
        if matches(glob, name) and not any([matches(exception, name) for exception in model.exceptions]):
            return model
    return None


def _rates(listed: _Rates) -> Rates:
    input, output, *parts = listed
    return Rates.given(input or 0.0, output or 0.0, *parts)


def _by_name(families: tuple[_Family, ...], model: str, facts: ModelFacts) -> ModelFacts:
    """`facts` with what the name alone tells. A window that is known stays."""
    told: dict[str, int | bool | None] = {}
    names = own_names(model)
    for family in families:
        if any([matches(glob, name) for glob in family.globs for name in names]):
            told.update({field: value for field in _TOLD if (value := getattr(family, field)) is not None})
    window = told.pop("window", None)
    if facts.context_window is None and window is not None:
        told["context_window"] = window
    return msgspec.structs.replace(facts, **told) if told else facts


_TOLD = [field for field in _Family.__struct_fields__ if field != "globs"]
_CAPABILITIES = [field for field in ModelFacts.__struct_fields__ if field not in ("prices", "prefill_vouched")]


def _overridden(facts: ModelFacts, settings: FactsSettings) -> ModelFacts:
    given = {field: value for field in _CAPABILITIES if (value := getattr(settings, field)) is not None}
    if settings.prefill is not None:
        given["prefill_vouched"] = True
    if settings.input_price is not None and settings.output_price is not None:
        rates = Rates.given(
            settings.input_price, settings.output_price, settings.cached_price, settings.cache_write_price
        )
        given["prices"] = Prices(rates, snapshot=CONFIGURED)
    return msgspec.structs.replace(facts, **given)
