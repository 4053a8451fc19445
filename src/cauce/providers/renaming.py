"""A provider that is particular about the names of tools, made to take any: there they have other names, and clients never see those."""

import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from cauce.domain.delta import Delta, ToolCall
from cauce.domain.message import Message, ToolCallPart
from cauce.domain.request import Request
from cauce.domain.stream import Upstream
from cauce.domain.tool import Tool
from cauce.ports.attachable import Attachable
from cauce.ports.line import Line, Reached
from cauce.ports.provider import Call, Deltas, ModelInfo, Provider

_ODD = re.compile(r"[^a-zA-Z0-9_-]")
_KEPT = 53
"""Characters of a name that stay: with what is put around them it has 64, which everybody takes."""


class Renaming:
    """`provider` behind names it takes, those that `allowed` (a regular expression) matches. See `ports.provider.Provider`."""

    def __init__(self, provider: Provider, allowed: str) -> None:
        self._provider = provider
        self._allowed = re.compile(allowed)

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def line(self) -> Line | None:
        """That of the provider behind it."""
        return self._provider.line if isinstance(self._provider, Reached) else None

    async def open(self, call: Call) -> Deltas:
        names = self._names(call.request)
        if not names:
            return await self._provider.open(call)
        renamed = msgspec.structs.replace(call, request=_renamed(call.request, names))
        deltas = await self._provider.open(renamed)
        restored = _restored(deltas, {new: old for old, new in names.items()})
        return await Deltas.opened(restored, self.name, deltas.so_far, deltas.position)

    async def count_tokens(self, request: Request, model: str) -> int | None:
        return await self._provider.count_tokens(_renamed(request, self._names(request)), model)

    async def models(self) -> tuple[ModelInfo, ...]:
        return await self._provider.models()

    def give_up(self, upstream: Upstream) -> None:
        if isinstance(self._provider, Attachable):
            self._provider.give_up(upstream)

    async def aclose(self) -> None:
        await self._provider.aclose()

    def _names(self, request: Request) -> dict[str, str]:
        """The names in `request` that are not taken, and what stands for each. It is the same in every turn."""
        if not request.tools and not any([message.role == "tool" for message in request.messages]):
            return {}
        used = {tool.name for tool in request.tools if isinstance(tool, Tool)}
        for message in request.messages:
            used |= {part.name for part in message.parts if isinstance(part, ToolCallPart)}
            if message.role == "tool" and message.name is not None:
                used.add(message.name)
        return {name: _made(name) for name in used if not self._allowed.fullmatch(name)}


def _made(name: str) -> str:
    """A name that nobody refuses: it tells a model what `name` tells, and no two are alike."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"t_{_ODD.sub('_', name)[:_KEPT]}_{digest}"


def _renamed(request: Request, names: dict[str, str]) -> Request:
    if not names:
        return request
    choice = request.tool_choice
    if choice is not None and choice.name in names:
        choice = msgspec.structs.replace(choice, name=names[choice.name])
    return msgspec.structs.replace(
        request,
        messages=tuple([_message(message, names) for message in request.messages]),
        tools=tuple(
            [
                msgspec.structs.replace(tool, name=names[tool.name])
                if isinstance(tool, Tool) and tool.name in names
                else tool
                for tool in request.tools
            ]
        ),
        tool_choice=choice,
    )


def _message(message: Message, names: dict[str, str]) -> Message:
    parts = tuple(
        [
            msgspec.structs.replace(part, name=names[part.name])
            if isinstance(part, ToolCallPart) and part.name in names
            else part
            for part in message.parts
        ]
    )
    name = message.name
    if message.role == "tool" and name is not None:
        name = names.get(name, name)
    return msgspec.structs.replace(message, parts=parts, name=name)


async def _restored(deltas: Deltas, names: dict[str, str]) -> AsyncGenerator[Sequence[Delta], None]:
    """`deltas` with the names that the client gave its tools."""
    async with aclosing(deltas):
        while batch := await deltas.read():
            yield [
                msgspec.structs.replace(delta, name=names.get(delta.name, delta.name))
                if isinstance(delta, ToolCall)
                else delta
                for delta in batch
            ]
