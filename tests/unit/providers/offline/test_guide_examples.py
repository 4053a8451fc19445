"""Examples of the guide are correct as written."""

import json
import re
from pathlib import Path

import pytest

from cauce.cli.main import COMMANDS
from cauce.config import load
from cauce.providers.offline.pages import Page, packaged_pages
from cauce.wire.native.conversations import parse_rename
from cauce.wire.native.request import parse_request
from cauce.wire.native.usage import parse_feedback
from cauce.wire.openai_responses.request import parse_request as parse_response_request

PAGES = packaged_pages()

ELSEWHERE = '\n[providers.groq]\nkind = "openai"\nbase_url = "https://api.groq.com/openai/v1"\n'
"""What a block may refer to without repeating it."""

SECRETS = {f"{name}_API_KEY": "secret" for name in ("OPENAI", "GROQ", "MISTRAL", "GEMINI", "ANTHROPIC", "AZURE_OPENAI")}


def blocks(page: Page, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", page.text, re.M | re.S)
    return found


def examples(language: str) -> list[str]:
    return [block for page in PAGES for block in blocks(page, language)]


def completed(block: str, page: Page) -> str:
    """`block` with the table of its page that it adds to."""
    added_to = re.match(r"\[(\w+\.\w+)\.timeouts\]", block)
    if added_to is None:
        return block
    return next(other for other in blocks(page, "toml") if other.startswith(f"[{added_to[1]}]\n")) + block


@pytest.mark.parametrize("block", [completed(block, page) for page in PAGES for block in blocks(page, "toml")])
def test_configuration_example_is_accepted(block: str, tmp_path: Path) -> None:
    file = tmp_path / "cauce.toml"
    text = re.sub(r"<64 .*?>", "0" * 64, block)
    file.write_text(text if "[providers.groq]" in text else text + ELSEWHERE, "utf-8")
    load(file, {**SECRETS, **dict.fromkeys(re.findall(r'"env:(\w+)"', block), "secret")}, tmp_path)


@pytest.mark.parametrize("block", examples("json"))
def test_json_example_is_json(block: str) -> None:
    json.loads(block)


@pytest.mark.parametrize(
    ("block", "body"),
    [(block, body) for block in examples("sh") for body in re.findall(r"-d '(.*?)'$", block, re.M)],
)
def test_body_of_a_curl_example_is_accepted(block: str, body: str) -> None:
    if "/feedback" in block:
        assert parse_feedback(body.encode()).id
    elif "/v1/responses" in block:
        assert parse_response_request(body.encode()).messages
    elif "PATCH" in block:
        assert parse_rename(body.encode())
    else:
        assert parse_request(body.encode()).messages


@pytest.mark.parametrize("block", examples("python"))
def test_python_example_compiles(block: str) -> None:
    compile(block, "guide", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.language}/{page.name}")
def test_commands_that_are_named_exist(page: Page) -> None:
    named: set[str] = set(re.findall(r"(?:`|^|\| )cauce ([a-z]+)", page.text, re.M))
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.language}/{page.name}")
def test_variables_that_are_named_set_something(page: Page, tmp_path: Path) -> None:
    variables: list[tuple[str, str]] = re.findall(r"^export (\w+)=\"?(.*?)\"?$", page.text, re.M)
    load(None, dict(variables), tmp_path)
