"""The commands of the bench start with what `make run` installs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = ("bench", "bench.open_streams", "bench.streams", "bench.ledger")
WITHOUT_EXTRAS = "import runpy, sys; sys.modules.update(psycopg=None, redis=None); runpy.run_module(sys.argv.pop(1), run_name='__main__')"


@pytest.mark.parametrize("command", COMMANDS)
def test_command_starts_without_the_extras(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, command, "--help"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_make_bench_measures_everything() -> None:
    _, _, target = (ROOT / "Makefile").read_text().partition("\nbench:")
    steps = target.partition("\n\n")[0].splitlines()[1:]
    assert tuple([step.partition(" -m ")[2] for step in steps]) == COMMANDS
