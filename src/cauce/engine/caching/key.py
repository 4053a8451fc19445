"""The name an answer is kept under: a digest of everything it depends on.

| part of it | not part of it |
|---|---|
| tenant (and key, by setting) | user, metadata, request and stream ids |
| public model name, and every model it may be answered by | their order, deployments, health, task |
| messages, prompt, sampling, tools, formats, reasoning | stream or not, usage chunk, timeout, cascade's further settings |
| fields only the client's wire knows, in the order they came | those of them that are about keeping and billing |
| whether it is private: its answer never came from elsewhere | |

The encoding is unambiguous: every value has its length or its type before it, every field its name.
"""

from hashlib import blake2b
from typing import Any, Literal

import msgspec

from cauce.domain.extra import Extra
from cauce.domain.request import Scope
from cauce.ports.provider import Call, Candidate

ABOUT_KEEPING = frozenset({"store", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"})
"""Fields of wires that say who asks, or what becomes of an answer: no answer depends on them."""

_FORMAT = b"cauce answer 1"
"""Changes when what is kept could not be read any more, or would not be the same answer."""

_VECTORS = b"cauce vectors 1"
_DIGEST = 20
_encode = msgspec.msgpack.Encoder().encode


class Keys:
    """Makes keys. `salt` is what else answers depend on: what the names of providers mean."""

    __slots__ = ("_by_key", "_salt", "_vectors")

    def __init__(self, scope: Literal["tenant", "key"] = "tenant", salt: bytes = b"") -> None:
        self._by_key = scope == "key"
        self._salt = blake2b(salt, digest_size=_DIGEST, person=_FORMAT)
        self._vectors = blake2b(salt, digest_size=_DIGEST, person=_VECTORS)

    def of(self, call: Call) -> bytes | None:
        """The key of the answer to `call`; None for a request that has no canonical form."""
        if call.embedding is not None:
            # Who asks, and how long it may take, makes no other vectors.
            same = msgspec.structs.replace(call.embedding, user=None, timeout=None, privacy=None)
            whole = (*self._owner(call.scope), _names(call.candidates), same)
            return _digest(self._vectors, ("private", whole) if call.private else whole)
        request = call.request
        extra = request.extra
        whole = (
            *self._owner(call.scope),
            request.model,
            _names(call.candidates),
            request.messages,
            request.sampling,
            request.tools,
            request.tool_choice,
            request.parallel_tool_calls,
            request.response_format,
            request.reasoning,
            request.prompt,
            _telling(extra) if extra is not None else None,
        )
        return _digest(self._salt, ("private", whole) if call.private else whole)

    def _owner(self, scope: Scope) -> tuple[str, str]:
        return scope.tenant, scope.key if self._by_key else ""


def _names(candidates: tuple[Candidate, ...]) -> list[str]:
    """The models that may answer. Which of them is first may change from request to request."""
    if len(candidates) == 1:
        return [candidates[0].name]
    return sorted({candidate.name for candidate in candidates})


def _telling(extra: Extra) -> Extra | None:
    """`extra` without what no answer depends on; None if nothing is left."""
    if ABOUT_KEEPING.isdisjoint(extra.data):
        return extra if extra.data else None
    telling = {name: value for name, value in extra.data.items() if name not in ABOUT_KEEPING}
    return Extra(extra.wire, telling) if telling else None


def _digest(salt: Any, whole: object) -> bytes | None:
    try:
        encoded = _encode(whole)
    except (OverflowError, ValueError):
        # A number or a string that only JSON can hold.
        return None
    digest = salt.copy()
    digest.update(encoded)
    return digest.digest()
