"""`[facts."glob"]`: what a configuration says of models."""

from pathlib import Path

import pytest

from cauce.catalogue.settings import FactsSettings
from cauce.config import ConfigError, load


def loaded(folder: Path, toml: str) -> dict[str, FactsSettings]:
    file = folder / "cauce.toml"
    file.write_text(toml)
    return load(file, {}, folder).facts


def test_facts_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    facts = loaded(
        tmp_path,
        '[facts."local/*"]\nprefill = true\n[facts."local/qwen*"]\ninput_price = 0.1\noutput_price = 0.4\ntools = false\n',
    )
    assert list(facts.items()) == [
        ("local/*", FactsSettings(prefill=True)),
        ("local/qwen*", FactsSettings(input_price=0.1, output_price=0.4, tools=False)),
    ]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[facts."a/*"]\ntool = true', "[facts.\"a/*\"] has no key 'tool'; did you mean 'tools'?"),
        ('[facts."a/*"]\ntools = "maybe"', 'facts."a/*".tools: expected `bool | null`, got `str`'),
        ('[facts."a/*"]\ncontext_window = 0', 'facts."a/*".context_window: expected `int` >= 1'),
        (
            '[facts."a/*"]\ninput_price = -1\noutput_price = 1',
            'facts."a/*".input_price: expected `float` >= 0.0',
        ),
        (
            '[facts."a/*"]\ninput_price = 1',
            'facts."a/*".output_price: must be given: input_price and output_price stand together',
        ),
        (
            '[facts."a/*"]\ncached_price = 1',
            'facts."a/*".input_price: must be given: input_price and output_price stand together',
        ),
        (
            '[facts."qwen*"]\ntools = true',
            'facts."qwen*": must be a glob of provider/model, such as "openai/qwen*" or "*/qwen*"',
        ),
        ('[facts]\n"a/*" = 3', '[facts."a/*"] must be a table'),
        ("facts = 3", "[facts] must be a table"),
    ],
)
def test_mistake_is_one_sentence_that_names_its_place(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, toml)
    assert str(caught.value) == f"{tmp_path / 'cauce.toml'}: {message}"
