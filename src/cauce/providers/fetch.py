"""Fetching what a request points to: images and documents, for providers that take no addresses.

A client says what we connect to, so everything about it is bounded: http and https only, public addresses only, no redirects,
so many bytes, so much time, few content types. The address that was checked is the one connected to: the name is looked up once.
"""

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from cauce import __version__
from cauce.domain.errors import CauceError, InvalidRequest, ProviderFailure
from cauce.providers.addresses import Allowed, Resolve, SystemResolver, is_public
from cauce.transport import HTTPTransport, Incoming, Outgoing

IMAGES = ("image/*",)
DOCUMENTS = ("application/pdf", "text/plain")

_AT_ONCE = 32
"""Fetches under way in this process; further ones wait, and their time runs."""

_TRIED = 3
"""Addresses of one name that are tried."""

_LONGEST_URL = 8192
_PORTS = {"http": 80, "https": 443}
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*")
_HOST = re.compile(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]")
_UNSEEN = re.compile(r"[\x00-\x20\x7f]")


class FetchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether addresses in requests are fetched, and how many bytes and seconds one may take."""

    enabled: bool = True
    max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 20 * 1024 * 1024
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0


DEFAULTS = FetchSettings()


class Fetched(msgspec.Struct, frozen=True):
    """What an address gave. `media_type` is in lower case and has no parameters."""

    media_type: str
    data: bytes

    def data_url(self) -> str:
        """It as a data URL (RFC 2397)."""
        return f"data:{self.media_type};base64,{b64encode(self.data).decode('ascii')}"


class Allowance:
    """The bytes that all fetches of one request may have together."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = total

    def take(self, count: int) -> bool:
        """Use up `count` bytes; whether there were that many."""
        self._left -= count
        return self._left >= 0


class _Target(msgspec.Struct, frozen=True):
    """What is asked for, and of whom. `field` is where the client wrote it."""

    field: str
    url: str
    host: str
    port: int

    def refused(self, why: str) -> InvalidRequest:
        return _refused(self.field, why)


class Fetcher:
    """See the module. `resolve` looks names up, `allowed` judges addresses, `tls` says whom to trust (None: whom the system trusts)."""

    def __init__(
        self,
        settings: FetchSettings = DEFAULTS,
        resolve: Resolve | None = None,
        allowed: Allowed = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._own_resolver = SystemResolver()
        self._resolve: Resolve = resolve or self._own_resolver
        self._allowed = allowed
        self._transport = HTTPTransport("fetch", _AT_ONCE, tls)
        self._headers = {"User-Agent": f"cauce/{__version__}", "Connection": "close"}

    async def fetch(
        self,
        url: str,
        *,
        field: str,
        accept: Sequence[str] = (*IMAGES, *DOCUMENTS),
        allowance: Allowance | None = None,
    ) -> Fetched:
        """What `url` gives, if its content type is one of `accept` (`image/*` stands for all images).

        Raises `InvalidRequest` for `field`, which says where the client wrote the address, whatever goes wrong.
        """
        settings = self._settings
        if not settings.enabled:
            raise _refused(field, "addresses are not fetched here ([fetch] enabled is false): send a data URL instead")
        target = _target(url, field)
        try:
            async with asyncio.timeout(settings.timeout):
                incoming = await self._ask(target)
                try:
                    media_type = self._check_head(incoming, accept, target)
                    return Fetched(media_type, await self._read(incoming, target, allowance))
                finally:
                    await incoming.aclose()
        except TimeoutError as error:
            raise target.refused(f"could not be fetched within {settings.timeout:g} s") from error

    async def aclose(self) -> None:
        """Close all connections."""
        self._own_resolver.close()
        await self._transport.aclose()

    async def _ask(self, target: _Target) -> Incoming:
        """The head of the answer, from the first address that gives one."""
        addresses = await self._addresses(target)
        error: ProviderFailure | None = None
        for address in addresses:
            try:
                return await self._transport.send(
                    Outgoing(
                        "GET",
                        target.url,
                        self._headers,
                        connect=self._settings.timeout / len(addresses),
                        address=address,
                    )
                )
            except ProviderFailure as failure:
                error = failure
        if error is not None and isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise target.refused("could not be fetched: the certificate of its server is not trusted") from error
        raise target.refused("could not be fetched: its server cannot be reached or broke the connection") from error

    async def _addresses(self, target: _Target) -> Sequence[str]:
        """The addresses to try. One that is not allowed spoils all of them: which one is used must not matter."""
        try:
            addresses = await self._resolve(target.host.strip("[]"), target.port)
        except (OSError, UnicodeError) as error:
            raise target.refused("could not be fetched: there is no address for its host name") from error
        if not all([self._allowed(address) for address in addresses]):
            raise target.refused("is not fetched: its address is not public; send a data URL instead")
        return addresses[:_TRIED]

    def _check_head(self, incoming: Incoming, accept: Sequence[str], target: _Target) -> str:
        """The media type of an answer that may be read."""
        status = incoming.status
        if 300 <= status < 400:
            raise target.refused("could not be fetched: it redirects, which is not followed; give the final address")
        if status != 200:
            raise target.refused(f"could not be fetched: its server answered HTTP {status}")
        media_type = incoming.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not _accepted(media_type, accept):
            told = media_type if _MEDIA_TYPE.fullmatch(media_type) else "unknown"
            raise target.refused(f"could not be used: its content type is {told}; expected {' or '.join(accept)}")
        length = incoming.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._settings.max_bytes:
            raise self._too_large(target)
        return media_type

    async def _read(self, incoming: Incoming, target: _Target, allowance: Allowance | None) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with aclosing(incoming.chunks()) as chunks:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._settings.max_bytes:
                        raise self._too_large(target)
                    if allowance is not None and not allowance.take(len(chunk)):
                        raise target.refused(
                            f"could not be fetched: the addresses of one request may give {_shown(allowance.total)} together"
                        )
                    parts.append(chunk)
        except InvalidRequest:
            raise
        except CauceError as error:
            raise target.refused("could not be fetched: its server broke the connection") from error
        return b"".join(parts)

    def _too_large(self, target: _Target) -> InvalidRequest:
        return target.refused(f"could not be fetched: it is larger than {_shown(self._settings.max_bytes)}")


def _target(url: str, field: str) -> _Target:
    """What `url` says, checked. Raises `InvalidRequest`."""
    if len(url) > _LONGEST_URL or _UNSEEN.search(url):
        raise _refused(field, f"must have no blanks or control characters and at most {_LONGEST_URL} characters")
    try:
        parts = urlsplit(url)
        host, port = _host(parts), parts.port
    except ValueError as error:
        raise _refused(field, "is not a valid address") from error
    if parts.scheme not in _PORTS:
        raise _refused(field, "must be an http:// or https:// address, or a data URL")
    if "@" in parts.netloc:
        raise _refused(field, "must not hold a user name or password")
    if not _HOST.fullmatch(host) or port == 0:
        raise _refused(field, "is not a valid address")
    authority = host if port is None else f"{host}:{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
    return _Target(field, f"{parts.scheme}://{authority}{path}{query}", host, port or _PORTS[parts.scheme])


def _host(parts: SplitResult) -> str:
    """The host in its ASCII form, an IPv6 address in brackets."""
    host = parts.hostname or ""
    if ":" in host:
        return f"[{host}]"
    return host if host.isascii() else host.encode("idna").decode("ascii").lower()


def _accepted(media_type: str, accept: Sequence[str]) -> bool:
    if not _MEDIA_TYPE.fullmatch(media_type):
        return False
    return media_type in accept or f"{media_type.partition('/')[0]}/*" in accept


def _refused(field: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {why}", field=field)


def _shown(size: int) -> str:
    return f"{size / (1024 * 1024):g} MB" if size >= 1024 * 1024 else f"{size} bytes"
