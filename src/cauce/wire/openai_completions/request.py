"""Requests of the completions wire: what clients send us and what we send upstream."""

from typing import Annotated, Any, cast

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.extra import Extra
from cauce.domain.message import Message, TextPart
from cauce.domain.request import Prompt, Request, Sampling
from cauce.wire.fields import check, decode_object, rest
from cauce.wire.openai_chat.request import (
    Penalty,
    Share,
    StreamOptions,
    Temperature,
    lay_sampling,
    stop_sequences,
)
from cauce.wire.wishes import wishes

WIRE = "openai_completions"

MOST_PROMPTS = 128
"""Prompts of one request. Each is a call of its own."""


class CompletionBody(msgspec.Struct):
    """Body of `POST /v1/completions`. `prompt` is a text, tokens, or a list of either. Fields not listed are passed through."""

    prompt: str | list[Any]
    model: str = ""
    suffix: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: int | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] = 1
    best_of: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    echo: bool = False
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """What a client asks for: one request per prompt. `echoes` are what is shown before each answer."""

    requests: tuple[Request, ...]
    echoes: tuple[str, ...]


_FIELDS = frozenset(CompletionBody.__struct_fields__)


def parse_request(body: bytes) -> Asked:
    """The requests in `body`. Raises `InvalidRequest` naming the field."""
    raw = decode_object(body)
    asked = check(raw, CompletionBody)
    if asked.best_of is not None and asked.best_of < asked.n:
        raise InvalidRequest("best_of: must be at least n", field="best_of")
    unknown = rest(raw, _FIELDS)
    task, privacy = wishes(unknown["metadata"]) if "metadata" in unknown else (None, None)
    whole = asked.best_of is not None and asked.best_of > asked.n
    if whole:
        unknown["best_of"] = asked.best_of
    if asked.echo and asked.logprobs is not None:
        # Only who has read the prompt knows the probabilities of its tokens.
        whole = True
        unknown["echo"] = True
    prompts = _prompts(asked.prompt)
    if asked.stream and len(prompts) > 1:
        raise InvalidRequest("stream: a stream answers one prompt: send each in a request of its own", field="stream")
    echoes = [prompt if asked.echo and "echo" not in unknown and isinstance(prompt, str) else "" for prompt in prompts]
    if asked.echo and "echo" not in unknown and not all([isinstance(prompt, str) for prompt in prompts]):
        unknown["echo"] = True
    requests = [_request(asked, prompt, unknown, whole=whole) for prompt in prompts]
    if task is not None or privacy is not None:
        requests = [msgspec.structs.replace(request, task=task, privacy=privacy) for request in requests]
    return Asked(tuple(requests), tuple(echoes))


def _prompts(given: str | list[Any]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    if not given:
        raise InvalidRequest("prompt: must hold at least one prompt", field="prompt")
    if type(given[0]) is int:
        return [_tokens(given, "prompt")]
    if len(given) > MOST_PROMPTS:
        raise InvalidRequest(
            f"prompt: holds {len(given)} prompts, more than {MOST_PROMPTS}: send several requests", field="prompt"
        )
    return [_prompt(one, f"prompt[{place}]") for place, one in enumerate(given)]


def _prompt(one: Any, path: str) -> str | list[int]:
    if isinstance(one, str):
        return one
    if isinstance(one, list):
        return _tokens(cast(list[Any], one), path)
    raise InvalidRequest(f"{path}: must be a string or an array of token ids", field=path)


def _tokens(tokens: list[Any], path: str) -> list[int]:
    if not tokens or not all([type(token) is int and token >= 0 for token in tokens]):
        raise InvalidRequest(f"{path}: must hold token ids only, and at least one", field=path)
    return tokens


def _request(asked: CompletionBody, prompt: str | list[int], unknown: dict[str, Any], *, whole: bool) -> Request:
    text = prompt if isinstance(prompt, str) else ""
    if whole or not isinstance(prompt, str):
        unknown = {**unknown, "prompt": prompt}
    return Request(
        model=asked.model,
        messages=(Message("user", (TextPart(text),)),),
        sampling=Sampling(
            asked.temperature,
            asked.top_p,
            asked.top_k,
            asked.max_tokens,
            stop_sequences(asked.stop),
            asked.seed,
            asked.presence_penalty,
            asked.frequency_penalty,
            asked.n,
            asked.logprobs,
        ),
        stream=asked.stream,
        include_usage=asked.stream_options is not None and bool(asked.stream_options.include_usage),
        user=asked.user,
        extra=Extra(WIRE, unknown) if unknown else None,
        prompt=Prompt("" if "prompt" in unknown else text, asked.suffix, 0 if isinstance(prompt, str) else len(prompt)),
    )


def render_request(request: Request, model: str, *, stream: bool) -> dict[str, Any]:
    """The body that asks an upstream of this wire for `model` to go on with the prompt of `request`."""
    prompt = request.prompt
    assert prompt is not None, "only prompts are asked for on this wire"
    body: dict[str, Any] = {"model": model, "prompt": prompt.text}
    if prompt.suffix is not None:
        body["suffix"] = prompt.suffix
    lay_sampling(body, request.sampling)
    if request.sampling.logprobs is not None:
        body["logprobs"] = request.sampling.logprobs
    if request.user is not None:
        body["user"] = request.user
    if request.extra is not None and request.extra.wire == WIRE:
        body.update(request.extra.data)
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body
