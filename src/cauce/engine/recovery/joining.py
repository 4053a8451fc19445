"""What of a new attempt's deltas is shown to readers who have the beginning of the answer: the join is made here."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec

from cauce.domain.delta import Delta, Finish, Reasoning, Restart, Status, Text, ToolCall
from cauce.domain.errors import ProviderFailure
from cauce.domain.usage import Usage
from cauce.engine.recovery.delivered import Called
from cauce.engine.recovery.seam import HELD_SECONDS, Seam, begins_anew
from cauce.engine.recovery.unhurried import Unhurried
from cauce.ports.clock import Clock
from cauce.ports.provider import Deltas

Batches = AsyncGenerator[Sequence[Delta], None]


class BegunAnew(ProviderFailure):
    """A model that was to go on with the answer began another one."""

    def __init__(self, message: str) -> None:
        super().__init__(message, failure="transient", provider="upstream")


def used(deltas: Deltas) -> Callable[[], Usage]:
    """What `deltas` have used, to be asked later."""
    return lambda: deltas.used


def seam(quality: str, dropped: int = 0, **facts: object) -> Status:
    """Where two attempts meet. `dropped`: characters of the new one that are not shown."""
    return Status("seam", _WORDS[quality], {"quality": quality, "dropped": dropped, **facts})


_WORDS = {
    "exact": "The answer goes on exactly where it stopped",
    "stitched": "The answer goes on after a break",
    "cut_after_call": "The answer broke after a complete call: it ends with that",
}


async def exact(deltas: Deltas, text: str) -> Batches:
    """What a model adds to the beginning it was given: `text` without the white space at its end, which it may write again.

    Raises `BegunAnew`.
    """
    blank = text[len(text.rstrip()) :]
    told, checked, head = False, False, ""
    async with aclosing(deltas):
        while batch := await deltas.read():
            shown: list[Delta] = []
            for delta in batch:
                if type(delta) is Reasoning:
                    # The thoughts of one attempt are not the thoughts of another.
                    continue
                if type(delta) is Text and not checked:
                    head += delta.text
                    anew = begins_anew(text, head)
                    if anew:
                        raise BegunAnew("a model that was given the beginning of its answer began it anew")
                    if anew is None:
                        continue
                    checked = True
                    delta = msgspec.structs.replace(delta, text=head)
                elif head and not checked and (type(delta) is Finish or type(delta) is ToolCall):
                    checked = True
                    if not told:
                        told = True
                        shown.append(seam("exact"))
                    kept, blank = _without(head, blank)
                    if kept:
                        shown.append(Text(kept))
                if type(delta) is Text and blank:
                    kept, blank = _without(delta.text, blank)
                    if not kept:
                        continue
                    delta = msgspec.structs.replace(delta, text=kept, begins=False)
                elif type(delta) is Text and delta.begins:
                    delta = msgspec.structs.replace(delta, begins=False)
                if not told and type(delta) is not Status:
                    told = True
                    shown.append(seam("exact"))
                shown.append(delta)
            if shown:
                yield shown


def _without(text: str, blank: str) -> tuple[str, str]:
    """`text` without the beginning of it that equals that of `blank`, and what is left of `blank`."""
    common = 0
    while common < min(len(text), len(blank)) and text[common] == blank[common]:
        common += 1
    return text[common:], blank[common:] if common == len(text) else ""


async def stitched(deltas: Deltas, text: str, clock: Clock, *, takes_preamble: bool = False) -> Batches:
    """What a model adds that was asked to continue, behind the seam. Raises `BegunAnew`.

    `takes_preamble`: nobody is left to ask instead of one that talks before it goes on.
    """
    filtering: Seam | None = Seam(text, takes_preamble=takes_preamble)
    until: float | None = None
    late = False
    async with aclosing(deltas), aclosing(Unhurried(deltas, clock)) as reader:
        while True:
            waits = filtering is not None and until is not None and not late
            batch = await reader.read(max(0.0, until - clock.monotonic()) if waits and until is not None else None)
            if batch is None:
                # What is held has been held long enough, though nothing new has come.
                late, batch = True, _NOTHING_NEW
            elif not batch:
                return
            shown: list[Delta] = []
            for delta in batch:
                if type(delta) is Reasoning:
                    continue
                if filtering is None:
                    shown.append(delta)
                    continue
                if type(delta) is Text:
                    now = clock.monotonic()
                    until = now + HELD_SECONDS if until is None else until
                    late = late or now >= until
                    verdict, kept = filtering.feed(delta.text, late=late)
                elif type(delta) is Finish or type(delta) is ToolCall:
                    # What is held comes before it.
                    verdict, kept = filtering.finish()
                else:
                    shown.append(delta)
                    continue
                if verdict == "anew" or verdict == "talk":
                    raise BegunAnew(_REFUSED[verdict])
                if verdict == "go on":
                    shown.append(seam("stitched", filtering.dropped))
                    filtering = None
                    if kept:
                        shown.append(Text(kept))
                if type(delta) is not Text:
                    shown.append(delta)
            if shown:
                yield shown


_NOTHING_NEW = (Text(""),)
_REFUSED = {
    "anew": "a model that was to go on with an answer began it anew",
    "talk": "a model that was to go on with an answer talked about going on",
}


async def attached(deltas: Deltas) -> Batches:
    """What the provider's own stream gives from where it was left."""
    async with aclosing(deltas):
        first = True
        while batch := await deltas.read():
            yield batch if not first else (seam("exact", attached=True), *batch)
            first = False


async def restarted(deltas: Deltas, reason: str) -> Batches:
    """Another answer in place of what was shown. What is taken back is told only once there is something to show instead: everything
    from record 1 on, for here an answer has one step."""
    async with aclosing(deltas):
        told = False
        while batch := await deltas.read():
            if told or all([type(delta) is Status for delta in batch]):
                yield batch
            else:
                told = True
                yield (Restart(1, reason), *batch)


async def renumbered(deltas: Deltas, before: Called) -> Batches:
    """`deltas`, whose calls of tools are taken for none of those `before` them."""
    ids: dict[str, str] = {}
    async with aclosing(deltas):
        while batch := await deltas.read():
            yield [_renumbered(delta, before, ids) if type(delta) is ToolCall else delta for delta in batch]


def _renumbered(call: ToolCall, before: Called, ids: dict[str, str]) -> ToolCall:
    name = ids.get(call.call_id)
    if name is None:
        name, number = call.call_id, 1
        while name in before.ids:
            number += 1
            name = f"{call.call_id}_{number}"
        ids[call.call_id] = name
    return msgspec.structs.replace(call, index=call.index + before.next_index, call_id=name)
