"""Which sampling parameters a request may keep, and the API version it goes out under: one decides the other.

Version 2026-10-21 knows neither `temperature`, `top_p` nor `top_k`, no documents in messages of the assistant and no citations in
text of the user (Anthropic, "API versions"). 2023-06-01 knows them, but newer models refuse the three even there.
"""

from typing import Any

from cauce.domain.errors import Unsupported
from cauce.domain.request import Sampling
from cauce.wire.anthropic_messages.models import Traits
from cauce.wire.anthropic_messages.usage import WIRE
from cauce.wire.dropping import dropped

NEWEST = "2026-10-21"
OLDER = "2023-06-01"


def render_sampling(sampling: Sampling, known: Traits, *, thinking: bool) -> dict[str, Any]:
    """The parameters a model of `known` traits takes, none that only say its default. The rest is left out and told.

    A temperature above 1, which other wires have, is 1 here: the default. While it thinks, a model takes none of them.
    """
    wanted: dict[str, Any] = {}
    if sampling.temperature is not None and sampling.temperature != 1:
        wanted["temperature"] = sampling.temperature
    if sampling.top_p is not None and sampling.top_p != 1:
        wanted["top_p"] = sampling.top_p
    if sampling.top_k is not None:
        wanted["top_k"] = sampling.top_k
    kept = {} if thinking or known.sampling == "none" else dict(wanted)
    if kept.get("temperature", 0) > 1:
        del kept["temperature"]
    elif known.sampling == "one" and "temperature" in kept:
        kept.pop("top_p", None)
    for name in wanted.keys() - kept.keys():
        dropped(WIRE, f"{name}, for some models")
    return kept


def choose_version(configured: str | None, sampled: dict[str, Any], messages: list[dict[str, Any]]) -> str:
    """The version to send. `configured` None: the newest one that knows all the request holds. Raises `Unsupported`.

    Empties `sampled`, the sampling parameters that are left, where the version does not know them.
    """
    older = _needs_older(messages)
    version = configured if configured is not None else OLDER if sampled or older else NEWEST
    if version < NEWEST:
        return version
    if older:
        raise Unsupported(
            f"{older} can be sent under API version {OLDER} only: set api_version of the provider to it",
            field="messages",
        )
    for name in sampled:
        dropped(WIRE, f"{name}, under API version {version}")
    sampled.clear()
    return version


def _needs_older(messages: list[dict[str, Any]]) -> str:
    """What in `messages` only the older version knows; empty if nothing."""
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            continue
        for block in content:
            kind = block.get("type")
            if kind == "document" and message["role"] == "assistant":
                return "a document in a message of the assistant"
            if kind == "text" and message["role"] == "user" and block.get("citations"):
                return "citations in a message of the user"
    return ""
