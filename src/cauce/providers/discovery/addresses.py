"""Where a local server may be: endpoints as people write them, made into addresses of this machine. Nothing connects here."""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

LOOPBACK = ("127.0.0.1", "::1")
"""What `localhost` stands for (RFC 6761). It is never looked up, so no hosts file can lead a probe off this machine."""

_SCHEME_PORTS = {"http": 80, "https": 443}


class Address(msgspec.Struct, frozen=True):
    """One loopback address. `host` is an IP literal without brackets."""

    host: str
    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Scheme and authority, without a slash at the end."""
        return (
            f"{self.scheme}://[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.scheme}://{self.host}:{self.port}"
        )


def addresses(endpoint: str, default_port: int) -> tuple[Address, ...]:
    """The addresses `endpoint` stands for: a URL (its path does not count), `host`, `host:port`, `:port` or `port`-less IP.

    No host, `localhost` and the addresses that servers bind for "everywhere" (0.0.0.0, ::) stand for both loopback addresses.
    Without a port, a URL means the port of its scheme, as it does to Ollama itself (envconfig `Host`), and anything else
    `default_port`. Raises `ValueError`, saying what is wrong, for what cannot be read or is not on this machine.
    """
    text = endpoint.strip().strip("\"'").strip()
    bare = _ip(text.strip("[]"))
    if bare is not None:
        return tuple([Address(host, default_port) for host in _hosts(str(bare))])
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        scheme, host, port = parts.scheme or "http", parts.hostname or "", parts.port
    except ValueError as error:
        # Not the parser's own words: they repeat the text, which may hold a password.
        raise ValueError("it is neither a URL nor host:port") from error
    if scheme not in _SCHEME_PORTS:
        raise ValueError(f"{scheme}:// is not HTTP")
    port = port or (_SCHEME_PORTS[scheme] if parts.scheme else default_port)
    return tuple([Address(host, port, scheme) for host in _hosts(host)])


def is_own(address: Address, own: Sequence[tuple[str, int]]) -> bool:
    """Whether `address` is one that we listen on ourselves. In doubt it is: asking ourselves would never end."""
    return any(port == address.port and _covers(host, address.host) for host, port in own)


def _hosts(host: str) -> tuple[str, ...]:
    if host in ("", "localhost"):
        return LOOPBACK
    address = _ip(host)
    if address is not None and address.is_unspecified:
        return LOOPBACK
    if address is None or not address.is_loopback:
        raise ValueError(f"{host} is not an address of this machine")
    return (str(address),)


def _covers(bound: str, host: str) -> bool:
    address = _ip(bound)
    return address is None or address.is_unspecified or str(address) == host


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
