"""The kinds of local model servers, as a table: what each is called, where it may be, what tells it, what lists its models.

A new kind is one more entry, and in `fingerprints` the shape of what it answers.
"""

from typing import Any

import msgspec

from cauce.ports.provider import ModelInfo
from cauce.providers.discovery.fingerprints import (
    FOUNDRY_LOADED,
    FOUNDRY_STATUS,
    LLAMACPP_MODELS,
    LLAMACPP_WINDOW,
    LMSTUDIO_MODELS,
    OLD_FOUNDRY_LOADED,
    OLD_FOUNDRY_MODELS,
    OLD_FOUNDRY_STATUS,
    OLLAMA_GREETING,
    OLLAMA_LOADED,
    OLLAMA_MODELS,
    OLLAMA_VERSION,
    OPENAI_MODELS,
    VLLM_MODELS,
    Loaded,
    Models,
    Reader,
)


class Kind(msgspec.Struct, frozen=True):
    """One kind of server: any of `signs` tells it, and the first of `models` that can be read lists its models.

    Its servers are named `prefix`, or `prefix-port` when that name is taken (`numbered`: always). `variable` is the environment
    variable that says where it is; `command`: the `foundry` command knows. Its chat API is under `base_path`.
    """

    id: str
    label: str
    prefix: str
    signs: tuple[Reader[Any], ...]
    models: tuple[Reader[Models], ...]
    loaded: Reader[Loaded] | None = None
    window: Reader[int | None] | None = None
    """The context window that all its models have."""
    ports: tuple[int, ...] = ()
    variable: str | None = None
    command: bool = False
    numbered: bool = False
    base_path: str = "/v1"


def with_loaded(models: Models, loaded: Loaded) -> Models:
    """`models` with their `loaded` flags. A loaded model that is not listed can be asked all the same, and is added."""
    listed = {model.id for model in models}
    flagged = [
        ModelInfo(model.id, loaded.get(model.id) or model.context_window, loaded=model.id in loaded) for model in models
    ]
    return (*flagged, *[ModelInfo(id, window, loaded=True) for id, window in loaded.items() if id not in listed])


def with_window(models: Models, window: int | None) -> Models:
    """`models`, each with `window` unless its own is known."""
    return tuple([ModelInfo(model.id, model.context_window or window, model.loaded) for model in models])


_FOUNDRY_PORTS = (5273, 51211)
"""The port of the samples, and that of older guides. An installed service takes a free one, which its command tells."""

KINDS: tuple[Kind, ...] = (
    Kind(
        "foundry",
        "Foundry Local",
        "foundry",
        signs=(FOUNDRY_STATUS,),
        models=(OPENAI_MODELS,),
        loaded=FOUNDRY_LOADED,
        ports=_FOUNDRY_PORTS,
        variable="FOUNDRY_LOCAL_ENDPOINT",
        command=True,
    ),
    Kind(
        "foundry-v1",
        "Foundry Local",
        "foundry",
        signs=(OLD_FOUNDRY_STATUS,),
        models=(OLD_FOUNDRY_MODELS,),
        loaded=OLD_FOUNDRY_LOADED,
        ports=_FOUNDRY_PORTS,
        variable="FOUNDRY_LOCAL_ENDPOINT",
        command=True,
    ),
    Kind(
        "ollama",
        "Ollama",
        "ollama",
        signs=(OLLAMA_GREETING, OLLAMA_VERSION),
        models=(OLLAMA_MODELS,),
        loaded=OLLAMA_LOADED,
        ports=(11434,),
        variable="OLLAMA_HOST",
    ),
    Kind(
        "lmstudio",
        "LM Studio",
        "lmstudio",
        signs=LMSTUDIO_MODELS,
        models=LMSTUDIO_MODELS,
        ports=(1234,),
    ),
    Kind(
        "llamacpp",
        "llama.cpp",
        "llamacpp",
        signs=(LLAMACPP_WINDOW, LLAMACPP_MODELS),
        models=(LLAMACPP_MODELS,),
        window=LLAMACPP_WINDOW,
        # The default is moving from 8080 to 9931: https://github.com/ggml-org/llama.cpp/pull/26508
        ports=(8080, 9931),
    ),
    Kind(
        "vllm",
        "vLLM",
        "vllm",
        signs=(VLLM_MODELS,),
        models=(VLLM_MODELS,),
        ports=(8000,),
    ),
    Kind(
        "openai-compatible",
        "OpenAI-compatible server",
        "local",
        signs=(OPENAI_MODELS,),
        models=(OPENAI_MODELS,),
        numbered=True,
    ),
)
"""Most telling first: the last is what any of them may be taken for."""

LISTS = frozenset(reader.path for kind in KINDS for reader in kind.models)
"""The paths that list models."""
