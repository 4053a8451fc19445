"""What commands say, in both languages."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import cauce.cli
from cauce.cli.words import SPANISH

FOLDER = Path(cauce.cli.__file__).parent


def sentences() -> Iterator[str]:
    """Everything the commands say."""
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                said = node.args[0]
                assert isinstance(said, ast.Constant), f"{file}:{node.lineno}: say() wants the sentence itself"
                yield said.value


def facts(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_everything_that_is_said_has_its_spanish_and_nothing_else_has() -> None:
    assert set(sentences()) == set(SPANISH)


def test_both_languages_tell_the_same_facts() -> None:
    for english, spanish in SPANISH.items():
        assert facts(english) == facts(spanish), english
