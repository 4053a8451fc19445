"""Headers that say where an answer came from."""

from collections.abc import Sequence

from cauce.domain.delta import Attempt, CacheUse
from cauce.ports.provider import Course, named
from cauce.server.exchange import Header

_UNASKED = Course()
_CACHE: dict[CacheUse, Header] = {
    "none": (b"x-cauce-cache", b"none"),
    "miss": (b"x-cauce-cache", b"miss"),
    "hit": (b"x-cauce-cache", b"hit"),
    "stale": (b"x-cauce-cache", b"stale"),
}


def tried(course: Course) -> Header:
    """For an error: how often a provider was asked in vain."""
    return b"x-cauce-attempts", b"%d" % course.attempts


def provenance(
    attempts: Sequence[Attempt], stream_id: str, overhead: float, course: Course = _UNASKED
) -> tuple[Header, ...]:
    """`overhead` is the time spent here and not in providers, in seconds, as far as it is known when headers leave.

    An answer out of the cache has its `age` in seconds (RFC 9111 5.1), and is no attempt. Of a prompt that was too long it is said
    how many messages were left out.
    """
    if not attempts:
        return ((b"x-cauce-stream-id", stream_id.encode("latin-1", "replace")),)
    last = attempts[-1]
    name = named(last.provider, last.model)
    cached = course.cache == "hit" or course.cache == "stale"
    headers = (
        (b"x-cauce-stream-id", stream_id.encode("latin-1", "replace")),
        (b"x-cauce-model", name.encode("latin-1", "replace")),
        (b"x-cauce-attempts", b"%d" % max(len(attempts) - cached, course.attempts)),
        _CACHE[course.cache],
        (b"x-cauce-level", last.level.encode()),
        (b"x-cauce-overhead-ms", b"%.3f" % (overhead * 1000)),
    )
    if course.truncated:
        headers = (*headers, (b"x-cauce-truncated", b"%d" % course.truncated))
    return (*headers, (b"age", b"%d" % course.age)) if cached else headers


def origin(attempts: Sequence[Attempt]) -> tuple[Header, ...]:
    """The same for an answer out of a log, of which its attempts are known: all they tell stands in their records, so every reader is told
    the same. Its `age` is that when it was given."""
    if not attempts:
        return ()
    last = attempts[-1]
    name = named(last.provider, last.model)
    asked = [attempt for attempt in attempts if attempt.cache in ("none", "miss")]
    headers = (
        (b"x-cauce-model", name.encode("latin-1", "replace")),
        (b"x-cauce-attempts", b"%d" % len(asked)),
        _CACHE[last.cache],
        (b"x-cauce-level", last.level.encode()),
    )
    return headers if last.age is None else (*headers, (b"age", b"%d" % last.age))
