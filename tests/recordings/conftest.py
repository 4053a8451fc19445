"""One loop for all tests of a module, so that one server can serve them."""

import pytest


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"
