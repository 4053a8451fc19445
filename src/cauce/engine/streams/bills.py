"""What the attempts behind streams came to: the ledger tells it to the streams of this process, so that their log says the same."""

from collections.abc import Callable, Sequence

import msgspec

from cauce.domain.delta import Attempt, Delta, delta_size
from cauce.domain.price import settled
from cauce.domain.stream import AttemptRow, Head
from cauce.domain.tokens import estimate_tokens
from cauce.domain.usage import Usage, summed
from cauce.engine.estimator import Estimator
from cauce.engine.streams.options import StreamOptions
from cauce.ports.ledger import Entry, Ledger
from cauce.ports.provider import Candidate

Told = Callable[[Entry], bool]
"""Whether the ledger is to have it."""


class Bills:
    """A ledger. Entries of requests that are watched are told on, and whoever is told may keep one from `ledger`."""

    def __init__(self, ledger: Ledger | None = None, estimator: Estimator | None = None) -> None:
        """Without `ledger` nothing is written down."""
        self._ledger = ledger
        self._estimator = estimator or Estimator()
        self._watched: dict[str, Told] = {}

    def record(self, entry: Entry) -> None:
        """See `ports.ledger.Ledger`."""
        told = self._watched.get(entry.request_id)
        if told is None or told(entry):
            self.write(entry)

    def write(self, entry: Entry) -> None:
        """Have the ledger take it, and nobody told: it is of an attempt of another process."""
        if self._ledger is not None:
            self._ledger.record(entry)

    def watch(self, request_id: str, told: Told) -> None:
        """Have `told` asked about every entry of that request."""
        self._watched[request_id] = told

    def unwatch(self, request_id: str) -> None:
        """No more of it."""
        self._watched.pop(request_id, None)

    def received(self, head: Head, row: AttemptRow, deltas: Sequence[Delta], candidates: Sequence[Candidate]) -> Usage:
        """What an attempt has used whose process is gone, estimated from what of it is in the log: it read the request, and wrote that."""
        name = f"{row.provider}/{row.model}" if row.model else row.provider
        written = "".join([piece for delta in _of(deltas, row.n) if (piece := _written(delta))])
        tokens = estimate_tokens(written) if written else 0
        usage = Usage(self._estimator.estimate(head.request, name), tokens, estimated=True)
        return priced(usage, row.provider, row.model, candidates)

    def entry(
        self, head: Head, row: AttemptRow, options: StreamOptions, deltas: Sequence[Delta], now: float
    ) -> Entry | None:
        """What the ledger gets of an attempt that `row` closes in place of the process that made it. None: nobody is known to pay."""
        made = [delta for delta in deltas if isinstance(delta, Attempt) and delta.n == row.n]
        if options.scope is None or row.usage is None:
            return None
        return Entry(
            now,
            options.request_id,
            options.scope.of(head.request.user),
            row.provider,
            row.model,
            made[-1].level if made else "primary",
            "failed",
            "overloaded",
            row.usage,
            max(0.0, now - head.created),
            None,
            stream_id=head.key.id,
            conversation_id=head.request.conversation_id or "",
            n=row.n,
        )


def priced(usage: Usage, provider: str, model: str, candidates: Sequence[Candidate]) -> Usage:
    """`usage` with what it costs at that provider, where one of `candidates` tells."""
    same = [one for one in candidates if one.provider.name == provider and one.model == model]
    return settled(usage, same[0].facts.prices if same else None)


def total(usages: Sequence[Usage]) -> Usage | None:
    """What all of them used together; None of nothing."""
    whole: Usage | None = None
    for usage in usages:
        whole = usage if whole is None else summed(whole, usage)
    return whole


def used_by(rows: Sequence[AttemptRow]) -> Usage | None:
    """What the attempts of `rows` used together, as far as it is known. One that was attached to again is its successor's."""
    return total([row.usage for row in rows if row.usage is not None and row.outcome != "detached"])


def _of(deltas: Sequence[Delta], n: int) -> Sequence[Delta]:
    """What attempt `n` gave."""
    begins = [index for index, delta in enumerate(deltas) if isinstance(delta, Attempt) and delta.n == n]
    if not begins:
        return ()
    rest = deltas[begins[-1] + 1 :]
    ends = [index for index, delta in enumerate(rest) if isinstance(delta, Attempt)]
    return rest[: ends[0]] if ends else rest


def _written(delta: Delta) -> str:
    """What a model wrote of `delta`, as text."""
    if not delta_size(delta):
        return ""
    built = msgspec.structs.asdict(delta)
    if built.get("mark") == "ready":
        # Its pieces have been counted.
        return ""
    return str(built.get("text") or built.get("arguments") or "")
