"""Portkey's gateway for Node. It binds all interfaces, so a preload moves every listener to loopback."""

import json
from pathlib import Path

from bench.load import Target
from bench.systems.installation import ROOT, begin, finish, is_installed, run_installer
from bench.systems.system import Launch

VERSION = "1.15.2"
_PRELOAD = Path(__file__).with_name("loopback_only.cjs")

# Newer hono and node-server, which its ranges admit, break it.
_PACKAGE = json.dumps(
    {
        "private": True,
        "dependencies": {"@portkey-ai/gateway": VERSION},
        "overrides": {"hono": "4.9.7", "@hono/node-server": "1.13.5"},
    }
)


class Portkey:
    """Its upstream and key travel in the headers of each request; it has no key of its own to check."""

    name = "portkey"

    def install(self) -> str:
        folder = ROOT / "portkey"
        if not is_installed(folder, _PACKAGE):
            begin(folder)
            (folder / "package.json").write_text(_PACKAGE)
            npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
            run_installer(npm, "the Portkey gateway", folder)
            finish(folder, _PACKAGE)
        return VERSION

    def launch(self, folder: Path, port: int, upstream_port: int) -> Launch:
        program = ROOT / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        headers = {
            "authorization": "Bearer upstream-key",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
        }
        translated = {**headers, "x-portkey-provider": "anthropic"}
        return Launch(
            command=("node", "--require", str(_PRELOAD), str(program), f"--port={port}", "--headless"),
            target=Target(port, headers=headers, translated=Target(port, headers=translated)),
            environment={"NODE_ENV": "production"},
        )
