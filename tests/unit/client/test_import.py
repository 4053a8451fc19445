"""What importing costs: nothing that is not needed."""

import subprocess
import sys

SERVER = {
    "cauce.engine",
    "cauce.server",
    "cauce.providers",
    "cauce.bootstrap",
    "starlette",
    "uvicorn",
    "pydantic",
    "jsonschema_rs",
    "rich",
}


def loaded(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_client_loads_nothing_of_the_server() -> None:
    assert loaded("from cauce.client import Client, SyncClient") & SERVER == set()


def test_package_alone_loads_nothing() -> None:
    assert {name for name in loaded("import cauce") if name.startswith("cauce")} == {"cauce"}
