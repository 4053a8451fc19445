"""How servers of one wire differ, as data. A vendor is an entry here, never a branch in code.

Each entry says where its facts come from. What a field means, `Dialect` says; what becomes of a request, `adaptation`.
"""

from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from cauce.wire.schema import GRAMMAR, OPENAI_STRICT, Profile

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")

ReasoningField = Literal["reasoning_content", "reasoning", "reasoning_details", "thinking"]
ReasoningOption = Literal["effort", "object", "thinking"]


PrefillFlag = Literal["prefix", "continue_final_message"]
"""A member of that message (Mistral, DeepSeek), or members of the request (servers of open models)."""


class Dialect(msgspec.Struct, frozen=True):
    """Quirks of a server. The defaults are those of a server nobody knows more of: it is sent all that might be understood."""

    name: str
    hosts: tuple[str, ...] = ()
    """Globs of `host:port/path/`, by one of which an address is known to be this server's."""
    key_header: str = "Authorization"
    key_scheme: str = "Bearer "
    default_model: str | None = None
    """The model to ask where nobody says which."""

    chat: str = "/chat/completions"
    """Its paths below the base URL, or below the server's root where they begin with `~`. `{model}` stands for the model."""
    completions: str | None = "/completions"
    infill: str | None = "/completions"
    """Where text between a prompt and a suffix is made."""
    infill_chats: bool = False
    """What `infill` answers with has the shape of a chat answer."""
    embeddings: str | None = "/embeddings"
    streams: str | None = None
    """Where it keeps streams of chat answers while it makes them, so that they can be attached to again (`kept_streams`)."""

    renames: tuple[tuple[str, str], ...] = ()
    """Fields of the standard form that it has under another name."""
    drops: tuple[str, ...] = ()
    """Fields it refuses, and can do without."""
    model_drops: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Fields that models matching a glob refuse. The first match wins."""
    developer_role: bool = False
    """It knows the role `developer`. Else it is told `system`."""
    stream_usage: bool = True
    """It takes `stream_options`. Else it reports usage unasked, or not at all."""
    json_schema: bool = True
    schema: Profile | None = None
    """What part of JSON Schema it takes, where it does not take or pass over all of it."""
    several_choices: bool = True
    content_lists: bool = True
    """It takes content in parts. Else text only."""
    image_urls: bool = True
    """It fetches images by their address. Else it is sent what is there."""
    tool_images: bool = True
    """Answers of tools may hold images. Else those follow in a message of the user."""
    refusals: bool = True
    """It knows the `refusal` of an assistant's message. Else that is text like other text."""
    call_signatures: bool = True
    """Tool calls may carry a thought signature in `extra_content`."""
    call_ids: str | None = None
    """What ids of tool calls must look like (a regular expression), where it refuses others; they have nine characters then."""
    tool_names: str | None = None
    """What names of tools must look like (a regular expression), where it refuses others."""
    prefill: PrefillFlag | None = None
    """How it is told that the last message is the beginning of its own answer. None: it goes on from one by itself, or not at all."""
    prefill_chat: str | None = None
    """Where it is asked to go on from there, if not at `chat`."""
    reasoning: tuple[ReasoningField, ...] = ("reasoning_content", "reasoning_details")
    """Where reasoning of earlier turns goes back to it. Nowhere: it refuses it."""
    reasoning_option: ReasoningOption = "effort"
    """How it is told how much to think: `reasoning_effort`, OpenRouter's `reasoning`, or `thinking` beside the effort."""
    efforts: tuple[str, ...] = ()
    """The efforts it knows, least first; others become the nearest. None listed: any."""
    dimensions: str = "dimensions"
    """Its name for the length of an embedding."""
    packs_embeddings: bool = False
    """It sends embeddings as base64 where it is asked to (`encoding_format`)."""


_OPENAI = Dialect(
    # Reasoning models answer 400 to sampling parameters other than the default (OpenAI, "Reasoning models"); unknown
    # members of a request are refused by name ("Unknown parameter"), so history holds nothing of other servers.
    "openai",
    hosts=("api.openai.com/*", "*.api.openai.com/*"),
    default_model="gpt-5-mini",
    renames=(("max_tokens", "max_completion_tokens"),),
    drops=("top_k",),
    model_drops=(("gpt-5-chat*", ()), ("gpt-5*", _SAMPLING), ("o[1-9]*", _SAMPLING)),
    developer_role=True,
    schema=OPENAI_STRICT,
    tool_images=False,
    call_signatures=False,
    # "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with maximum length 40".
    call_ids=r"(?s:.{1,40})",
    tool_names=r"[a-zA-Z0-9_-]{1,64}",
    reasoning=(),
)

_AZURE = msgspec.structs.replace(
    # Microsoft, "Azure OpenAI in Azure AI Foundry Models v1 API": the same wire below /openai/v1, or below a deployment with
    # `?api-version=` in the address; the key in a header of its own.
    _OPENAI,
    name="azure",
    hosts=("*.openai.azure.com/*", "*.services.ai.azure.com/*", "*.cognitiveservices.azure.com/*"),
    key_header="api-key",
    key_scheme="",
    default_model=None,
)

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("compatible"),
        _OPENAI,
        msgspec.structs.replace(
            # The address of all deployments, without one: the model names it.
            _AZURE,
            name="azure-deployments",
            hosts=("*.openai.azure.com/openai/deployments/",),
            chat="/{model}/chat/completions",
            completions="/{model}/completions",
            infill="/{model}/completions",
            embeddings="/{model}/embeddings",
        ),
        _AZURE,
        Dialect(
            # https://github.com/ollama/ollama/blob/main/openai/openai.go: the fields of its request structs; unknown ones are
            # ignored. A prompt with a suffix is filled in.
            "ollama",
            hosts=("*:11434/*",),
            image_urls=False,
            schema=GRAMMAR,
            several_choices=False,
            reasoning=("reasoning",),
            efforts=("none", "low", "medium", "high"),
            packs_embeddings=True,
        ),
        Dialect(
            # https://github.com/vllm-project/vllm/issues/27755: reasoning comes and goes in `reasoning`. A suffix is answered
            # with 400 "suffix is not currently supported".
            "vllm",
            infill=None,
            prefill="continue_final_message",
            reasoning=("reasoning",),
            packs_embeddings=True,
        ),
        Dialect(
            # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md; `suffix`, `best_of` and `echo` are
            # refused there, and /infill answers in a form of its own. Streams are kept since
            # https://github.com/ggml-org/llama.cpp/pull/23226, and are where they are since /pull/26137.
            "llamacpp",
            infill=None,
            streams="/stream",
            prefill="continue_final_message",
            schema=GRAMMAR,
            packs_embeddings=True,
        ),
        Dialect(
            # LM Studio, "OpenAI Compatibility Endpoints".
            "lmstudio",
            hosts=("127.0.0.1:1234/*", "localhost:1234/*"),
            image_urls=False,
            infill=None,
        ),
        Dialect(
            # Microsoft, "Foundry Local REST API reference": chat completions only; roles system, user, assistant.
            "foundry",
            completions=None,
            infill=None,
            tool_images=False,
            refusals=False,
            call_signatures=False,
            reasoning=(),
        ),
        Dialect(
            # OpenRouter, "Reasoning Tokens" and its OpenAPI document: reasoning goes back in `reasoning_details`.
            "openrouter",
            hosts=("openrouter.ai/*", "*.openrouter.ai/*"),
            default_model="openrouter/auto",
            infill=None,
            developer_role=True,
            call_signatures=False,
            reasoning=("reasoning", "reasoning_details"),
            reasoning_option="object",
        ),
        Dialect(
            # Groq, "API reference": one choice; log probabilities and biases are "not yet supported"; reasoning goes back in
            # `reasoning`. It names the unknown members it refuses.
            "groq",
            hosts=("api.groq.com/*",),
            completions=None,
            infill=None,
            renames=(("max_tokens", "max_completion_tokens"),),
            drops=("top_k", "logprobs", "top_logprobs", "logit_bias"),
            several_choices=False,
            tool_images=False,
            refusals=False,
            call_signatures=False,
            reasoning=("reasoning",),
            efforts=("none", "low", "medium", "high"),
            packs_embeddings=True,
        ),
        Dialect(
            # Mistral, "API reference": unknown members are "extra_forbidden". Ids of calls are nine letters and digits
            # (https://github.com/anomalyco/opencode/issues/1680); thinking goes back as a part of the content; infill is
            # /fim/completions, whose answers have the shape of chat.
            "mistral",
            hosts=("api.mistral.ai/*", "codestral.mistral.ai/*"),
            default_model="mistral-small-latest",
            prefill="prefix",
            completions=None,
            infill="/fim/completions",
            infill_chats=True,
            renames=(("seed", "random_seed"),),
            drops=("user", "logit_bias", "store"),
            stream_usage=False,
            tool_images=False,
            refusals=False,
            call_signatures=False,
            call_ids=r"[A-Za-z0-9]{9}",
            reasoning=("thinking",),
            efforts=("none", "high"),
            dimensions="output_dimension",
            packs_embeddings=True,
        ),
        Dialect(
            # DeepSeek, "Thinking Mode" (reasoning must go back within tool loops, and is ignored elsewhere), "FIM Completion
            # (Beta)", "Chat Prefix Completion (Beta)" (below /beta only), "JSON Output" (json_object only). Content is text
            # (https://github.com/BerriAI/litellm/issues/6642).
            "deepseek",
            hosts=("api.deepseek.com/*",),
            prefill="prefix",
            prefill_chat="~/beta/chat/completions",
            completions="~/beta/completions",
            infill="~/beta/completions",
            embeddings=None,
            drops=("top_k", "seed", "user", "logit_bias", "parallel_tool_calls"),
            json_schema=False,
            several_choices=False,
            content_lists=False,
            tool_images=False,
            refusals=False,
            call_signatures=False,
            reasoning=("reasoning_content",),
            reasoning_option="thinking",
            efforts=("high", "max"),
        ),
        Dialect(
            # xAI, "Reasoning": of the chat models only grok-3-mini takes an effort, and reasoning ones refuse penalties and
            # stop sequences.
            "xai",
            hosts=("api.x.ai/*", "*.api.x.ai/*"),
            completions=None,
            infill=None,
            drops=("top_k",),
            model_drops=(
                ("grok-3-mini*", ("presence_penalty", "frequency_penalty", "stop")),
                ("grok-3*", ("reasoning_effort",)),
                ("*non-reasoning*", ("reasoning_effort",)),
                ("grok-*", ("presence_penalty", "frequency_penalty", "stop", "reasoning_effort")),
            ),
            tool_images=False,
            refusals=False,
            call_signatures=False,
            reasoning=(),
            efforts=("low", "high"),
        ),
        Dialect(
            # Google, "OpenAI compatibility": thought signatures travel in `extra_content` of tool calls.
            "google",
            hosts=("generativelanguage.googleapis.com/*/openai/*",),
            completions=None,
            infill=None,
            tool_images=False,
            refusals=False,
            reasoning=(),
        ),
    )
}


def dialect_of(base_url: str) -> Dialect:
    """The dialect of the server at `base_url`, as far as its address tells."""
    url = urlsplit(base_url)
    address = f"{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}/".lower()
    for dialect in DIALECTS.values():
        if any([fnmatchcase(address, pattern) for pattern in dialect.hosts]):
            return dialect
    return DIALECTS["compatible"]


def dialect_of_server(name: str) -> Dialect:
    """The dialect of a local server that is called `name`: its kind, and a port where there are several."""
    return DIALECTS.get(name.partition("-")[0], DIALECTS["compatible"])
