"""Streams that break once their client has read something, and are not repaired: the text stays, and the end is an error on every surface,
never a clean one."""

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.http import within
from tests.serving import serving
from tests.surfaces import SURFACES, Surface

pytestmark = pytest.mark.anyio

BREAKS = {
    "cut": Reply(cut_after=2),
    "reset": Reply(cut_after=2, reset=True),
    "stalled": Reply(stall_after=2),
    "error in the stream": Reply(error={"message": "it broke"}, error_after=2),
    "end without its marker": Reply(cut_after=3),
}
SAID = {"end without its marker": "Hello from upstream."}


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize("name", BREAKS)
async def test_break_after_the_first_words_is_an_error_and_nobody_is_asked_again(
    upstream: Upstream, surface: Surface, name: str
) -> None:
    upstream.scripts = {"ill": [BREAKS[name]], "well": [Reply()]}
    provider = surface.provider.format(root=upstream.root)
    toml = f'[providers.up]\n{provider}api_key = "k"\ntimeouts = {{ idle = 0.3 }}\n'
    toml += '[models.both]\ncandidates = ["up/ill", "up/well"]\n[recovery]\nattempts = 0\n'
    async with serving(toml) as served:
        got = await within(surface.asked(served.port, "both", stream=True))
        await within(upstream.record.idle.wait())
        usage = served.runtime.services.last_entry("up")
    assert got.kind == "broken off" and got.code
    assert surface.name == "native" or got.text == SAID.get(name, "Hello from ")
    assert upstream.record.requests == {"ill": 1}
    assert usage is not None and (usage.outcome, usage.usage.estimated) == ("failed", True)
