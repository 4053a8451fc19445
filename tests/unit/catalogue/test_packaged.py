"""The catalogue that ships: whose prices hold, which names are found, what the configuration changes."""

import json
from pathlib import Path

import pytest

from cauce.catalogue.names import forms, matches, own_names
from cauce.catalogue.packaged import FILE, PackagedCatalogue
from cauce.catalogue.settings import FactsSettings
from cauce.catalogue.vendors import HERE, UNKNOWN, vendor_of
from cauce.domain.model import ModelFacts
from cauce.domain.price import Prices

CATALOGUE = PackagedCatalogue()


def facts(vendor: str, model: str, window: int | None = None) -> ModelFacts:
    return CATALOGUE.facts("up", vendor, model, window)


def prices(vendor: str, model: str) -> Prices:
    found = facts(vendor, model).prices
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "address", "vendor"),
    [
        ("openai", "https://api.openai.com/v1", "openai"),
        ("openai", "https://API.OpenAI.com./v1", "openai"),
        ("openai", "https://generativelanguage.googleapis.com/v1beta/openai", "google"),
        ("gemini", "https://generativelanguage.googleapis.com", "google"),
        ("anthropic", "https://api.anthropic.com", "anthropic"),
        ("anthropic", "https://api.deepseek.com/anthropic", "deepseek"),
        ("openai", "https://openrouter.ai/api/v1", "openrouter"),
        ("openai", "https://api.groq.com/openai/v1", "groq"),
        ("openai", "https://mine.openai.azure.com/openai/v1", "azure"),
        ("openai", "https://router.huggingface.co/together/v1", "huggingface_together"),
        ("openai", "https://llm.example.org/v1", UNKNOWN),
        ("anthropic", "https://llm.example.org", "anthropic"),
        ("openai", "https://api.openai.com.example.org/v1", UNKNOWN),
        ("openai", "http://127.0.0.1:11434/v1", HERE),
        ("anthropic", "http://127.0.0.1:8080", HERE),
        ("openai", "http://[::1]:8080/v1", HERE),
        ("openai", "http://192.168.1.20/v1", HERE),
        ("openai", "http://ollama:11434/v1", HERE),
        ("openai", "http://workstation.local/v1", HERE),
        ("llamacpp", "", HERE),
    ],
)
def test_address_tells_whose_prices_hold(kind: str, address: str, vendor: str) -> None:
    assert vendor_of(kind, address) == vendor


def test_every_vendor_of_an_address_has_a_list() -> None:
    listed = json.loads(FILE.read_text())["vendors"]
    addresses = ["https://mine.modal.run", "https://bedrock-runtime.us-east-1.amazonaws.com", "https://api.x.ai/v1"]
    assert {vendor_of("openai", address) for address in addresses} <= listed.keys()


@pytest.mark.parametrize(
    ("vendor", "model", "like"),
    [
        ("openai", "gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("openai", "GPT-5-Mini", "gpt-5-mini"),
        ("openai", "gpt-4o-20240513", "gpt-4o-2024-05-13"),
        ("openai", "gpt-6-sol-2027-01-31", "gpt-6-sol"),
        ("anthropic", "claude-haiku-5-5-20261001", "claude-haiku-5-5"),
        ("anthropic", "claude-opus-5@20260724", "claude-opus-5"),
        ("google", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("google", "publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
    ],
)
def test_dates_and_paths_around_a_name_do_not_hide_it(vendor: str, model: str, like: str) -> None:
    assert prices(vendor, model) == prices(vendor, like)


def test_dated_model_with_a_price_of_its_own_has_that() -> None:
    assert prices("openai", "gpt-4o-2024-05-13") != prices("openai", "gpt-4o")


def test_azure_asks_the_prices_of_those_whose_models_it_serves() -> None:
    assert prices("azure", "gpt-4o").rates == prices("openai", "gpt-4o").rates


def test_model_of_another_vendor_has_no_price_at_this_one() -> None:
    assert facts("groq", "gpt-5-mini").prices is None
    assert facts(UNKNOWN, "gpt-5-mini").prices is None
    assert facts(HERE, "gpt-5-mini").prices is None


@pytest.mark.parametrize("model", ["whisper-1", "gpt-realtime", "gpt-image-1.5", "dall-e-9"])
def test_model_that_is_not_paid_by_text_alone_has_no_price(model: str) -> None:
    assert facts("openai", model).prices is None


def test_speech_of_a_text_model_is_not_found_under_its_name() -> None:
    assert facts("google", "gemini-2.5-pro-exp-tts").prices is None
    assert facts("google", "gemini-2.5-pro-exp").prices == prices("google", "gemini-2.5-pro")


def test_free_model_costs_nothing_and_is_not_unpriced() -> None:
    assert prices("openrouter", "openai/gpt-oss-20b:free").rates.input == 0


def test_window_is_known_of_a_model_whoever_serves_it_but_not_of_one_on_this_machine() -> None:
    assert facts("openai", "gpt-5-mini").context_window == 400_000
    assert facts(UNKNOWN, "openai/gpt-5-mini").context_window == 400_000
    assert facts(HERE, "gpt-5-mini").context_window is None


def test_window_that_the_server_tells_is_the_one_that_holds() -> None:
    assert facts("openai", "gpt-5-mini", 8192).context_window == 8192


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-5-mini", {"reasoning": True, "json_schema": True, "prefill": False, "max_output": 128_000}),
        ("gpt-4o-2024-05-13", {"reasoning": False, "json_schema": False, "images": True}),
        ("o1-mini", {"tools": False, "reasoning": True}),
        ("claude-opus-4-6", {"prefill": False, "json_schema": True, "max_output": 128_000}),
        ("claude-opus-5-5-20261001", {"prefill": False, "json_schema": True, "reasoning": True}),
        ("claude-sonnet-4-5-20250929", {"prefill": True, "json_schema": True, "max_output": 64_000}),
        ("anthropic/claude-sonnet-4.5", {"prefill": True, "max_output": 64_000}),
        ("anthropic/claude-4.6-sonnet-20260217", {"prefill": False, "json_schema": True}),
        ("claude-opus-4-20250514", {"prefill": True, "json_schema": False, "max_output": 32_000}),
        ("claude-3-5-haiku-20241022", {"prefill": True, "reasoning": False, "max_output": 8192}),
        ("gemini-2.5-flash", {"json_schema": True, "images": True, "reasoning": True, "prefill": None}),
        ("gemini-2.0-flash", {"reasoning": False, "max_output": 8192}),
        ("deepseek-chat", {"json_schema": False, "images": False}),
        ("deepseek/deepseek-r1", {"reasoning": True, "json_schema": None}),
        ("mistral-small-latest", {"json_schema": True, "images": True, "prefill": None}),
        ("grok-4-fast-non-reasoning", {"reasoning": False, "images": True}),
        ("llama3.2:3b", {"tools": True, "images": False}),
        ("llama3.2-vision:11b", {"images": True}),
        ("qwen3:8b", {"reasoning": True, "images": False, "json_schema": None, "prefill": None}),
        ("qwen3-vl:8b", {"images": True}),
        ("something-nobody-knows", {"tools": None, "images": None, "reasoning": None, "max_output": None}),
    ],
)
def test_capabilities_are_told_by_the_name(model: str, expected: dict[str, object]) -> None:
    found = facts(HERE, model)
    assert {name: getattr(found, name) for name in expected} == expected


def test_later_overrides_win_field_by_field() -> None:
    catalogue = PackagedCatalogue(
        {
            "local/*": FactsSettings(prefill=True, context_window=8192),
            "local/qwen*": FactsSettings(context_window=32768, tools=False),
            "other/*": FactsSettings(images=True),
        }
    )
    found = catalogue.facts("local", HERE, "qwen3:8b", 4096)
    assert (found.prefill, found.context_window, found.tools, found.images) == (True, 32768, False, False)


def test_prices_of_the_configuration_replace_the_listed_one_as_a_whole() -> None:
    catalogue = PackagedCatalogue({"*/gpt-5.4": FactsSettings(input_price=1, output_price=4, cached_price=0.5)})
    found = catalogue.facts("up", "openai", "gpt-5.4").prices
    assert found is not None and found.tiers == ()
    assert (found.rates.input, found.rates.cached, found.rates.cache_write, found.rates.output) == (1, 0.5, 1, 4)
    assert found.snapshot == "configuration"
    assert prices("openai", "gpt-5.4").tiers != ()


def test_price_names_the_list_it_comes_from() -> None:
    assert prices("openai", "gpt-5-mini").snapshot == CATALOGUE.snapshot
    package, day, digest = CATALOGUE.snapshot.split("/")
    assert (package.startswith("genai-prices-"), len(day), len(digest)) == (True, 10, 8)


def test_answers_that_are_kept_are_bounded() -> None:
    catalogue = PackagedCatalogue()
    for number in range(5000):
        catalogue.facts("up", "openai", f"made-up-{number}")
    assert catalogue._known.cache_info().currsize <= 2048


def test_shipped_file_is_small_and_beside_its_notice() -> None:
    assert FILE.stat().st_size < 300_000
    notice = Path(f"{FILE}.LICENSE").read_text()
    assert "MIT License" in notice and "genai-prices" in notice


@pytest.mark.parametrize(
    ("glob", "name", "fits"),
    [
        ("gpt-5*", "gpt-5-mini", True),
        ("gpt-5*", "gpt-5", True),
        ("*-tts", "gemini-tts", True),
        ("*a*b*", "xxaxbx", True),
        ("*a*b*", "xxbxax", False),
        ("ab*ba", "aba", False),
        ("a", "a", True),
        ("a", "ab", False),
        ("gpt-[45]", "gpt-4", False),
        ("*", "", True),
    ],
)
def test_star_stands_for_anything_and_nothing_else_does(glob: str, name: str, fits: bool) -> None:
    assert matches(glob, name) is fits


def test_forms_of_a_name_begin_with_the_name() -> None:
    assert forms("Models/X-20250131")[0] == "models/x-20250131"
    assert "x-2025-01-31" in forms("models/x-20250131") and "x" in forms("models/x-20250131")
    assert forms("x-20251331") == ("x-20251331", "x")
    assert own_names("a/b/c-2025-01-31") == ("c-2025-01-31", "c")
