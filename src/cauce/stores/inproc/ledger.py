"""The ledger in memory: the newest entries."""

from collections import deque

from cauce.ports.ledger import Entry

MOST_ENTRIES = 10_000


class InprocLedger:
    """See `ports.ledger.Ledger`. Keeps the newest `most` entries."""

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self._entries: deque[Entry] = deque(maxlen=most)
        self._last: dict[str, Entry] = {}

    def record(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._last[entry.provider] = entry

    def entries(self) -> tuple[Entry, ...]:
        """The entries kept, oldest first."""
        return tuple(self._entries)

    def last(self, provider: str) -> Entry | None:
        """The newest entry of that provider."""
        return self._last.get(provider)
