"""LiteLLM's proxy, one worker and no database: as installed, and with the settings its manual advises."""

import secrets
from pathlib import Path

from bench import traffic
from bench.load import Target
from bench.systems.installation import python_environment
from bench.systems.system import Launch

VERSION = "1.106.2"

_MODEL = """\
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{upstream_port}/v1
      api_key: upstream-key
"""

_TRANSLATED = """\
  - model_name: {model}
    litellm_params:
      model: anthropic/{model}
      api_base: http://127.0.0.1:{upstream_port}
      api_key: upstream-key
"""

# https://docs.litellm.ai/docs/proxy/prod, the parts that need neither database nor Redis.
_PRODUCTION_SETTINGS = """\
litellm_settings:
  request_timeout: 600
  set_verbose: False
  json_logs: true
"""
_PRODUCTION_VARIABLES = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}

# Its price list is in the package; without this it asks a public host for a newer one at each start.
_VARIABLES = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


class LiteLLM:
    """A master key is set, so that a key is checked as in Cauce; it refuses well-known ones such as sk-1234."""

    def __init__(self, production: bool = False) -> None:
        self.name = "litellm-production" if production else "litellm"
        self._production = production

    def install(self) -> str:
        self._commands = python_environment("litellm", f"litellm[proxy]=={VERSION}")
        return VERSION

    def launch(self, folder: Path, port: int, upstream_port: int) -> Launch:
        key = f"sk-{secrets.token_hex(24)}"
        models = "".join(_MODEL.format(model=model, upstream_port=upstream_port) for model in traffic.MODELS)
        models += _TRANSLATED.format(model=traffic.TRANSLATED, upstream_port=upstream_port)
        file = folder / "litellm.yaml"
        file.write_text(
            f"model_list:\n{models}general_settings:\n  master_key: {key}\n"
            + (_PRODUCTION_SETTINGS if self._production else "")
        )
        command = (str(self._commands / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port))
        headers = {"authorization": f"Bearer {key}"}
        return Launch(
            command=(*command, "--num_workers", "1"),
            target=Target(port, headers=headers, translated=Target(port, headers=headers)),
            environment=_VARIABLES | (_PRODUCTION_VARIABLES if self._production else {}),
        )
