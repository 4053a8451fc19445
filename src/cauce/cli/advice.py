"""What to do about a provider that does not answer."""

import errno
import socket
import ssl
from collections.abc import Iterator

from cauce.cli.words import say
from cauce.config import ProviderSettings
from cauce.domain.errors import CauceError, ProviderFailure

_REFUSED = f"[Errno {errno.ECONNREFUSED}]"


def advice(name: str, settings: ProviderSettings, error: CauceError) -> str:
    """What to do when the provider `name` does not list its models for `error`; empty where its message says it."""
    status = error.upstream_status if isinstance(error, ProviderFailure) else None
    causes = list(_causes(error))
    if status in (401, 403):
        return _key(name, settings)
    if status == 404 or (status is None and error.failure == "bad_request"):
        return _address(name, settings)
    if status == 429:
        return say("the key is accepted, but its limit is reached: wait, or look at the plan it belongs to")
    if status is not None and status >= 500:
        return say("the provider has trouble of its own: try again later")
    if _refused(causes):
        return say("nothing listens there: is the server running, and is the port in base_url right?")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return say("there is no such host: check base_url, or this machine's network")
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return say("there is no secure connection: does base_url need http:// instead of https://, or a certificate?")
    if error.code == "timeout":
        return say("no answer in time: is that address reachable from here (network, VPN, firewall)?")
    return ""


def _key(name: str, settings: ProviderSettings) -> str:
    if not settings.api_key:
        return say('it wants a key and none is set: give [providers.{name}] an api_key = "env:VARIABLE"', name=name)
    return say("its key is refused: check api_key of [providers.{name}]", name=name)


def _address(name: str, settings: ProviderSettings) -> str:
    base_url = settings.base_url.rstrip("/")
    if not base_url.endswith("/v1"):
        return say(
            "base_url of [providers.{name}] mostly ends in /v1: is {base_url}/v1 right?", name=name, base_url=base_url
        )
    return say("there is no {base_url}/models: check base_url of [providers.{name}]", name=name, base_url=base_url)


def _refused(causes: list[BaseException]) -> bool:
    # Where a name has several addresses, the error that stands for all of them has no number.
    return any(
        isinstance(cause, OSError) and (cause.errno == errno.ECONNREFUSED or _REFUSED in str(cause)) for cause in causes
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
