"""What `cauce serve` says when it is ready: what it found, where to look, and a line to try."""

import ipaddress
import socket
from collections.abc import Sequence

from cauce import __version__
from cauce.bootstrap import Runtime
from cauce.cli.words import say
from cauce.config import Config


def banner(built: Runtime, sockets: Sequence[socket.socket]) -> str:
    """The text, in the user's language, ending with a `curl` line that works as pasted."""
    config = built.config
    url = _url(sockets[0])
    rows = [
        (say("configuration"), ", ".join(config.sources) or say("none: defaults (cauce config init writes a file)")),
        (say("providers"), _providers(config)),
        (say("local servers"), _local(built)),
        ("offline", say("always there: answers from Cauce's own documentation")),
        (say("data folder"), str(config.data_dir)),
        (
            say("API keys"),
            ", ".join([key.name for key in config.auth.keys]) or say("none: any key or none is accepted"),
        ),
        (say("look at"), f"{url}/docs  {url}/health  {url}/v1/models"),
        *[(say("note"), note) for note in config.notes],
    ]
    if "null" not in config.server.cors_origins:
        rows.append((say("note"), say('pages opened from a file need [server] cors_origins = ["null"]')))
    width = max([len(name) for name, _ in rows])
    return "\n".join(
        [
            say("Cauce {version} listens on {url}", version=__version__, url=url),
            "",
            *[f"  {name:<{width}}  {value}" for name, value in rows],
            "",
            say("Try it:"),
            f"  {_curl(config, url)}",
            "",
        ]
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if ipaddress.ip_address(host).is_unspecified else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def _curl(config: Config, url: str) -> str:
    key = " -H 'Authorization: Bearer YOUR_KEY'" if config.auth.keys else ""
    question = say("How do I configure a provider?")
    body = f'{{"messages": [{{"role": "user", "content": "{question}"}}]}}'
    return f"curl -s {url}/llm/message{key} -H 'Content-Type: application/json' -d '{body}'"


def _providers(config: Config) -> str:
    configured = [name for name, settings in config.providers.items() if settings.kind != "offline"]
    return ", ".join(configured) or say(
        "none: set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY, or see cauce config init"
    )


def _local(built: Runtime) -> str:
    discovery = built.config.discovery
    if not discovery.enabled:
        return say("not looked for ([discovery] enabled = false)")
    found = [
        say("{name} ({count} models)", name=source.provider.name, count=len(source.models))
        for source in built.router.sources
        if source.local
    ]
    return ", ".join(found) or say(
        "none found (Ollama, LM Studio, llama.cpp, vLLM, Foundry Local are looked for every {seconds} s)",
        seconds=f"{discovery.interval:g}",
    )
