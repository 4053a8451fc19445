"""Reading Markdown, and the guide as it is packaged."""

import re
from pathlib import Path

import pytest

from cauce.providers.offline.pages import Page, Unit, packaged_pages, sections

TEXT = """\
# Boats

A boat floats. It is
made of wood! Is it?

## Oars

Two oars are needed:

- a left one
- a right one

| oar | side |
|---|---|
| red | left |

Paint them:

```sh
# not a heading

paint --all
```
"""


def test_page_is_read_as_sections_of_units() -> None:
    first, second = sections(Page("boats", "en", TEXT))
    assert (first.title, first.heading, first.page) == ("Boats", "Boats", "boats")
    assert first.units == (
        Unit("sentence", "A boat floats."),
        Unit("sentence", "It is made of wood!"),
        Unit("sentence", "Is it?"),
    )
    assert (second.title, second.heading) == ("Boats", "Oars")
    assert second.units == (
        Unit("sentence", "Two oars are needed:"),
        Unit("item", "- a left one", 0),
        Unit("item", "- a right one", 0),
        Unit("row", "| red | left |", None, "| oar | side |\n|---|---|"),
        Unit("sentence", "Paint them:"),
        Unit("code", "```sh\n# not a heading\n\npaint --all\n```", 4),
    )


def test_file_names_and_versions_do_not_end_a_sentence() -> None:
    (only,) = sections(Page("x", "en", "# X\n\nCauce reads `cauce.toml` and needs Python 3.11 or newer.\n"))
    assert len(only.units) == 1


def test_guide_has_the_same_pages_in_both_languages() -> None:
    names = {
        language: [page.name for page in packaged_pages() if page.language == language] for language in ("en", "es")
    }
    assert names["en"] == names["es"]
    assert {"introduction", "start", "configuration", "providers", "streaming", "troubleshooting"} <= set(names["en"])


PLACEHOLDERS = {"YOUR_KEY", "TU_CLAVE", "CAUCE_SECTION__KEY"}

GUIDE = {(page.name, page.language): page.text for page in packaged_pages()}


@pytest.mark.parametrize("name", sorted({name for name, _ in GUIDE}))
def test_page_says_the_same_in_both_languages(name: str) -> None:
    shapes = [
        [
            (len(section.units), [unit.kind for unit in section.units])
            for section in sections(Page(name, language, GUIDE[name, language]))
        ]
        for language in ("en", "es")
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", sorted({name for name, _ in GUIDE}))
def test_settings_commands_and_numbers_are_the_same_in_both_languages(name: str) -> None:
    def facts(text: str) -> list[str]:
        found: list[str] = re.findall(
            r"\b[A-Z]+_[A-Z_]+\b|\b\d[\d.]*\d\b|\b[a-z]+_[a-z_]+\b|x-cauce-[a-z-]+|(?<!\S)`?--[a-z]+", text
        )
        return sorted([fact for fact in found if fact not in PLACEHOLDERS])

    assert facts(GUIDE[name, "en"]) == facts(GUIDE[name, "es"])


@pytest.mark.parametrize(("name", "language"), sorted(GUIDE))
def test_page_begins_with_its_title(name: str, language: str) -> None:
    first, _, rest = GUIDE[name, language].partition("\n")
    assert first.startswith("# ") and "\n# " not in re.sub(r"```.*?```", "", rest, flags=re.S)


def test_guide_lies_in_the_package() -> None:
    import cauce

    folder = Path(cauce.__file__).parent / "guide"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"en", "es"}
