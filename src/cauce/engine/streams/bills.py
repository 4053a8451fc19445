"""What the attempts behind streams came to: the ledger tells it to the streams of this process, so that their log says the same."""

from collections.abc import Callable, Sequence

import msgspec

from cauce.domain.delta import Attempt, Delta, delta_size
from cauce.domain.price import Prices, cost, settled
from cauce.domain.stream import AttemptRow, Head
from cauce.domain.tokens import estimate_tokens
from cauce.domain.usage import Usage, summed
from cauce.engine.estimator import Estimator
from cauce.engine.streams.options import StreamOptions
from cauce.ports.ledger import Entry, Ledger
from cauce.ports.provider import Candidate, named

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

    def received(self, past: "Past", row: AttemptRow) -> Usage:
        """What an attempt has used whose process is gone, estimated from what of it is in the log: it read the request, and wrote that."""
        written = "".join([piece for delta in _of(past.deltas, row.n) if (piece := _written(delta))])
        tokens = estimate_tokens(written) if written else 0
        known = self._estimator.estimate(past.head.request, named(row.provider, row.model))
        return settled(Usage(known, tokens, estimated=True), past.prices(row))

    def entry(self, past: "Past", row: AttemptRow, now: float) -> Entry | None:
        """What the ledger gets of an attempt that `row` closes in place of the process that made it. None: nobody is known to pay."""
        head, options = past.head, past.options
        made = [delta for delta in past.deltas if isinstance(delta, Attempt) and delta.n == row.n]
        if options.scope is None or row.usage is None:
            return None
        prices = past.prices(row)
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
            None if prices is None else cost(row.usage, prices),
            "" if prices is None else prices.snapshot,
            stream_id=head.key.id,
            conversation_id=head.request.conversation_id or "",
            endpoint="chat" if head.request.prompt is None else "completions",
            deployment=past.deployment(row),
            n=row.n,
        )


class Past(msgspec.Struct, frozen=True):
    """What is known of a stream whose process is gone: its log, and who may answer it as far as is known here."""

    head: Head
    options: StreamOptions
    deltas: Sequence[Delta]
    candidates: Sequence[Candidate]

    def prices(self, row: AttemptRow) -> Prices | None:
        """What that attempt is priced by, where it is known here."""
        same = _same(row.provider, row.model, self.candidates)
        return same[0].facts.prices if same else None

    def deployment(self, row: AttemptRow) -> str:
        """Where that attempt was made, as its row says; of one that does not, where the provider has but one place."""
        places = {one.deployment for one in _same(row.provider, row.model, self.candidates)}
        return row.deployment or (places.pop() if len(places) == 1 else "")


def priced(usage: Usage, provider: str, model: str, candidates: Sequence[Candidate]) -> Usage:
    """`usage` with what it costs at that provider, where one of `candidates` tells."""
    same = _same(provider, model, candidates)
    return settled(usage, same[0].facts.prices if same else None)


def _same(provider: str, model: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.provider.name == provider and one.model == model]


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
    """What attempt `n` gave, and those before it whose stream it reads on: their bill is its own."""
    begins = [(index, delta) for index, delta in enumerate(deltas) if isinstance(delta, Attempt)]
    mine = max([place for place, (_, attempt) in enumerate(begins) if attempt.n == n], default=None)
    if mine is None:
        return ()
    first = mine
    while first and begins[first][1].strategy == "attach":
        first -= 1
    end = begins[mine + 1][0] if mine + 1 < len(begins) else len(deltas)
    return deltas[begins[first][0] + 1 : end]


def _written(delta: Delta) -> str:
    """What a model wrote of `delta`, as text."""
    if not delta_size(delta):
        return ""
    built = msgspec.structs.asdict(delta)
    if built.get("mark") == "ready":
        # Its pieces have been counted.
        return ""
    return str(built.get("text") or built.get("arguments") or "")
