"""What must hold of bills: the end of a stream, the ledgers and the provider all tell of the same tokens, once."""

import itertools
from collections.abc import Iterator
from typing import Any

from cauce.testing.chaos.attempt import Attempt
from cauce.testing.chaos.bounds import Bounds, Outage
from cauce.testing.chaos.ledgers import Billed
from cauce.testing.chaos.oracle import INPUT_TOKENS
from cauce.testing.chaos.story import Record, Story, text_of, voices
from cauce.testing.chaos.text import read

_CHARACTERS_PER_TOKEN = 4
"""At least: of what was heard to its end by who has it."""

_ROUNDED = 2
"""Tokens by which an estimate of an attempt may be above what its text comes to."""


def billed_wrongly(story: Story, records: list[Record], bounds: Bounds) -> Iterator[str]:
    """What is wrong with what the stream is said to have used."""
    if not records or not records[-1].terminal:
        return
    told = sum([record.asks for record in records])
    # The last one may have been asked just before a cancel, after which nothing of it is written.
    asked = len(story.attempts) - (records[-1].type == "cancelled")
    if asked > told and not bounds.died(story):
        yield f"the provider was asked {asked} times, and the log tells of {told}"
    usage: dict[str, Any] = records[-1].beside.get("usage") or {}
    billed = (usage.get("input_tokens"), usage.get("output_tokens"))
    only = _heard(story, records)
    if only is not None and billed != (INPUT_TOKENS, only.tokens):
        yield f"{billed} tokens are billed, and {(INPUT_TOKENS, only.tokens)} were served"
    if story.billed is not None and is_settled(story, records, bounds):
        used, heard = story.billed.total, set(voices(records))
        # What an attempt used that gave nothing is no part of the answer's usage.
        beside = any([attempt.nonce not in heard for attempt in story.attempts])
        more = used.input_tokens - (billed[0] or 0)
        if used.output_tokens != billed[1] or more < 0 or (more and not beside):
            yield f"{billed} tokens are told at its end, and {(used.input_tokens, used.output_tokens)} in the ledgers"
        yield from _not_in_the_ledgers(story, records, story.billed)


def _heard(story: Story, records: list[Record]) -> Attempt | None:
    """The only attempt, where it was heard to its end: what it reported is what is billed."""
    told = sum([record.asks for record in records])
    # One whose node died is billed by an estimate, before it was asked and when nothing but the end was left to write.
    heard = records[-1].epoch in [record.epoch for record in records if record.asks]
    # Who reads on an answer that is kept tells of it, and takes its bill over.
    once = told - sum([record.reads_on for record in records]) == 1
    if records[-1].type != "complete" or len(story.attempts) != 1 or not once or not heard:
        return None
    return story.attempts[0] if story.attempts[0].whole else None


def _not_in_the_ledgers(story: Story, records: list[Record], billed: Billed) -> Iterator[str]:
    reported, answered = billed.reported, [attempt for attempt in story.attempts if attempt.status == 200]
    bills, rest = divmod(reported.input_tokens, INPUT_TOKENS)
    served = [attempt.tokens for attempt in answered if attempt.whole]
    sums = {sum(some) for some in itertools.combinations(served, max(0, bills))}
    if rest or bills < 0 or reported.output_tokens not in sums or (not bills and _heard(story, records) is not None):
        what = (reported.input_tokens, reported.output_tokens)
        yield f"the ledgers have {what} tokens as reported, and of answers that were served whole there are {served}"
    bills += billed.estimated.attempts
    most = max(len(answered), sum([record.asks for record in records]))
    spoke = len(set(voices(records)))
    if not spoke <= bills <= most:
        yield f"the ledgers have {bills} attempts that used something, of {most} that were made, {spoke} of which are in the log"
    output = billed.total.output_tokens
    highest = sum([max(attempt.tokens * attempt.whole, attempt.weight + _ROUNDED) for attempt in answered])
    lowest = sum([(end - first) // _CHARACTERS_PER_TOKEN for _, first, end in read(text_of(records)).runs])
    if not min(lowest, sum(served) or lowest) <= output <= highest:
        yield f"the ledgers have {output} tokens of output, and {lowest} were written, {highest:.0f} served"


def is_settled(story: Story, records: list[Record], bounds: Bounds) -> bool:
    """Whether it is known to the last token what must be billed.

    It is not where something happened to a bill just when a node went: then the ledger may have one that the log has not, or the log one
    that is not in the ledger yet. Nor where a node went on that the stream was taken from, or could write nothing.
    """
    if story.billed is None or story.forgotten is not None or story.ended is None or bounds.loses:
        return False
    if not records or not records[-1].terminal:
        return False
    if len(story.attempts) > sum([record.asks for record in records]):
        return False
    outages = [away for away in bounds.outages if away.end >= story.born]
    return not any([_meets(away, outages, story, bounds) for away in outages])


def _meets(away: Outage, outages: list[Outage], story: Story, bounds: Bounds) -> bool:
    """Whether the outage may have come between a bill and what tells of it."""
    window = bounds.slack / 4
    just_before, just_after = away.begin - window, away.begin + window
    if story.ended is not None and just_before <= story.ended <= just_after:
        return True
    for earlier in outages:
        # Who went on after the one before must have been at it for a while.
        went_on = any([earlier.begin <= one.began < just_before for one in story.attempts])
        if earlier.begin < away.begin and _holds(earlier, story, window) and not went_on:
            return story.ended is None or story.ended > just_before
    if not _holds(away, story, window):
        return False
    if away.beneath or away.paused:
        return away.beneath or not bounds.alone
    changes = [attempt.began for attempt in story.attempts]
    # What was cut off by the end of its node is whoever goes on's to bill.
    changes += [one.closed for one in story.attempts if one.closed and (one.closed <= away.begin or one.over)]
    return any([just_before <= at <= just_after for at in changes])


def _holds(away: Outage, story: Story, window: float) -> bool:
    """Whether an answer was on its way to that node when it went, just before, or while it was away."""
    return any(
        [
            away.node in attempt.nodes
            and attempt.began <= away.end
            and (attempt.closed is None or attempt.closed >= away.begin - window)
            for attempt in story.attempts
        ]
    )
