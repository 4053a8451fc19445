"""What local model servers answer, and how each answer is told from another server's: by its shape.

A reader raises `msgspec.DecodeError` for a body of any other shape. Nothing here connects.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from cauce.ports.provider import ModelInfo

_OPENAI_PATH = "/v1/models"

Models = tuple[ModelInfo, ...]
Loaded = Mapping[str, int | None]
"""Ids of the loaded models, each with the context window it was loaded with (tokens), where that is told."""

T = TypeVar("T")
Shape = TypeVar("Shape", bound=msgspec.Struct)


class Reader(msgspec.Struct, Generic[T], frozen=True):
    """A path to GET, and what its body says."""

    path: str
    read: Callable[[bytes], T]


def _shaped(shape: type[Shape], read: Callable[[Shape], T]) -> Callable[[bytes], T]:
    decoder = msgspec.json.Decoder(shape)
    return lambda body: read(decoder.decode(body))


def _tokens(*values: int | None) -> int | None:
    """The first that is a number of tokens: servers say 0 or -1 for what they do not know."""
    return next((value for value in values if value is not None and value > 0), None)


_Id = Annotated[str, msgspec.Meta(min_length=1)]


class _Model(msgspec.Struct):
    """An entry of an OpenAI-shaped list. The three lengths are what vLLM and SGLang, LocalAI and others, and we add to it."""

    id: _Id
    max_model_len: int | None = None
    context_length: int | None = None
    context_window: int | None = None

    def info(self, *, loaded: bool | None = None) -> ModelInfo:
        return ModelInfo(self.id, _tokens(self.max_model_len, self.context_length, self.context_window), loaded)


class _List(msgspec.Struct):
    data: list[_Model]

    def infos(self) -> Models:
        return tuple([model.info() for model in self.data])


class _VllmModel(_Model, kw_only=True):
    owned_by: Literal["vllm"]


class _VllmList(msgspec.Struct):
    data: Annotated[list[_VllmModel], msgspec.Meta(min_length=1)]

    def infos(self) -> Models:
        return tuple([model.info(loaded=True) for model in self.data])


class _LlamaCppStatus(msgspec.Struct, frozen=True):
    value: str


class _LlamaCppModel(_Model, kw_only=True):
    """`status` is sent by a server that serves several models (router mode); without it there is one, and it is loaded."""

    owned_by: Literal["llamacpp"]
    status: _LlamaCppStatus = _LlamaCppStatus("loaded")


class _LlamaCppList(msgspec.Struct):
    data: Annotated[list[_LlamaCppModel], msgspec.Meta(min_length=1)]

    def infos(self) -> Models:
        return tuple([model.info(loaded=model.status.value == "loaded") for model in self.data])


class _Generation(msgspec.Struct):
    n_ctx: int | None = None


class _LlamaCppProperties(msgspec.Struct):
    default_generation_settings: _Generation


class _OllamaVersion(msgspec.Struct):
    version: str


class _OllamaModel(msgspec.Struct):
    name: _Id
    context_length: int | None = None


class _OllamaList(msgspec.Struct):
    models: list[_OllamaModel] | None  # null: what Go makes of an empty list

    def infos(self) -> Models:
        return tuple([ModelInfo(model.name) for model in self.models or []])

    def loaded(self) -> Loaded:
        return {model.name: _tokens(model.context_length) for model in self.models or []}


class _InstanceConfig(msgspec.Struct, frozen=True):
    context_length: int | None = None


class _Instance(msgspec.Struct):
    config: _InstanceConfig = _InstanceConfig()


class _LMStudioModel(msgspec.Struct):
    """https://lmstudio.ai/docs/developer/rest, `GET /api/v1/models` (0.4)."""

    key: _Id
    loaded_instances: list[_Instance] = []
    max_context_length: int | None = None


class _LMStudioList(msgspec.Struct):
    models: list[_LMStudioModel]

    def infos(self) -> Models:
        infos: list[ModelInfo] = []
        for model in self.models:
            # A model can be loaded several times; a request may reach any of them.
            windows = [_tokens(instance.config.context_length) for instance in model.loaded_instances]
            window = min([window for window in windows if window is not None], default=None)
            infos.append(
                ModelInfo(model.key, _tokens(window, model.max_context_length), loaded=bool(model.loaded_instances))
            )
        return tuple(infos)


class _OldLMStudioModel(msgspec.Struct):
    """https://lmstudio.ai/docs/developer/rest/endpoints, `GET /api/v0/models` (0.3.6)."""

    id: _Id
    state: str = ""
    loaded_context_length: int | None = None
    max_context_length: int | None = None


class _OldLMStudioList(msgspec.Struct):
    data: list[_OldLMStudioModel]

    def infos(self) -> Models:
        return tuple(
            [
                ModelInfo(
                    model.id,
                    _tokens(model.loaded_context_length, model.max_context_length),
                    loaded=model.state == "loaded",
                )
                for model in self.data
            ]
        )


class _FoundryStatus(msgspec.Struct, rename="camel"):
    model_cache_path: str
    endpoints: Any


class _OldFoundryStatus(msgspec.Struct, rename="camel"):
    model_dir_path: str


class _Named(msgspec.Struct, rename="camel"):
    id: str = ""
    name: str = ""
    model_id: str = ""


_names: msgspec.json.Decoder[list[str | _Named] | None] = msgspec.json.Decoder(list[str | _Named] | None)


def _foundry_ids(body: bytes) -> list[str]:
    """Foundry Local lists ids alone or in objects, and may say null for none (its SDK allows for that)."""
    entries = _names.decode(body) or []
    ids = [entry if isinstance(entry, str) else entry.id or entry.model_id or entry.name for entry in entries]
    if not all(ids):
        raise msgspec.ValidationError("a model without a name")
    return ids


def _infos(ids: Iterable[str]) -> Models:
    return tuple([ModelInfo(id) for id in ids])


def _loaded(ids: Iterable[str]) -> Loaded:
    return dict.fromkeys(ids)


def _ollama_greeting(body: bytes) -> None:
    if b"Ollama is running" not in body:
        raise msgspec.ValidationError("not Ollama's greeting")


OPENAI_MODELS = Reader(_OPENAI_PATH, _shaped(_List, _List.infos))
VLLM_MODELS = Reader(_OPENAI_PATH, _shaped(_VllmList, _VllmList.infos))
LLAMACPP_MODELS = Reader(_OPENAI_PATH, _shaped(_LlamaCppList, _LlamaCppList.infos))
LLAMACPP_WINDOW = Reader(
    "/props", _shaped(_LlamaCppProperties, lambda found: _tokens(found.default_generation_settings.n_ctx))
)
LMSTUDIO_MODELS = (
    Reader("/api/v1/models", _shaped(_LMStudioList, _LMStudioList.infos)),
    Reader("/api/v0/models", _shaped(_OldLMStudioList, _OldLMStudioList.infos)),
)
FOUNDRY_STATUS = Reader("/status", _shaped(_FoundryStatus, lambda _: None))
FOUNDRY_LOADED = Reader("/models/loaded", lambda body: _loaded(_foundry_ids(body)))
OLD_FOUNDRY_STATUS = Reader("/openai/status", _shaped(_OldFoundryStatus, lambda _: None))
OLD_FOUNDRY_MODELS = Reader("/openai/models", lambda body: _infos(_foundry_ids(body)))
OLD_FOUNDRY_LOADED = Reader("/openai/loadedmodels", lambda body: _loaded(_foundry_ids(body)))
OLLAMA_GREETING = Reader("/", _ollama_greeting)
OLLAMA_VERSION = Reader("/api/version", _shaped(_OllamaVersion, lambda _: None))
OLLAMA_MODELS = Reader("/api/tags", _shaped(_OllamaList, _OllamaList.infos))
OLLAMA_LOADED = Reader("/api/ps", _shaped(_OllamaList, _OllamaList.loaded))
