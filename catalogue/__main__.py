"""`python -m catalogue`: prices, windows and names from `genai-prices`, capabilities from `capabilities.toml`, into one file."""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers

from catalogue.clauses import rules
from catalogue.prices import listed

PACKAGE = "genai-prices"
VERSION = "0.2.3"
RELEASED = date(2026, 11, 10)
"""Of that release: prices are resolved to this day. Both change together, with `requirements/catalogue.in`."""

SKIPPED = {"cursor", "elevenlabs", "openai-decisions"}
"""No model of theirs is asked with a chat, an answer or an embedding over HTTP."""

HERE = Path(__file__).parent
THERE = HERE.parent / "src" / "cauce" / "catalogue"


def main() -> None:
    """Write the catalogue, and the notice that its source asks for."""
    installed = metadata.version(PACKAGE)
    if installed != VERSION:
        raise SystemExit(f"{PACKAGE} {installed} is installed: set VERSION and RELEASED in catalogue/__main__.py to it")
    vendors = [_vendor(provider) for provider in providers if provider.id not in SKIPPED]
    families = list(_families())
    content = ",\n".join(vendors), ",\n".join(families)
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:8]
    snapshot = f"{PACKAGE}-{VERSION}/{RELEASED:%Y-%m-%d}/{digest}"
    (THERE / "facts.json").write_text(
        f'{{"snapshot":{_json(snapshot)},\n"vendors":{{\n{content[0]}\n}},\n"families":[\n{content[1]}\n]}}\n'
    )
    (THERE / "facts.json.LICENSE").write_text(_notice())
    size = (THERE / "facts.json").stat().st_size
    print(f"{snapshot}: {len(vendors)} vendors, {len(families)} families, {size:,} bytes")


def _vendor(provider: types.Provider) -> str:
    """One vendor: a line per model. A name that several models claim goes to the one `genai-prices` would give it to."""
    lines: list[str] = []
    for model in provider.models:
        names, globs, exceptions = rules(model.match)
        prices = listed(model, RELEASED)
        entry: dict[str, Any] = {
            "names": [name for name in names if provider.find_model(name) is model],
            "globs": globs,
            "except": exceptions,
            "window": model.context_window,
            "price": prices and prices.base,
            "tiers": prices and prices.tiers,
            "request": prices and prices.per_request,
        }
        lines.append(_json({key: value for key, value in entry.items() if value}))
    fallbacks = _json(provider.fallback_model_providers or [])
    models = ",\n".join(lines)
    return f'{_json(provider.id)}:{{"fallbacks":{fallbacks},"models":[\n{models}\n]}}'


def _families() -> Iterator[str]:
    """What is known of models by their names, whoever serves them: a line per entry."""
    with (HERE / "capabilities.toml").open("rb") as file:
        entries = tomllib.load(file)["family"]
    for entry in entries:
        facts = {name: value for name, value in entry.items() if name not in ("globs", "source")}
        yield _json({"globs": entry["globs"], **facts})


def _notice() -> str:
    licence = next(
        path for path in metadata.files(PACKAGE) or () if path.name == "LICENSE" and "licenses" in path.parts
    )
    return (
        f"Names, context windows and prices in facts.json are taken from {PACKAGE} {VERSION},\n"
        f"https://github.com/pydantic/genai-prices, under this licence:\n\n{licence.read_text()}"
    )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


if __name__ == "__main__":
    main()
