"""`cauce serve` as a new user runs it: a process of its own, in an empty folder, with nothing in its environment."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.process import Serve, clean


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with Serve(tmp_path) as process:
        yield process


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`cauce` with these arguments, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cauce", *arguments],
        cwd=tmp_path,
        env=clean(tmp_path, **environment),
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_banner_tells_what_was_found_and_where_to_look(serve: Serve) -> None:
    banner = serve.start()
    for told in ("listens on http://127.0.0.1:", "configuration", "providers", "local servers", "data folder", "/docs"):
        assert told in banner


def test_banner_speaks_spanish_to_those_who_do(serve: Serve) -> None:
    banner = serve.start(LANG="es_ES.UTF-8")
    assert "escucha en http://127.0.0.1:" in banner and "carpeta de datos" in banner
    assert "¿Cómo configuro un proveedor?" in banner


def test_curl_line_of_the_banner_works_as_pasted(serve: Serve) -> None:
    banner = serve.start()
    line = next(line.strip() for line in banner.splitlines() if line.strip().startswith("curl "))
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=20)
    answer = json.loads(done.stdout)
    assert answer["model"] == "offline" and "[providers" in answer["response"]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("How do I configure a provider?", "[providers."),
        ("¿Cómo configuro un proveedor?", "añade una tabla"),
    ],
)
def test_first_question_about_the_configuration_is_answered_offline(serve: Serve, question: str, said: str) -> None:
    serve.start()
    body = json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
    request = urllib.request.Request(f"{serve.url}/llm/message", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.headers["x-cauce-level"] == "offline"
        assert said in json.load(response)["response"]
    stream = urllib.request.Request(f"{serve.url}/chat/stream/first", body)
    with urllib.request.urlopen(stream, timeout=20) as response:
        frames = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]
    assert frames[-1]["type"] == "complete" and frames[-1]["level"] == "offline"
    assert said in frames[-1]["data"]


def test_sigterm_ends_it_cleanly(serve: Serve) -> None:
    serve.start()
    assert serve.stop(signal.SIGTERM) == 0


def test_address_beyond_this_machine_needs_keys(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "without API keys" in done.stderr and "cauce keys new" in done.stderr


def test_taken_port_is_explained(serve: Serve, tmp_path: Path) -> None:
    serve.start()
    done = run(tmp_path, "serve", "--port", str(serve.port), CAUCE_SERVER__DATA_DIR=str(tmp_path / "other"))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{serve.port}" in done.stderr and "--port" in done.stderr


def test_data_folder_belongs_to_one_server_at_a_time(serve: Serve, tmp_path: Path) -> None:
    serve.start()
    done = run(tmp_path, "serve", "--port", "0")
    assert done.returncode == 2 and "another Cauce uses the data folder" in done.stderr


@pytest.mark.parametrize(
    ("setting", "named"), [("SERVER__DATA_DIR", "[server] data_dir"), ("STREAMS__FOLDER", "[streams] folder")]
)
def test_folder_that_cannot_be_used_is_told_with_the_setting_that_names_it(
    tmp_path: Path, setting: str, named: str
) -> None:
    (tmp_path / "file").write_text("")
    folders = {"CAUCE_SERVER__DATA_DIR": str(tmp_path / "data"), f"CAUCE_{setting}": str(tmp_path / "file")}
    done = run(tmp_path, "serve", "--port", "0", **folders)
    assert done.returncode == 2
    assert f"the folder {tmp_path / 'file'} cannot be used: " in done.stderr and f"set another {named}" in done.stderr


def test_mistake_in_the_file_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cauce.toml").write_text("[server]\nprot = 9000\n")
    done = run(tmp_path, "serve")
    assert done.returncode == 2
    assert re.fullmatch(r"cauce: .*cauce\.toml: \[server\] has no key 'prot'; did you mean 'port'\?\n", done.stderr)


def test_wheel_holds_what_the_server_needs_and_nothing_that_runs_by_itself(tmp_path: Path) -> None:
    import zipfile

    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=root,
        check=True,
        capture_output=True,
        timeout=60,
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {"cauce/web/docs.html", "cauce/py.typed", "cauce/guide/en/start.md", "cauce/guide/es/start.md"} <= set(names)
    assert not [name for name in names if name.endswith(".pth") or name.startswith(("tests/", "bench/"))]


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("cauce", ("starlette", "uvicorn", "msgspec", "prometheus_client", "rich", "prompt_toolkit")),
        ("cauce.cli.serve", ("rich", "prompt_toolkit", "openai", "pydantic", "httpx", "jinja2")),
        ("cauce.engine.turn", ("starlette", "uvicorn", "prometheus_client", "httptools")),
    ],
)
def test_import_loads_nothing_it_does_not_need(module: str, never: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print(*sorted(set({never!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, env=dict(os.environ)
    )
    assert done.stdout.strip() == ""


def test_budget_that_fits_nobody_is_warned_of_at_the_start(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "cauce.toml").write_text("[budgets.keys.wbe]\nday = 1\n")
    serve.start()
    warned = [line for line in serve.errors.read_text("utf-8").splitlines() if "WARNING" in line]
    assert len(warned) == 1
    assert '[budgets.keys."wbe"] fits no API key, so it holds for nobody: there are anonymous' in warned[0]


def test_lines_of_the_log_begin_with_their_time(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "cauce.toml").write_text('[providers.up]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n')
    serve.start()
    line = next(line for line in serve.errors.read_text("utf-8").splitlines() if "WARNING" in line)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} WARNING cauce\.bootstrap: up has no default_model", line)
