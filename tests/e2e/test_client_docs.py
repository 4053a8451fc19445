"""What the guide shows of the Python client's streams runs, as written, against a server with nothing configured."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.process import Serve, clean

GUIDE = Path(__file__).parents[2] / "src" / "cauce" / "guide"
BASE = "http://127.0.0.1:8000"
SECONDS = 60


def streaming(language: str) -> list[str]:
    page = (GUIDE / language / "python.md").read_text("utf-8")
    found: list[str] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [block for block in found if ".stream(" in block]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(tmp_path_factory.mktemp("home")) as running:
        running.start()
        yield running


@pytest.mark.parametrize(
    ("language", "place"), [(language, place) for language in ("en", "es") for place in range(len(streaming(language)))]
)
def test_stream_of_the_guide_runs(language: str, place: int, server: Serve) -> None:
    block = streaming(language)[place]
    assert BASE in block
    done = subprocess.run(
        [sys.executable, "-c", block.replace(BASE, server.url)],
        env={**clean(server.folder), "PYTHONIOENCODING": "utf-8"},
        cwd=server.folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (
        {"en": "cascade", "es": "cascada"}[language] in done.stdout.lower()
        or "resum" in done.stdout.lower()
        or ("reanud" in done.stdout.lower())
    )


def test_guide_shows_streams() -> None:
    assert len(streaming("en")) == len(streaming("es")) >= 4
