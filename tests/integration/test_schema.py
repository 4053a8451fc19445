"""The OpenAPI document against the server that wrote it: whatever a generator makes of it, no 5xx is our fault."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cauce.server.gate import hash_key
from cauce.server.openapi import document
from cauce.testing.upstream import Upstream
from tests.serving import serving, upstream_table

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
HOOKS = "tests.integration.patient_requests"


async def test_generated_requests_never_meet_a_server_error(upstream: Upstream, tmp_path: Path) -> None:
    import asyncio

    keys = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'
    async with serving(upstream_table("up", upstream.base_url, default_model="m") + keys) as served:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{served.url}/openapi.json",
            "--header=Authorization: Bearer secret",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--max-examples=30",
            "--seed=1",
            "--phases=examples,coverage,fuzzing",
            "--generation-database=none",
            "--no-color",
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": HOOKS},
        )
        output, _ = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0, output.decode()[-6000:]


def test_every_endpoint_that_the_guide_lists_is_described() -> None:
    text = (ROOT / "src/cauce/guide/en/api.md").read_text()
    named = re.findall(r"`((?:(?:GET|POST|PATCH|DELETE)(?:, | or )?)+) (/[^`?]+)", text)
    described = {
        (method.upper(), re.sub(r"[{][^}]*[}]", "*", path))
        for path, item in document()["paths"].items()
        for method in item
    }
    listed = {
        (method, re.sub(r"[{][^}]*[}]|\b[A-Z]+\b", "*", path))
        for methods, path in named
        for method in re.findall("[A-Z]+", methods)
    }
    assert ("GET", "/v1beta/models/*") in listed
    assert listed - described == {("GET", "/docs"), ("GET", "/openapi.json")}


def test_document_lists_every_route_and_resolves_its_references() -> None:
    described = document()
    assert {"/llm/message", "/chat/stream/{id}", "/v1/chat/completions", "/v1/models", "/health", "/metrics"} <= set(
        described["paths"]
    )
    schemas = described["components"]["schemas"]

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [one for inner in value.values() for one in references(inner)]
        if isinstance(value, list):
            return [one for inner in value for one in references(inner)]
        return []

    assert {reference.rpartition("/")[2] for reference in references(described)} <= set(schemas)
