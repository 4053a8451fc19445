"""The commands of the bench start with what `make run` installs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_EXTRAS = "import runpy, sys; sys.modules.update(psycopg=None, redis=None); runpy.run_module(sys.argv.pop(1), run_name='__main__')"


@pytest.mark.parametrize("command", ["bench", "bench.open_streams", "bench.streams"])
def test_command_starts_without_the_extras(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, command, "--help"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
