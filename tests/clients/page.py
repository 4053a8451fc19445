"""The page that says which client was proved with what: written by the run itself, once it has proved everything."""

from collections.abc import Callable
from pathlib import Path

from tests.clients.scenarios import SCENARIOS
from tests.clients.table import CHAT, CLIENTS, EXTRAS, GEMINI, KINDS, MESSAGES, OFFERED, RESPONSES, Client
from tests.clients.workers import ROOT

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
Proof = tuple[str, str, str]
"""A client, a kind of provider, a scenario."""

Proved = Callable[[str, str, str], None]

WANTED = {
    *((client.name, kind, scenario.name) for client, scenario in OFFERED for kind in KINDS),
    *((client, kind, extra.name) for extra in EXTRAS for client in extra.clients for kind in KINDS),
}
"""All that a whole run proves."""

_HEAD = """# Compatibility

Client programs, as released and unchanged, and what each was put through with Cauce between it and a provider. Run `make test-clients` to
repeat it: the run itself writes this page, and only if nothing failed. The provider is the fake one of `cauce.testing.upstream`, which
speaks each provider's wire and knows nothing of Cauce's codecs. Each scenario compares what the client saw and what the provider
was asked.

A cell has one mark for each kind of provider behind Cauce, in this order: `openai`, `anthropic`, `gemini`.

| mark | meaning |
|---|---|
| ✓ | passed |
| ∅ | that provider offers nothing of the sort, and the client was told so with a 4xx |
| – | not offered by that client |

The standard tests of `langchain-tests` leave out embeddings and JSON without a schema in front of `anthropic`, which has neither.
"""


def page() -> str:
    """The page of a run that proved everything."""
    parts = [_HEAD]
    for surface in (CHAT, RESPONSES, MESSAGES, GEMINI):
        clients = [client for client in CLIENTS if client.speaks == surface]
        heads = [f"{client.title}<br>{client.version}" for client in clients]
        lines = [f"## {surface}", "", _row(["", *heads]), _row(["---", *(":-:" for _ in clients)])]
        for name, title in ((one.name, one.title) for one in (*SCENARIOS, *EXTRAS)):
            cells = [_cell(client, name) for client in clients]
            if any(cell != "–" for cell in cells):
                lines.append(_row([title, *cells]))
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def write(proofs: set[Proof], path: Path = PAGE) -> bool:
    """Write the page if `proofs` are those of a whole run; whether they are."""
    if not proofs >= WANTED:
        return False
    path.write_text(page())
    return True


def _cell(client: Client, name: str) -> str:
    if not any((client.name, kind, name) in WANTED for kind in KINDS):
        return "–"
    without = next((one.without for one in SCENARIOS if one.name == name), ())
    return "".join("∅" if kind in without else "✓" for kind in KINDS)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
