"""The clients: which script drives each, in which environment, and what it does not offer."""

import json
import re
from typing import Any

import msgspec

from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Answer
from tests.clients.codex import SCENARIOS_OF_CODEX
from tests.clients.node import HERE
from tests.clients.scenarios import SCENARIOS, TURNS_ONE_BY_ONE, Scenario
from tests.clients.workers import ROOT, Given, Workers
from tests.http import within

CHAT = "OpenAI Chat Completions"
RESPONSES = "OpenAI Responses"
MESSAGES = "Anthropic Messages"
GEMINI = "Gemini"
KINDS = ("openai", "anthropic", "gemini")

NO_LEGACY = ("legacy", "legacy_stream")
NO_SIGNATURES = ("signed", "signed_stream")
TYPED_ONLY = tuple(
    scenario.name
    for scenario in SCENARIOS
    if scenario.name not in ("structured", "structured_stream", "structured_tool", "unknown_model", "wrong_key", "busy")
)
PLAIN_SDK = ("structured_tool",)


class Client(msgspec.Struct, frozen=True):
    """A column of the page. `package` is what carries the version, `environment` a locked Python one or `node`."""

    name: str
    title: str
    speaks: str
    script: str
    package: str
    environment: str = "clients"
    lacks: tuple[str, ...] = ()
    more: dict[str, str] = {}
    only: tuple[Scenario, ...] = ()
    """Its own scenarios, in place of everybody's."""
    instead: tuple[Scenario, ...] = ()
    """Its own scenarios, in place of those of the same names."""
    retry_after: float = 7
    """What a provider that is busy tells it to wait; little for a client that waits and asks again."""

    @property
    def version(self) -> str:
        """As locked."""
        if self.environment == "node":
            return json.loads((HERE / "package.json").read_text())["dependencies"][self.package]
        locked = (ROOT / "requirements" / f"{self.environment}.txt").read_text()
        found = re.search(rf"^{re.escape(self.package)}==(\S+)", locked, re.MULTILINE)
        assert found is not None, f"{self.package} is not in requirements/{self.environment}.txt"
        return found[1]


CLIENTS = (
    Client(
        "openai-chat",
        "openai (Python)",
        CHAT,
        "openai_chat.py",
        "openai",
        lacks=(*PLAIN_SDK, *NO_SIGNATURES, "count"),
    ),
    Client(
        "openai-responses",
        "openai (Python)",
        RESPONSES,
        "openai_responses.py",
        "openai",
        lacks=(*PLAIN_SDK, *NO_LEGACY, "embeddings", "models"),
    ),
    Client(
        "anthropic",
        "anthropic",
        MESSAGES,
        "anthropic_messages.py",
        "anthropic",
        lacks=(*PLAIN_SDK, *NO_LEGACY, "embeddings"),
    ),
    Client(
        "anthropic-older",
        "anthropic",
        MESSAGES,
        "anthropic_messages.py",
        "anthropic",
        environment="clients-older",
        lacks=(*PLAIN_SDK, *NO_LEGACY, "embeddings"),
    ),
    Client(
        "google-v1",
        "google-genai, v1",
        GEMINI,
        "google_genai.py",
        "google-genai",
        lacks=(*PLAIN_SDK, *NO_LEGACY),
        more={"version": "v1"},
    ),
    Client(
        "google-v1beta",
        "google-genai, v1beta",
        GEMINI,
        "google_genai.py",
        "google-genai",
        lacks=(*PLAIN_SDK, *NO_LEGACY),
        more={"version": "v1beta"},
    ),
    *(
        Client(
            f"pydantic-ai-{api}",
            "pydantic-ai",
            speaks,
            "pydantic_agent.py",
            "pydantic-ai-slim",
            lacks=(*NO_LEGACY, "models", *lacks),
            more={"api": api},
        )
        for api, speaks, lacks in (
            ("chat", CHAT, (*NO_SIGNATURES, "count")),
            ("responses", RESPONSES, ("count", "embeddings")),
            ("anthropic", MESSAGES, ("embeddings",)),
            ("google", GEMINI, ()),
        )
    ),
    *(
        Client(
            f"langchain-{api}",
            "langchain-openai",
            speaks,
            "langchain_chat.py",
            "langchain-openai",
            lacks=(*NO_LEGACY, "count", "models", *lacks),
            more={"api": api},
        )
        for api, speaks, lacks in (
            ("chat", CHAT, (*NO_SIGNATURES, "reasoning", "reasoning_stream")),
            ("responses", RESPONSES, ("embeddings",)),
        )
    ),
    *(
        Client(
            f"llm-{api}",
            "llm",
            speaks,
            "llm_cli.py",
            "llm",
            lacks=(
                *(*NO_LEGACY, *NO_SIGNATURES, *PLAIN_SDK, "reasoning", "reasoning_stream"),
                *("structured_stream", "busy_stream", "count", "embeddings", "models"),
            ),
            more={"api": api},
            instead=(TURNS_ONE_BY_ONE,),
            retry_after=1,
        )
        for api, speaks in (("chat", CHAT), ("responses", RESPONSES))
    ),
    *(
        Client(
            f"instructor-{api}",
            "instructor",
            speaks,
            "instructor_client.py",
            "instructor",
            environment="clients-older",
            lacks=(*TYPED_ONLY, *lacks),
            more={"api": api},
        )
        for api, speaks, lacks in (
            ("chat", CHAT, ()),
            # It puts the schema into the prompt.
            ("anthropic", MESSAGES, ("structured", "structured_stream")),
        )
    ),
    *(
        Client(
            f"openai-js-{api}",
            "openai (JavaScript)",
            speaks,
            "openai.mjs",
            "openai",
            environment="node",
            lacks=(*PLAIN_SDK, *lacks),
            more={"api": api},
        )
        for api, speaks, lacks in (
            ("chat", CHAT, (*NO_SIGNATURES, "count")),
            ("responses", RESPONSES, (*NO_LEGACY, "embeddings", "models")),
        )
    ),
    *(
        Client(
            f"ai-{api}",
            package,
            speaks,
            "ai.mjs",
            package,
            environment="node",
            lacks=(*NO_LEGACY, "count", "models", *lacks),
            more={"api": api},
        )
        for api, package, speaks, lacks in (
            ("compatible", "@ai-sdk/openai-compatible", CHAT, (*NO_SIGNATURES, "structured_tool")),
            ("openai", "@ai-sdk/openai", RESPONSES, ("structured_tool",)),
            ("anthropic", "@ai-sdk/anthropic", MESSAGES, ("embeddings",)),
        )
    ),
    Client("codex", "Codex", RESPONSES, "codex.mjs", "@openai/codex", environment="node", only=SCENARIOS_OF_CODEX),
)


class Extra(msgspec.Struct, frozen=True):
    """What only some clients are put through, in a test file of its own."""

    name: str
    title: str
    clients: tuple[str, ...]


EXTRAS = (
    Extra("headers", "key in either header", ("anthropic", "anthropic-older")),
    Extra("events", "order and fields of the events", ("anthropic", "anthropic-older")),
    Extra("tools_run", "Python functions as tools", ("google-v1", "google-v1beta")),
    Extra("standard", "standard tests of langchain-tests", ("langchain-chat", "langchain-responses")),
)


def _offered(client: Client) -> list[Scenario]:
    instead = {scenario.name: scenario for scenario in client.instead}
    every = [instead.get(scenario.name, scenario) for scenario in client.only or SCENARIOS]
    return [scenario for scenario in every if scenario.name not in client.lacks]


OFFERED = [(client, scenario) for client in CLIENTS for scenario in _offered(client)]
"""Every client with every scenario it offers."""


def _sooner(reply: Answer, retry_after: float) -> Answer:
    if isinstance(reply, Reply) and reply.retry_after is not None:
        return msgspec.structs.replace(reply, retry_after=retry_after)
    return reply


async def run(workers: Workers, client: Client, scenario: Scenario, given: Given, upstream: Upstream) -> Any:
    """What the client saw of a scenario."""
    upstream.script(*(_sooner(reply, client.retry_after) for reply in scenario.replies))
    seen = await workers.of(client.environment, client.script).run(scenario.case or scenario.name, given)
    if scenario.leaves:
        await within(upstream.closed.wait(), 1)
    return seen
