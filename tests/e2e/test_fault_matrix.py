"""Everything that goes wrong with a provider before its first delta, on every surface, whatever is left to do about it: each cell gives one
clean answer or one error in the words of its surface. What came of each is the table of docs/reference/faults.md; `make faults` writes it anew.

A cell has a provider and a model of its own, so that no breaker and no budget of retries is shared. Faults that take time are
given a second, real time; everything else ends by itself.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from cauce.domain.errors import STATUS, ErrorCode
from cauce.testing.upstream import FAULTS, Reply, Upstream, fault
from tests.http import within
from tests.serving import serving
from tests.surfaces import SURFACES, Outcome, Surface

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"

Way = Literal["retry", "fallback", "nothing"]

WAYS: dict[Way, str] = {
    "retry": "The fault comes once, then the same provider answers",
    "fallback": "The fault stays, and another provider answers",
    "nothing": "The fault stays, and nobody else is configured",
}
TEXT = "Hello from upstream."

TAKES_TIME = frozenset({"hang", "slow headers", "stalled stream"})
NOT_ASKED_AGAIN = TAKES_TIME | {"quota"}
"""Faults after which the same provider is not asked again: its time is used up, or its money."""

TOO_MANY = frozenset({"429 with delay", "429 without delay"})
"""Faults that say no more than that it is one call too many."""

CODES: dict[str, ErrorCode] = {
    **dict.fromkeys(FAULTS, "provider_error"),
    **dict.fromkeys(TAKES_TIME, "timeout"),
    **dict.fromkeys(TOO_MANY, "rate_limited"),
    **dict.fromkeys(("503", "529"), "overloaded"),
    "quota": "quota_exceeded",
}
ANTHROPIC: dict[ErrorCode, str] = {
    "provider_error": "api_error",
    "timeout": "timeout_error",
    "rate_limited": "rate_limit_error",
    "quota_exceeded": "rate_limit_error",
    "overloaded": "overloaded_error",
}
"""What `/v1/messages` calls our codes."""

PATIENCE = 4.5
"""Seconds that a provider gets to its first delta in cells whose fault is silence; plain calls get that for the whole answer."""
HOLD = 4.0
"""Seconds that headers wait: silence lasts longer, and nothing else does, on a busy machine either."""
LONGEST = 30.0
"""Seconds after which the whole run has failed, whatever came."""
SLACK = 5.0
"""Seconds that a busy machine may need beside those a cell is configured to take."""
ATTEMPTS = 3
WAIT = 0.6
"""Seconds that calls wait for a provider that refuses them as too many."""
GAP = 3.0
"""Seconds of the pause after two such refusals, in place of ours: so long that it is not over on a busy machine before it is looked at."""
AT_ONCE = 12
"""Cells that are busy at once. Those that only wait do so all together."""


class Cell(msgspec.Struct, frozen=True):
    """One test."""

    fault: str
    surface: Surface
    stream: bool
    way: Way
    number: int

    @property
    def id(self) -> str:
        return f"{self.fault}-{self.surface.name}-{'stream' if self.stream else 'plain'}-{self.way}"

    @property
    def harmless(self) -> bool:
        """The bytes of the answer are right; a plain answer is read whatever it calls itself."""
        return self.fault == "wrong content type" and not self.stream

    @property
    def waits(self) -> bool:
        """The provider says that it is one too many, and nobody else is there: it is asked now and then, until the wait is over."""
        return self.fault in TOO_MANY and self.way == "nothing"

    @property
    def deadline(self) -> float:
        """Seconds within which its client has an answer or an error: each silence it is configured to bear, or its wait, and the slack."""
        if self.fault in TAKES_TIME:
            return PATIENCE * (self.asked if self.way == "nothing" else 1) + SLACK
        return (WAIT if self.waits else 0.0) + SLACK

    @property
    def asked(self) -> int:
        """How often the faulty provider is asked, at least."""
        if self.harmless or self.fault in NOT_ASKED_AGAIN:
            # One that hangs is left for another connection once, where nobody else could be asked.
            return 2 if self.fault in TAKES_TIME and self.stream and self.way != "fallback" else 1
        if self.way == "retry" or self.fault in TOO_MANY:
            # Two in a row make a pause, and nobody waits for its end while another provider is there.
            return 2
        return ATTEMPTS

    @property
    def provider(self) -> str:
        """The failing provider; cells that differ in the way only share it, and nothing else."""
        name = self.fault.lower().replace(" ", "-")
        return f"{name}-{self.surface.name}-{'stream' if self.stream else 'plain'}"

    @property
    def faulty(self) -> str:
        return f"faulty-{self.number}"

    @property
    def well(self) -> str:
        return f"well-{self.number}"

    @property
    def model(self) -> str:
        """What the client asks for."""
        return f"route-{self.number}" if self.way == "fallback" else f"{self.provider}/{self.faulty}"

    @property
    def toml(self) -> str:
        """What it needs besides its provider."""
        if self.way != "fallback":
            return ""
        asked = [f"{self.provider}/{self.faulty}", f"{self.surface.name}/{self.well}"]
        return f"[models.{self.model}]\ncandidates = {asked}\n"


def _provider(name: str, surface: Surface, root: str, timeouts: str = "") -> str:
    return f'[providers.{name}]\n{surface.provider.format(root=root)}api_key = "upstream-key"\n{timeouts}'


def _configuration(root: str) -> str:
    parts = [f"[streams]\nhold_headers = {HOLD}\n[retry]\nattempts = {ATTEMPTS}\nbase = 0.01\n[queue]\nwait = {WAIT}\n"]
    parts += [_provider(surface.name, surface, root) for surface in SURFACES]
    for cell in CELLS:
        if cell.way == "retry":
            bound = f"{'first_delta' if cell.stream else 'total'} = {PATIENCE}"
            timeouts = f"timeouts = {{ {bound} }}\n" if cell.fault in TAKES_TIME else ""
            parts.append(_provider(cell.provider, cell.surface, root, timeouts))
        parts.append(cell.toml)
    return "".join(parts)


class Seen(msgspec.Struct, frozen=True):
    """What came of a cell. `asked` are the requests that the faulty provider got, `helped` those of the other one."""

    outcome: Outcome
    asked: int
    helped: int
    waited: bool
    seconds: float

    def __str__(self) -> str:
        if self.waited:
            return f"waits, then {self.outcome.status} `{self.outcome.code}`"
        requests = f"{self.asked} + {self.helped}" if self.helped else str(self.asked)
        match self.outcome.kind:
            case "answer":
                return f"answer ({requests})"
            case "refused":
                return f"{self.outcome.status} `{self.outcome.code}` ({requests})"
            case _:
                return f"in the stream: `{self.outcome.code}` ({requests})"


CELLS = [
    Cell(*given, number) for number, given in enumerate(product(FAULTS, SURFACES, (False, True), tuple[Way, ...](WAYS)))
]


async def _run() -> tuple[dict[str, Seen], Upstream]:
    loop = asyncio.get_running_loop()
    async with Upstream() as upstream:
        for cell in CELLS:
            bad = fault(cell.fault)
            upstream.scripts[cell.faulty] = [bad, Reply(text=TEXT)] if cell.way == "retry" else [bad]
            upstream.scripts[cell.well] = [Reply(text=TEXT)]
        async with serving(_configuration(upstream.root)) as served:
            room = asyncio.Semaphore(AT_ONCE)

            async def run(cell: Cell) -> tuple[str, Seen]:
                async with contextlib.nullcontext() if cell.fault in TAKES_TIME else room:
                    began = loop.time()
                    outcome = await within(cell.surface.asked(served.port, cell.model, stream=cell.stream), LONGEST)
                    seconds = loop.time() - began
                counts = upstream.record.requests
                return cell.id, Seen(outcome, counts[cell.faulty], counts[cell.well], cell.waits, seconds)

            seen = dict(await asyncio.gather(*[run(cell) for cell in CELLS]))
            await within(upstream.record.idle.wait())
        # Whoever served has let go of everything.
        await within(upstream.record.empty.wait())
    return seen, upstream


@pytest.fixture(scope="module")
def matrix() -> Iterator[dict[str, Seen]]:
    """All cells, asked at once."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cauce.engine.concurrency.FIRST_GAP", GAP)
        seen, _ = asyncio.run(_run())
    yield seen


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_fault_ends_in_one_answer_or_one_error(cell: Cell, matrix: dict[str, Seen]) -> None:
    seen = matrix[cell.id]
    outcome = seen.outcome
    assert seen.seconds < cell.deadline
    answered = cell.harmless or cell.way == "fallback" or (cell.way == "retry" and cell.asked > 1)
    assert seen.asked == cell.asked or (cell.waits and seen.asked > cell.asked)
    assert seen.helped == (cell.way == "fallback" and not cell.harmless)
    if answered:
        assert (outcome.kind, outcome.text) == ("answer", TEXT)
        return
    code = CODES[cell.fault]
    if cell.stream and cell.fault in TAKES_TIME:
        assert outcome.kind == "broken off"
        told = "server_error" if cell.surface.name == "responses" else code
    else:
        assert (outcome.kind, outcome.status) == ("refused", STATUS[code])
        assert bool(outcome.retry_after) is (code in ("rate_limited", "overloaded"))
        told = code
    assert outcome.code == (ANTHROPIC[code] if cell.surface.name == "messages" else told)


def test_table_in_the_documentation_is_what_came_of_it(matrix: dict[str, Seen]) -> None:
    page = _page(matrix)
    if os.environ.get("CAUCE_WRITE_FAULTS"):
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page, "make faults writes docs/reference/faults.md anew"


def _page(matrix: dict[str, Seen]) -> str:
    parts = [_HEAD]
    for way, title in WAYS.items():
        columns = [(surface, stream) for surface in SURFACES for stream in (False, True)]
        names = [f"{surface.name}{', streamed' if stream else ''}" for surface, stream in columns]
        lines = [f"## {title}\n", "| fault | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for name in FAULTS:
            cells = [
                str(matrix[cell.id])
                for surface, stream in columns
                for cell in CELLS
                if (cell.fault, cell.surface, cell.stream, cell.way) == (name, surface, stream, way)
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


_HEAD = """# Faults

What clients get when a provider fails before its first delta. This page is written by `tests/e2e/test_fault_matrix.py`, which asks for every
cell and fails when one differs; `make faults` writes it anew.

Each surface stands before a provider of its own wire; `/llm/message`, called native here, before Gemini's. In brackets: the
requests that the failing provider got, and behind the plus those of the other one. An error of a stream is an HTTP status as long as
the headers have not left ([`[streams] hold_headers`](../../src/cauce/guide/en/configuration.md)), and an error inside of the stream after that. The faults are those of
`cauce.testing.upstream`, each in the wire's own words; silence is bounded here to a few seconds. A provider is asked
three times at most; one that says 429, without a delay or with one as short as here, is left alone after two. Where nobody else is there,
calls that got a 429 wait in the queue, which is short here, while one of them tries now and then. One that hangs is asked once more if the answer is streamed and there is
nobody else: a plain call has used up its time by then.
"""
