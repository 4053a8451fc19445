"""What a run found: as JSON for programs, and as one page for people that needs nothing but itself."""

import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cauce.testing.chaos.bounds import Bounds, Outage
from cauce.testing.chaos.invariants import (
    INVARIANTS,
    Violation,
    attempts_of,
    broke_off,
    excused,
    orphaned,
)
from cauce.testing.chaos.story import Story

_MOST_LOGS = 20
_MOST_VIOLATIONS = 500

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:left;vertical-align:top}"
    "pre{background:#f5f5f5;padding:.6rem;overflow:auto;max-height:30rem}.good{color:#060}.bad{color:#a00}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#222}.good{color:#7c7}.bad{color:#f88}}"
)


class Log(msgspec.Struct, frozen=True):
    """A stream that something is wrong with: the attempts at its answer, and its frames as the late replay gave them."""

    stream: str
    attempts: str
    frames: list[str]


class Report(msgspec.Struct, frozen=True):
    """`events` are frames that were checked. `outcomes` counts streams by how they ended, `faults` what was done, `seams` how answers went
    on where they broke, and their calls of tools, `excused` streams that broke off because a setting says so, `takeovers` how often
    somebody went on for a node that had gone, and after how many seconds at most, `delays` what kept readers waiting, `judged` how often each
    invariant could have been broken. `seconds` are of the whole run. `notes` is what whoever made the run has to say of it."""

    parameters: dict[str, Any]
    seconds: float
    streams: int
    events: int
    connections: int
    attempts: int
    outcomes: dict[str, int]
    faults: dict[str, int]
    seams: dict[str, int]
    excused: dict[str, int]
    takeovers: dict[str, float]
    delays: dict[str, int]
    memory: dict[str, int]
    outages: list[str]
    violations: list[Violation]
    logs: list[Log]
    judged: dict[str, int] = {}
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> dict[str, int]:
        """How many violations there are of each invariant that was broken."""
        return dict(sorted(Counter([one.invariant for one in self.violations]).items()))

    @property
    def not_judged(self) -> list[str]:
        """The invariants of which there was nothing that could have broken them."""
        return [name for name in INVARIANTS if not self.judged.get(name) and name not in self.broken]


class Nodes(msgspec.Struct, frozen=True):
    """`memory` is what each had at most, in kilobytes, `bounds` what their run had to keep, `judged` how much there was of what that is about."""

    memory: dict[str, int]
    bounds: Bounds = Bounds(0.0)
    judged: dict[str, int] = {}


def report(
    parameters: dict[str, Any],
    faults: dict[str, int],
    stories: Sequence[Story],
    violations: list[Violation],
    nodes: Nodes,
    seconds: float,
) -> Report:
    """Put together what was found."""
    concerned = {violation.stream for violation in violations}
    readers = [reader for story in stories for reader in (*story.readers, *story.replays)]
    return Report(
        parameters,
        round(seconds, 1),
        len(stories),
        sum([len(reader.frames) for reader in readers]),
        sum([reader.connections for reader in readers]),
        sum([len(story.attempts) for story in stories]),
        dict(Counter([_outcome(story) for story in stories])),
        dict(sorted(faults.items())),
        _seams(stories),
        _excused(stories, nodes.bounds),
        _takeovers(stories, nodes.bounds),
        dict(sorted(Counter([delay.what for reader in readers for delay in reader.delays]).items())),
        nodes.memory,
        [_told(outage) for outage in nodes.bounds.outages],
        violations[:_MOST_VIOLATIONS],
        [_log(story) for story in stories if story.stream in concerned][:_MOST_LOGS],
        nodes.judged,
    )


def write(found: Report, file: Path) -> None:
    """Write it to `file`, as JSON where its name says so, else as a page. Raises OSError."""
    if file.suffix == ".json":
        file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    else:
        file.write_text(page(found), "utf-8")


def page(found: Report) -> str:
    """The report as HTML. It asks for nothing from anywhere."""
    broken = found.broken
    verdict = f"{len(found.violations)} violations" if broken else "0 violations"
    rows = [[name, meaning, _verdict(found, name)] for name, meaning in INVARIANTS.items()]
    parts = [
        f"<h1>Cauce chaos: <span class={'bad' if broken else 'good'}>{verdict}</span></h1>",
        f"<p>{found.streams} streams, {found.events:,} events checked over {found.connections:,} connections, "
        f"{found.attempts} requests to the provider, {found.seconds:g} s.</p>",
        *[f"<p>{_e(note)}</p>" for note in found.notes],
        "<h2>Invariants</h2>",
        _table(["", "what must hold", "violations"], rows),
        "<h2>How streams ended</h2>",
        _facts(found.outcomes),
        "<h2>Faults</h2>",
        _facts(found.faults),
        "<h2>How answers went on, and their calls</h2>",
        _facts(found.seams),
        "<h2>What let answers break off</h2>",
        _facts(found.excused),
        "<h2>Takeovers</h2>",
        _facts(found.takeovers),
        "<h2>What kept readers waiting</h2>",
        _facts(found.delays),
        "<h2>Parameters</h2>",
        _facts(found.parameters),
        "<h2>Memory of nodes at most (kB)</h2>",
        _facts(found.memory),
        "<h2>When nodes were away</h2>",
        f"<pre>{_e(chr(10).join(found.outages))}</pre>",
    ]
    if found.violations:
        told = [[one.invariant, one.stream, one.message] for one in found.violations]
        parts += ["<h2>Violations</h2>", _table(["", "stream", "what was seen"], told)]
    for log in found.logs:
        parts.append(f"<h3>{_e(log.stream)}</h3><pre>{_e(log.attempts)}</pre>")
        parts.append(f"<details><summary>its log</summary><pre>{_e(chr(10).join(log.frames))}</pre></details>")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Cauce chaos: {verdict}</title><style>{_STYLE}</style>'
    return f"{head}\n{chr(10).join(parts)}\n</html>\n"


def _verdict(found: Report, name: str) -> str:
    if name in found.broken:
        return str(found.broken[name])
    return "not judged" if name in found.not_judged else f"held, of {found.judged[name]:,}"


def _told(outage: Outage) -> str:
    how = "was paused" if outage.paused else "was down"
    return f"{outage.node} {how} from {outage.begin:.3f} to {outage.end:.3f}"


def _facts(facts: dict[str, Any]) -> str:
    return _table(["", ""], [[name, str(value)] for name, value in facts.items()])


def _table(heads: list[str], rows: list[list[str]]) -> str:
    top = "".join([f"<th>{_e(head)}" for head in heads])
    return f"<table><tr>{top}{''.join(['<tr>' + ''.join([f'<td>{_e(cell)}' for cell in row]) for row in rows])}</table>"


def _e(text: str) -> str:
    return html.escape(text)


def _outcome(story: Story) -> str:
    records = story.records()
    if not records or not records[-1].terminal:
        return "forgotten" if story.forgotten is not None else "no end"
    last = records[-1]
    if last.type == "error":
        return "incomplete" if last.beside.get("partial") else "failed"
    return {"complete": "completed"}.get(last.type, last.type)


def _excused(stories: Sequence[Story], bounds: Bounds) -> dict[str, int]:
    ends = [(story, story.records()) for story in stories]
    found = Counter([excused(story, records, bounds) for story, records in ends if broke_off(records)])
    # What nothing excuses is a violation.
    return {why: count for why, count in sorted(found.items()) if why}


def _takeovers(stories: Sequence[Story], bounds: Bounds) -> dict[str, float]:
    waits = [sign - away.begin for story in stories for away, sign in orphaned(story, bounds) if sign is not None]
    return {"streams": len(waits), "seconds at most": round(max(waits), 1)} if waits else {}


def _seams(stories: Sequence[Story]) -> dict[str, int]:
    records = [record for story in stories for record in story.records()]
    seen = Counter([record.beside["quality"] for record in records if record.beside.get("status") == "seam"])
    seen["restarted"] = sum([record.restarts for record in records])
    for mark in ("ready", "abandoned"):
        seen[f"calls {mark}"] = sum(
            [record.type == "tool_call" and record.beside["mark"] == mark for record in records]
        )
    return dict(sorted(seen.items()))


def _log(story: Story) -> Log:
    readers = (*story.readers, *story.replays)
    ends = [
        f"{reader.name}: {len(reader.frames)} frames over {reader.connections} connections, at {reader.cursor}"
        for reader in readers
    ]
    ends += [f"{delay.at:.3f} {reader.name}: {delay.what}" for reader in readers for delay in reader.delays]
    told = [f"cancel answered {cancel.state} at {cancel.tail}, by {cancel.node}" for cancel in story.cancels]
    frames = [f"{frame.at:.3f} {frame.data.decode('utf-8', 'replace')}" for frame in story.log]
    return Log(story.stream, "\n".join([attempts_of(story.attempts), *ends, *told]), frames)
