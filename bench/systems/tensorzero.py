"""TensorZero's HTTP gateway (Rust), embedded in its Python package; a small host process keeps it running."""

from dataclasses import replace
from pathlib import Path

from bench import traffic
from bench.load import Target
from bench.systems.installation import python_environment
from bench.systems.system import Launch

VERSION = "2026.6.0"
"""Pinned: the host uses a private function of the package."""

_HOST = Path(__file__).with_name("tensorzero_host.py")

_MODEL = """
[models.{model}]
routing = ["mock"]

[models.{model}.providers.mock]
type = "openai"
model_name = "{model}"
api_base = "http://127.0.0.1:{upstream_port}/v1"
api_key_location = "env::UPSTREAM_KEY"
"""

_TRANSLATED = """
[models.{model}]
routing = ["mock"]

[models.{model}.providers.mock]
type = "anthropic"
model_name = "{model}"
api_base = "http://127.0.0.1:{upstream_port}/v1/"
api_key_location = "env::UPSTREAM_KEY"
"""


class TensorZero:
    """Without its database: no observability, and no keys to check."""

    name = "tensorzero"

    def install(self) -> str:
        self._commands = python_environment("tensorzero", f"tensorzero=={VERSION}")
        return VERSION

    def launch(self, folder: Path, port: int, upstream_port: int) -> Launch:
        models = "".join(_MODEL.format(model=model, upstream_port=upstream_port) for model in traffic.MODELS)
        models += _TRANSLATED.format(model=traffic.TRANSLATED, upstream_port=upstream_port)
        file = folder / "tensorzero.toml"
        file.write_text("[gateway]\nobservability.enabled = false\n" + models)
        port_file = folder / "port"
        target = Target(0, path="/openai/v1/chat/completions", model_prefix="tensorzero::model_name::")
        return Launch(
            # -P: this folder has a module named as the package, and must not come first on the path.
            command=(str(self._commands / "python"), "-P", str(_HOST), str(file), str(port_file)),
            target=replace(target, translated=target),
            environment={"UPSTREAM_KEY": "upstream-key"},
            port_file=port_file,
        )
