"""Cauce itself, from the environment the driver runs in, with everything on: a key to check on every request, limits of the key and of
the provider, a budget of money to reserve and settle, retries, breaker, ledger on disk, cache. All limits are too wide to be met.
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
requests_per_minute = 1_000_000_000
tokens_per_minute = 1_000_000_000_000
max_concurrent = 100_000

[providers.claude]
kind = "anthropic"
base_url = "http://127.0.0.1:{upstream_port}"
api_key = "upstream-key"

[facts."*/bench-*"]
input_price = 0.25
output_price = 2.0

[limits.keys.bench]
requests_per_minute = 1_000_000_000

[budgets.keys.bench]
month = 10_000_000_000

[cache]
enabled = true

[[auth.keys]]
name = "bench"
hash = "sha256:{key_hash}"
tenant = "default"

[discovery]
enabled = false
"""


class Cauce:
    """`cauce serve` as a user runs it: one worker, everything that is on by default is on."""

    name = "cauce"

    def install(self) -> str:
        if importlib.util.find_spec("cauce") is None:
            raise Unavailable("cauce is not installed in this environment: pip install -e .")
        return importlib.metadata.version("cauce")

    def launch(self, folder: Path, port: int, upstream_port: int) -> Launch:
        key = secrets.token_urlsafe(32)
        key_hash = hashlib.sha256(key.encode()).hexdigest()
        file = folder / "cauce.toml"
        file.write_text(_CONFIGURATION.format(folder=folder, port=port, upstream_port=upstream_port, key_hash=key_hash))
        headers = {"authorization": f"Bearer {key}"}
        translated = Target(port, headers=headers, model_prefix="claude/")
        return Launch(
            command=(sys.executable, "-m", "cauce", "serve", "--config", str(file)),
            target=Target(port, headers=headers, model_prefix="mock/", translated=translated, caches=True),
        )
