"""Requests made independent of the network: what they point to by address becomes part of them."""

import asyncio

import msgspec

from cauce.domain.message import DocumentPart, ImagePart, Message, Part, ReasoningPart, ToolCallPart
from cauce.domain.request import Request
from cauce.providers.fetch import DOCUMENTS, IMAGES, Allowance, Fetched, Fetcher

MOST_BYTES = 40 * 1024 * 1024
"""What all addresses of one request may give together."""

AT_ONCE = 8
"""Fetches of one request under way at a time."""

_Wanted = tuple[str, tuple[str, ...]]
"""An address, and the content types that will do."""


async def inline_request(request: Request, fetcher: Fetcher, kept: tuple[str, ...] = ()) -> Request:
    """`request` with data URLs in place of the addresses of its images and documents; itself if it has none.

    Addresses that begin with one of `kept` stay. Each address is fetched once. Raises `InvalidRequest` naming the part (`messages[2].content[1]`), also for addresses that
    are neither http(s) nor data URLs.
    """
    wanted: dict[_Wanted, str] = {}
    for index, message in enumerate(request.messages):
        _collect(message, f"messages[{index}].content", wanted, kept)
    if not wanted:
        return request
    fetched = await _fetch_all(wanted, fetcher)
    urls = {key: one.data_url() for key, one in fetched.items()}

    def inlined(part: Part) -> Part:
        key = _wanted(part, kept)
        match part:
            case ImagePart() if key is not None:
                return msgspec.structs.replace(part, url=urls[key])
            case DocumentPart() if key is not None:
                return msgspec.structs.replace(
                    part, url=urls[key], media_type=part.media_type or fetched[key].media_type
                )
            case _:
                return part

    messages = [
        msgspec.structs.replace(message, parts=tuple([inlined(part) for part in message.parts]))
        for message in request.messages
    ]
    return msgspec.structs.replace(request, messages=tuple(messages))


def _collect(message: Message, field: str, wanted: dict[_Wanted, str], kept: tuple[str, ...]) -> None:
    """Add what `message` points to, and where it does so first."""
    place = 0
    for part in message.parts:
        key = _wanted(part, kept)
        if key is not None:
            wanted.setdefault(key, f"{field}[{place}]")
        # Reasoning and tool calls stand beside the content of a message, not in it.
        place += not isinstance(part, ReasoningPart | ToolCallPart)


def _wanted(part: Part, kept: tuple[str, ...]) -> _Wanted | None:
    if not isinstance(part, ImagePart | DocumentPart) or part.url[:5].lower() == "data:" or part.url.startswith(kept):
        return None
    return part.url, IMAGES if isinstance(part, ImagePart) else DOCUMENTS


async def _fetch_all(wanted: dict[_Wanted, str], fetcher: Fetcher) -> dict[_Wanted, Fetched]:
    """All of them, or the error of the first that fails; then the others are given up."""
    slots = asyncio.Semaphore(AT_ONCE)
    allowance = Allowance(MOST_BYTES)

    async def one(key: _Wanted, field: str) -> Fetched:
        url, accept = key
        async with slots:
            return await fetcher.fetch(url, field=field, accept=accept, allowance=allowance)

    tasks = [asyncio.create_task(one(key, field)) for key, field in wanted.items()]
    try:
        return dict(zip(wanted, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
