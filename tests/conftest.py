"""Fixtures for all tests. No test reaches the network: connecting anywhere but to this machine fails."""

import ipaddress
import sys
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("cauce", deadline=None, max_examples=60, database=None)
settings.load_profile("cauce")


def _only_loopback(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and not ipaddress.ip_address(address[0]).is_loopback:
        raise AssertionError(f"a test tried to reach the network: {address}")


sys.addaudithook(_only_loopback)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
