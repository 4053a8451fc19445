"""Cauce itself, from the environment the driver runs in: as it is with a key to check on every request (metrics, prices, retries,
breaker, ledger on disk and cache are on by default), and limited: limits of the key and of the provider and a budget of money to
reserve and settle besides, all too wide to be met.
"""

import hashlib
import importlib.metadata
import importlib.util
import secrets
import sys
from pathlib import Path

from bench.load import Target
from bench.systems.system import Launch, Unavailable

_CONFIGURATION = """
[server]
host = "127.0.0.1"
port = {port}
data_dir = "{folder}/data"

[providers.mock]
kind = "openai"
base_url = "http://127.0.0.1:{upstream_port}/v1"
api_key = "upstream-key"
{provider}
[providers.claude]
kind = "anthropic"
base_url = "http://127.0.0.1:{upstream_port}"
api_key = "upstream-key"

[facts."*/bench-*"]
input_price = 0.25
output_price = 2.0

[[auth.keys]]
name = "bench"
hash = "sha256:{key_hash}"
tenant = "default"

[discovery]
enabled = false
{more}"""

_PROVIDER = """requests_per_minute = 1_000_000_000
tokens_per_minute = 1_000_000_000_000
max_concurrent = 100_000
"""

_LIMITS = """
[limits.keys.bench]
requests_per_minute = 1_000_000_000

[budgets.keys.bench]
month = 10_000_000_000
"""


class Cauce:
    """`cauce serve` as a user runs it: one worker, everything that is on by default is on; `limited`: and limits and a budget."""

    def __init__(self, *, limited: bool = False) -> None:
        self.name = "cauce-limited" if limited else "cauce"
        self._provider, self._more = (_PROVIDER, _LIMITS) if limited else ("", "")

    def install(self) -> str:
        if importlib.util.find_spec("cauce") is None:
            raise Unavailable("cauce is not installed in this environment: pip install -e .")
        return importlib.metadata.version("cauce")

    def launch(self, folder: Path, port: int, upstream_port: int) -> Launch:
        key = secrets.token_urlsafe(32)
        key_hash = hashlib.sha256(key.encode()).hexdigest()
        file = folder / "cauce.toml"
        told = {"folder": folder, "port": port, "upstream_port": upstream_port, "key_hash": key_hash}
        file.write_text(_CONFIGURATION.format(provider=self._provider, more=self._more, **told))
        headers = {"authorization": f"Bearer {key}"}
        translated = Target(port, headers=headers, model_prefix="claude/")
        return Launch(
            command=(sys.executable, "-m", "cauce", "serve", "--config", str(file)),
            target=Target(port, headers=headers, model_prefix="mock/", translated=translated, caches=True),
        )
