"""Who may talk to us from where: Host names (against DNS rebinding), origins (CORS), and keys.

A page of a foreign origin is refused before its body is read. Loopback origins on any port are welcome: that is where
people develop. The origin `null` (a page opened from a file) and others are opt-in.
"""

import hashlib
import ipaddress
import re
from collections.abc import Sequence

from cauce.domain.errors import Forbidden, InvalidRequest, Unauthorized
from cauce.domain.request import Scope
from cauce.server.exchange import Exchange, Header
from cauce.server.settings import Key, ServerSettings

_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
_LOOPBACK_ORIGIN = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?")
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")

_MOST_ADMITTED = 1000
"""Spellings of our names that are remembered: a name may come with any port."""

_EXPOSED = (
    b"x-cauce-request-id, x-cauce-stream-id, x-cauce-model, x-cauce-attempts, x-cauce-cache, x-cauce-level, "
    b"x-cauce-overhead-ms, x-cauce-truncated, x-cauce-estimated, x-request-id, request-id, retry-after, retry-after-ms, "
    b"x-should-retry, location, age"
)
_KEY_IN_ADDRESS = ("/v1beta/", "/v1/models/")
"""Where Google's clients may have put the key into the address. It is read, never logged."""
_COOKIE = "cauce_key"
_READING = re.compile(r"/chat/stream/[^/]+/resume")
"""Where a key may come in a cookie: an EventSource sends no headers of its own. It only reads."""
_ALLOWED = "content-type, authorization, x-api-key, last-event-id, idempotency-key, x-cauce-durable, x-cauce-on-disconnect, x-cauce-restart"
_METHODS = b"GET, POST, PATCH, DELETE, OPTIONS"
_PREFLIGHT_AGE = b"600"


class Gate:
    """`check` and `authorize` are the two questions every request is asked."""

    def __init__(self, settings: ServerSettings, keys: Sequence[Key]) -> None:
        self._hosts = _LOOPBACK_HOSTS | {settings.host.lower()} | {host.lower() for host in settings.hosts}
        # With keys a foreign page can do nothing without one; without keys the Host name is what tells it apart. A server
        # that is open to the network on purpose has nothing left to protect by it.
        self._check_host = bool(settings.hosts) or (not keys and is_loopback(settings.host))
        self._origins = frozenset([origin.rstrip("/") for origin in settings.cors_origins])
        self._scopes = {key.hash.removeprefix("sha256:").lower(): key.scope for key in keys}
        self._open = Scope()
        self._admitted: set[bytes | None] = {None}
        self._recognized: dict[bytes, Scope] = {}
        """By the digest of a whole header that held a known key: each is read once."""

    def check(self, exchange: Exchange) -> None:
        """Admit the request by Host and Origin, adding CORS headers. Raises `Forbidden`, `InvalidRequest`."""
        headers = exchange.request_headers
        if self._check_host and headers.get(b"host") not in self._admitted:
            self._admit(exchange.header(b"host"))
        if not headers.get(b"origin"):
            return
        host, origin = exchange.header(b"host"), exchange.header(b"origin")
        # Even a refusal is readable by the page it is meant for: it says what to configure.
        exchange.headers.extend(self._cors(exchange, origin))
        # A preflight does nothing; refusing it would keep the page from reading the refusal of what follows.
        if exchange.method != "OPTIONS" and not self.allows(origin, host):
            raise Forbidden(f"pages of origin {origin!r} may not call this server: add it to [server] cors_origins")

    def _admit(self, host: str) -> None:
        """Let the Host through, and at once from now on. Raises `Forbidden`, `InvalidRequest`."""
        if host != "" and not self._known_host(host):
            raise Forbidden(f"the Host {host!r} is not served here: add it to [server] hosts")
        if len(self._admitted) < _MOST_ADMITTED:
            self._admitted.add(host.encode("latin-1"))

    def allows(self, origin: str, host: str) -> bool:
        """Whether pages of `origin` may call us, who were called as `host`."""
        if origin in self._origins or "*" in self._origins or _LOOPBACK_ORIGIN.fullmatch(origin):
            return True
        return origin.partition("://")[2] == host and host != ""

    def authorize(self, exchange: Exchange) -> Scope:
        """Whose request it is. Without configured keys any key or none is accepted. Raises `Unauthorized`."""
        if not self._scopes:
            return self._open
        sent = exchange.request_headers.get(b"authorization", b"")
        digest = hashlib.sha256(sent).digest()
        if (known := self._recognized.get(digest)) is not None:
            return known
        bearer = sent.decode("latin-1")
        if bearer.startswith("Bearer ") and (known := self._scopes.get(_digest(bearer[7:].strip()))) is not None:
            if len(self._recognized) < _MOST_ADMITTED:
                self._recognized[digest] = known
            return known
        # A client may send both, with a key of ours in one of them only.
        tokens = (
            bearer[7:].strip() if bearer[:7].lower() == "bearer " else "",
            exchange.header(b"x-api-key"),
            exchange.header(b"x-goog-api-key"),
            (exchange.query("key") or "") if exchange.path.startswith(_KEY_IN_ADDRESS) else "",
            _in_cookie(exchange),
        )
        if not any(tokens):
            raise Unauthorized("an API key is required: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`")
        for token in tokens:
            scope = self._scopes.get(_digest(token))
            if scope is not None:
                return scope
        raise Unauthorized("this API key is not known here: make one with `cauce keys new`")

    def _known_host(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            raise InvalidRequest("the Host header is malformed")
        return (match["v6"] or match["name"]).lower() in self._hosts

    def _cors(self, exchange: Exchange, origin: str) -> list[Header]:
        headers: list[Header] = [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"vary", b"Origin"),
            (b"access-control-expose-headers", _EXPOSED),
        ]
        if exchange.method == "OPTIONS":
            asked = exchange.header(b"access-control-request-headers")
            headers.extend(
                [
                    (b"access-control-allow-methods", _METHODS),
                    (
                        b"access-control-allow-headers",
                        (asked or _ALLOWED).encode("latin-1"),
                    ),
                    (b"access-control-max-age", _PREFLIGHT_AGE),
                ]
            )
            if exchange.header(b"access-control-request-private-network") == "true":
                headers.append((b"access-control-allow-private-network", b"true"))
        return headers


def _in_cookie(exchange: Exchange) -> str:
    """The key in the cookie of a page of ours that reads a stream, else empty.

    A browser sends cookies on behalf of any page, so no other page's request counts, whoever may call us from elsewhere with a key.
    """
    if b"cookie" not in exchange.request_headers or exchange.method != "GET":
        return ""
    if _READING.fullmatch(exchange.path) is None:
        return ""
    origin, site = exchange.header(b"origin"), exchange.header(b"sec-fetch-site")
    if site not in ("", "same-origin", "none") or (origin and origin.partition("://")[2] != exchange.header(b"host")):
        return ""
    for part in exchange.header(b"cookie").split(";"):
        name, _, value = part.strip().partition("=")
        if name == _COOKIE:
            return value.strip('"')
    return ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether listening on `host` is for this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hash_key(key: str) -> str:
    """How a key is stored. Keys are 32 random bytes, so a plain SHA-256 cannot be searched."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()
