"""LangChain's own standard tests for chat models and embeddings, against a model that does as it is told."""

import asyncio
from pathlib import Path

import pytest

from cauce.testing.upstream import Upstream
from tests.clients.front import KEY, in_front_of
from tests.clients.node import HERE
from tests.clients.obedient import obey
from tests.clients.page import Proved
from tests.clients.table import CLIENTS, KINDS
from tests.clients.workers import clean_environment, python_of
from tests.serving import serving

pytestmark = pytest.mark.anyio

RUN_SECONDS = 120


async def standard(api: str, base_url: str, model: str, folder: Path, able: dict[str, bool]) -> str:
    """What pytest said of the standard tests in the clients' environment."""
    given = {"BASE_URL": base_url, "API_KEY": KEY, "API": api, "MODEL": model, "OTHER_MODEL": f"{model}-other"}
    offered = {name: "yes" if offers else "no" for name, offers in able.items()}
    process = await asyncio.create_subprocess_exec(
        *(
            str(python_of("clients")),
            "-m",
            "pytest",
            "-q",
            "-rA",
            "--tb=short",
            "--noconftest",
            "-p",
            "no:cacheprovider",
        ),
        *("--rootdir", str(folder), "-c", "/dev/null", "-o", "asyncio_mode=auto"),
        # It keeps one asynchronous HTTP client for all its models.
        *("-o", "asyncio_default_test_loop_scope=session"),
        str(HERE / "py" / "standard_langchain.py"),
        cwd=folder,
        env={**clean_environment(), **given, **offered},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    text = said.decode()
    assert process.returncode == 0, text
    assert "PASSED" in text and "test_agent_loop" in text, text
    return text


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_standard_tests_pass_straight_at_the_fake_provider(upstream: Upstream, api: str, tmp_path: Path) -> None:
    upstream.answers = [obey]
    await standard(api, upstream.root, "m", tmp_path, {"EMBEDDINGS": api == "chat", "JSON_MODE": True})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["langchain-chat", "langchain-responses"])
async def test_standard_tests_pass_through_cauce(
    upstream: Upstream, kind: str, name: str, tmp_path: Path, proved: Proved
) -> None:
    client = next(one for one in CLIENTS if one.name == name)
    upstream.answers = [obey]
    # Anthropic has no embeddings, and no JSON without a schema.
    able = {"EMBEDDINGS": "embeddings" not in client.lacks and kind != "anthropic", "JSON_MODE": kind != "anthropic"}
    async with serving(in_front_of(upstream, kind)) as served:
        await standard(client.more["api"], served.url, "up/m", tmp_path, able)
    proved(name, kind, "standard")
