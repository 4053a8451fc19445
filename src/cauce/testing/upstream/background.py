"""Answers of the Responses wire that are made in the background: they can be attached to, and have to be cancelled."""

import re
from urllib.parse import parse_qs, urlsplit

import msgspec

from cauce.testing.upstream.reply import Ask, Reply, Steps

_PATH = re.compile(r"/responses/([^/?]+)(/cancel)?$")
_NUMBER = re.compile(rb'"sequence_number":(\d+)')


class Kept(msgspec.Struct, frozen=True):
    """An answer that is being made, or has been."""

    ask: Ask
    reply: Reply


class Attachment(msgspec.Struct, frozen=True):
    """Somebody who reads it again: from after event `after` (-1: all), cut after so many pieces (None: not)."""

    kept: Kept
    after: int
    cut_after: int | None


class Background:
    """What becomes of answers that were asked for with `background`, and who came back for them.

    `attached` has the addresses that were read again, `cancelled` the ids of answers that were cancelled. The connections of those who
    read again are cut as `cuts` says, in turn; `lost`: nothing is kept any more; `repeats`: they get the last event once more.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.attached: list[str] = []
        self.cancelled: list[str] = []
        self.cuts: list[int] = []
        self.lost = False
        self.repeats = False

    def keep(self, ask: Ask, reply: Reply) -> Ask:
        """`ask` with the id of its answer, which is kept."""
        ask = msgspec.structs.replace(ask, response_id=f"resp_fake_{len(self.kept) + 1}")
        self.kept[ask.response_id] = Kept(ask, reply)
        return ask

    def attach(self, target: str) -> Attachment | None:
        """Who asks for `target`; None if that is no answer."""
        url = urlsplit(target)
        found = _PATH.search(url.path)
        if found is None or found[2]:
            return None
        self.attached.append(target)
        kept = self.kept.get(found[1])
        if kept is None or self.lost or found[1] in self.cancelled:
            return None
        after = int(parse_qs(url.query).get("starting_after", ["-1"])[0])
        return Attachment(kept, after - self.repeats, self.cuts.pop(0) if self.cuts else None)

    def cancel(self, path: str) -> bool:
        """Whether `path` is that of a cancel; the answer is cancelled."""
        found = _PATH.search(path)
        if found is None or not found[2]:
            return False
        self.cancelled.append(found[1])
        return True


def left(framed: Steps, after: int) -> Steps:
    """The events of `framed` that are numbered higher than `after`."""

    def of(pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return tuple([kept for piece in pieces if (kept := _left(piece, after))])

    return Steps(of(framed.opening), of(framed.deltas), of(framed.closing))


def _left(piece: bytes, after: int) -> bytes:
    events = [event for event in piece.split(b"\n\n") if event]
    return b"".join([event + b"\n\n" for event in events if int(_NUMBER.findall(event)[-1]) > after])
