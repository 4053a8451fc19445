"""Fixtures of the command's tests."""

from pathlib import Path

import pytest

from tests.e2e.cli.command import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)
