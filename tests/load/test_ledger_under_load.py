"""The ledger against the fake provider's own account, and against a server that is killed."""

from pathlib import Path

import pytest

from tests.load.scenarios import killed, mixed

pytestmark = pytest.mark.anyio

KINDS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")


async def test_ledger_and_provider_agree_on_two_thousand_calls_of_all_kinds(tmp_path: Path) -> None:
    seen = await mixed(tmp_path, 2000)
    total, estimated = seen.usage["total"], seen.usage["estimated"]
    reported = {name: total[name] - estimated[name] for name in KINDS}
    served = seen.served
    assert reported == dict(zip(KINDS, (served.input, served.output, served.cached, served.reasoning), strict=True))
    assert total["requests"] == 2000 and estimated["requests"] > 0


async def test_killed_server_has_lost_no_answer_that_was_delivered(tmp_path: Path) -> None:
    delivered, usage = await killed(tmp_path, 1500, 700)
    known = {group["model"]: group["requests"] for group in usage["groups"]}
    assert len(delivered) >= 700
    assert [model for model in delivered if known.get(model) != 1] == []
