"""`python -m catalogue.crosscheck`: does the server find the models and reckon the costs that `genai-prices` does?

Every name and every glob of every model is asked, with a handful of usages. Where the server says unpriced, that must be
meant: something else than tokens is paid for as well. Any other difference is printed and fails.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta

from genai_prices import types
from genai_prices.data import providers

from catalogue.__main__ import RELEASED, SKIPPED
from catalogue.clauses import rules
from catalogue.prices import listed
from cauce.catalogue.packaged import PackagedCatalogue
from cauce.catalogue.vendors import vendor_of
from cauce.domain.price import cost
from cauce.domain.usage import Usage

USAGES = [
    Usage(1_000, 500),
    Usage(1_000, 500, cached_tokens=400, cache_write_tokens=300, reasoning_tokens=200),
    Usage(150_000, 500, cached_tokens=149_000),
    Usage(300_000, 2_000, cached_tokens=100_000, cache_write_tokens=50_000, long_cache_write_tokens=20_000),
    Usage(200_000, 1),
    Usage(1_200_000, 60_000, reasoning_tokens=59_000),
]
ADDRESSES = {
    "aws": "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
    "azure": "https://mine.openai.azure.com/openai/v1",
    "cloudflare": "https://api.cloudflare.com/client/v4/accounts/me/ai/v1",
    "cohere": "https://api.cohere.com/compatibility/v1",
    "databricks": "https://mine.cloud.databricks.com/serving-endpoints",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "minimax": "https://api.minimax.io/v1",
    "modal": "https://mine.modal.run/v1",
    "moonshotai": "https://api.moonshot.ai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}


def main() -> None:
    """Ask all of them; print what differs."""
    catalogue = PackagedCatalogue()
    tally: Counter[str] = Counter()
    for provider in providers:
        if provider.id in SKIPPED:
            continue
        address = ADDRESSES.get(provider.id, _plain_address(provider.api_pattern))
        if vendor_of("openai", address) != provider.id or not re.match(provider.api_pattern, address):
            _report(tally, f"{provider.id}: {address} is {vendor_of('openai', address)!r} here")
        for name in _names(provider):
            _compare(catalogue, provider, name, tally)
    print(", ".join([f"{count} {what}" for what, count in sorted(tally.items())]))
    raise SystemExit(1 if tally["differ"] else 0)


def _plain_address(pattern: str) -> str:
    return re.sub(r"\(\?:\|.*|\(\?:/\|\$\)|\(api\\\.\)\?|\(i\)\?", "", pattern).replace("\\", "") + "/v1"


def _names(provider: types.Provider) -> Iterator[str]:
    for model in provider.models:
        said = rules(model.match)
        yield from said.names
        yield from [f"{name}-20261001" for name in said.names]
        for glob in said.globs:
            yield from [glob.replace("*", filling) for filling in ("", "-x1", "-20261001")]


def _compare(catalogue: PackagedCatalogue, provider: types.Provider, name: str, tally: Counter[str]) -> None:
    theirs = provider.find_model(name, all_providers=providers)
    ours = catalogue.facts("p", provider.id, name).prices
    if theirs is None:
        # They take no dates off.
        tally["found here only"] += 1
        return
    if ours is None:
        meant = listed(theirs, RELEASED) is None
        tally["unpriced on purpose" if meant else "differ"] += 1
        if not meant:
            print(f"{provider.id}/{name}: unpriced here, {theirs.id} there")
        return
    moment = _usual_moment(theirs)
    for usage in USAGES:
        there = float(theirs.calc_price(_their(usage), provider, genai_request_timestamp=moment).total_price)
        here = cost(usage, ours)
        if math.isclose(here, there, rel_tol=1e-9, abs_tol=1e-12):
            tally["costs alike"] += 1
        else:
            _report(tally, f"{provider.id}/{name}: {here} here, {there} there as {theirs.id}, for {usage}")


def _their(usage: Usage) -> types.Usage:
    parts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.long_cache_write_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
    }
    return types.Usage(**{name: count for name, count in parts.items() if count})


def _usual_moment(model: types.ModelInfo) -> datetime:
    """A moment of the release's day at which the price holds that holds for most of it."""
    moments = [datetime.combine(RELEASED, time(), UTC) + timedelta(minutes=30 * half) for half in range(48)]
    held = [model.get_prices(moment) for moment in moments]
    usual = max(held, key=lambda prices: sum([other is prices for other in held]))
    return moments[[prices is usual for prices in held].index(True)]


def _report(tally: Counter[str], difference: str) -> None:
    tally["differ"] += 1
    print(difference)


if __name__ == "__main__":
    main()
