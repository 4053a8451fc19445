"""A `cauce serve` process before a fake upstream, and clients of it that keep count."""

import asyncio
import contextlib
import hashlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cauce.testing.upstream import Upstream
from tests.e2e.process import Serve
from tests.http import Response, ask

QUIET = '[server]\ndrain = 0\n[discovery]\nenabled = false\n[log]\nlevel = "error"\n'


def secret(name: str) -> str:
    """The API key of that name."""
    return f"sk-cauce-{name}-0123456789abcdef0123456789abcdef"


def keys(*names: str) -> str:
    """The TOML of API keys."""
    hashes = {name: hashlib.sha256(secret(name).encode()).hexdigest() for name in names}
    return "".join([f'[[auth.keys]]\nname = "{name}"\nhash = "sha256:{told}"\n' for name, told in hashes.items()])


def bearer(name: str) -> dict[str, str]:
    """The headers that carry a key."""
    return {"authorization": f"Bearer {secret(name)}"}


class Gateway:
    """A running server; `kill` and `start` go on in the same folder, with the same data."""

    def __init__(
        self, folder: Path, toml: str, environment: Mapping[str, str], files: tuple[int, int] | None = None
    ) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._serve = Serve(folder)
        self._serve.files = files
        (folder / "cauce.toml").write_text(QUIET + toml)

    @property
    def port(self) -> int:
        return self._serve.port

    @property
    def pid(self) -> int:
        return self._serve.pid

    @property
    def errors(self) -> str:
        """What it has logged."""
        return self._serve.errors.read_text("utf-8")

    async def start(self) -> None:
        """Start it, and return once it takes requests."""
        await asyncio.to_thread(self._serve.start, **self._environment)

    async def kill(self) -> None:
        """End it without a warning (SIGKILL)."""
        os.kill(self.pid, signal.SIGKILL)
        await asyncio.to_thread(self._serve.wait)

    def close(self) -> None:
        """End it, if it runs."""
        self._serve.__exit__()

    async def get(self, path: str, key: str = "") -> Any:
        """The JSON of a page of its own."""
        response = await ask(self.port, "GET", path, None, bearer(key) if key else None)
        assert response.status == 200, response.body
        return msgspec.json.decode(response.body)


@contextlib.asynccontextmanager
async def gateway(
    folder: Path, toml: str, files: tuple[int, int] | None = None, **environment: str
) -> AsyncIterator[Gateway]:
    """Serve with the configuration `toml` in `folder`. `files`: see `Process.files`."""
    made = Gateway(folder, toml, environment, files)
    try:
        await made.start()
        yield made
    finally:
        made.close()


def provider(upstream: Upstream, **settings: float) -> str:
    """The TOML of the provider `up`."""
    lines = ["[providers.up]", 'kind = "openai"', f'base_url = "{upstream.base_url}"', 'api_key = "upstream-key"']
    return "\n".join([*lines, 'default_model = "m"', *[f"{name} = {value}" for name, value in settings.items()], ""])


class Tally:
    """What clients got. `order` are the names of those answered, first come first."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.order: list[str] = []
        self.delivered: list[str] = []
        """The request ids of whole answers that their clients have."""
        self.first_error = ""
        self.longest = 0.0
        """Seconds that a client waited for its answer."""

    def take(self, name: str, response: Response) -> None:
        """One answer."""
        self.statuses[response.status] += 1
        if response.status == 200 and response.complete:
            self.order.append(name)
            self.delivered.append(response.headers["x-cauce-request-id"])
        elif not self.first_error:
            self.first_error = f"{response.status}: {response.body[:300].decode(errors='replace')}"


def chat(model: str = "up/m", **members: Any) -> dict[str, Any]:
    """A request of `/v1/chat/completions`."""
    return {"model": model, "messages": [{"role": "user", "content": "Say hello."}], **members}
