"""Where a statement in an answer comes from."""

import msgspec

from cauce.domain.extra import Extra


class Citation(msgspec.Struct, frozen=True, tag="citation"):
    """A source of the text before it. `start` and `end` are characters of the answer's text, where the wire tells.

    `quote` is what the source says. `extra` is the wire's own citation, raw. Also a delta: it follows the text it is about.
    """

    url: str | None = None
    title: str | None = None
    quote: str | None = None
    start: int | None = None
    end: int | None = None
    choice: int = 0
    extra: Extra | None = None
