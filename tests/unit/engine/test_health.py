"""What a candidate's health is measured by."""

import asyncio

import msgspec
import pytest

from cauce.domain.errors import CauceError
from cauce.engine.health import Health
from cauce.engine.policies.health import health
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider
from tests.unit.engine.guarded import Guarded, failing

pytestmark = pytest.mark.anyio


async def failed(system: Guarded, patience: float, code: str) -> bool:
    """Whether a candidate is ailing that failed so, having had so many seconds."""
    known = Health(FakeClock())

    async def ask(call: object) -> None:
        raise failing(code=code)

    call = msgspec.structs.replace(system.call(), patience=patience)
    with pytest.raises(CauceError):
        await health(system.clock, known)(ask)(call)  # pyright: ignore[reportArgumentType]
    return known.figures(call.candidate, streamed=True).ailing


async def test_candidate_that_a_client_gave_no_time_is_not_ailing() -> None:
    system = Guarded(ScriptedProvider("p", [asyncio.Event()]))
    assert not await failed(system, 0.5, "timeout")
    assert await failed(system, 28.0, "timeout")
    assert await failed(system, 0.5, "provider_error")
