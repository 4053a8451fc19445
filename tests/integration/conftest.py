"""A fake upstream for every integration test."""

from collections.abc import AsyncIterator

import pytest

from cauce.testing.upstream import Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server
