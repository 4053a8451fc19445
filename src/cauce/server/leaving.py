"""What becomes of a logged stream that nobody reads any more, as clients and configurations say it."""

import re

import msgspec

from cauce.engine.streams.options import Disconnect

FORMS = "continue, cancel, grace or grace:SECONDS"
"""How it is said."""

_GRACE = re.compile(r"grace(?::(\d{1,6}(?:\.\d{1,3})?)s?)?")


class Leaving(msgspec.Struct, frozen=True):
    """`grace` is in seconds (None: that of `[streams]`)."""

    on_disconnect: Disconnect
    grace: float | None = None


class ModelManner(msgspec.Struct, frozen=True):
    """What `[models.*]` says of how answers of a model are given. `buffer`: nobody is shown anything before the end."""

    leaving: Leaving | None = None
    buffer: bool = False


def parse_leaving(text: str) -> Leaving | None:
    """What `text` says; None if it is none of `FORMS`."""
    match text:
        case "continue" | "cancel":
            return Leaving(text)
        case _:
            found = _GRACE.fullmatch(text)
            return None if found is None else Leaving("grace", float(found[1]) if found[1] else None)
