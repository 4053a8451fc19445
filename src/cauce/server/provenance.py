"""Headers that say where an answer came from."""

from collections.abc import Sequence

from cauce.domain.delta import Attempt
from cauce.server.exchange import Header


def provenance(attempts: Sequence[Attempt], stream_id: str, overhead: float) -> tuple[Header, ...]:
    """`overhead` is the time spent here and not in providers, in seconds, as far as it is known when headers leave."""
    if not attempts:
        return ((b"x-cauce-stream-id", stream_id.encode("latin-1", "replace")),)
    last = attempts[-1]
    name = f"{last.provider}/{last.model}" if last.model else last.provider
    return (
        (b"x-cauce-stream-id", stream_id.encode("latin-1", "replace")),
        (b"x-cauce-model", name.encode("latin-1", "replace")),
        (b"x-cauce-attempts", b"%d" % len(attempts)),
        (b"x-cauce-cache", b"hit" if last.level == "cache" else b"none"),
        (b"x-cauce-level", last.level.encode()),
        (b"x-cauce-overhead-ms", b"%.3f" % (overhead * 1000)),
    )
