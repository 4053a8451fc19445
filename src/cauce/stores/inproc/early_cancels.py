"""Cancels of streams that are not there yet, in memory."""

from cauce.domain.stream import StreamKey
from cauce.ports.clock import Clock
from cauce.ports.stream_log import EARLY, MOST_EARLY


class EarlyCancels:
    """Each is remembered for `EARLY` seconds, `MOST_EARLY` of one principal at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._principals: dict[str, dict[str, tuple[float, str]]] = {}
        """For each id of a principal until when its cancel is remembered, and its reason: the oldest ones first."""

    def remember(self, key: StreamKey, reason: str) -> None:
        """The stream was cancelled before it was made."""
        own = self._principals.setdefault(key.principal, {})
        own.pop(key.id, None)
        own[key.id] = (self._clock.now() + EARLY, reason)
        if len(own) > MOST_EARLY:
            del own[next(iter(own))]

    def take(self, key: StreamKey) -> str | None:
        """The reason, if the stream that is made now was cancelled before; it is forgotten by this."""
        until, reason = self._principals.get(key.principal, {}).pop(key.id, (0.0, ""))
        return reason if until > self._clock.now() else None

    def sweep(self) -> int:
        """Forget those whose time is over; returns how many."""
        now = self._clock.now()
        swept = 0
        for principal, own in list(self._principals.items()):
            while own and own[oldest := next(iter(own))][0] <= now:
                del own[oldest]
                swept += 1
            if not own:
                del self._principals[principal]
        return swept
