"""Where a name leads, and which addresses are public: what may be asked on behalf of a client. Nothing connects here."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host and a port to all IP addresses of the host. Raises `OSError` where there is none."""

Allowed = Callable[[str], bool]
"""Whether an IP address may be connected to."""

_LOOKUPS = 4
"""Names looked up at once."""

_V4_REFUSED = [
    ipaddress.IPv4Network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments (RFC 6890); a cloud serves its metadata at 192.0.0.192
        "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
        "168.63.129.16/32",  # Azure's own services, seen from inside a virtual machine
    )
]
_V6_UNICAST = ipaddress.IPv6Network("2000::/3")
_V6_REFUSED = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo (2001::/32) among them: these hold IPv4 addresses of their own
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: holds an IPv4 address
        "3fff::/20",  # documentation (RFC 9637)
    )
]


def is_public(address: str) -> bool:
    """Whether `address`, an IP address, belongs to the public internet. What is no address does not.

    The special-purpose registries of IANA decide, through `ipaddress`, and besides everything that leads to an IPv4 address
    in disguise is refused: NAT64 (64:ff9b::/96 and 64:ff9b:1::/48), 6to4, Teredo, IPv4-compatible. An IPv4-mapped address is
    what it maps.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return parsed.is_global and parsed in _V6_UNICAST and not any([parsed in each for each in _V6_REFUSED])
        parsed = parsed.ipv4_mapped
    return parsed.is_global and not parsed.is_multicast and not any([parsed in each for each in _V4_REFUSED])


class SystemResolver:
    """Looks names up as the operating system does, in threads of its own: a slow name server holds up nobody else's work."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_LOOKUPS, "cauce-names")
        return await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port)

    def close(self) -> None:
        """Look nothing up any more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def _look_up(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # Each once, in the order the system prefers them.
    return list(dict.fromkeys([str(entry[4][0]) for entry in found]))
