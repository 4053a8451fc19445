"""How often and how long an answer that broke is tried to be gone on with, and how long it waits between two tries."""

from cauce.domain.errors import CauceError
from cauce.ports.chance import Chance
from cauce.ports.clock import Clock
from cauce.ports.resilience import RecoverySettings

_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
"""Seconds before another try, growing, after one whose provider answered to no use, and said nothing of when to come again."""

_LONGEST_ABSENCE = 30.0
"""Seconds before another try where nobody answered: twice as long each time, up to this and at random up to half as long, so that those
who lost one provider together do not come back to it together."""


class Patience:
    """With one answer. `deadline` is on the clock's own time."""

    def __init__(self, clock: Clock, chance: Chance, deadline: float | None) -> None:
        self._clock = clock
        self._chance = chance
        self._deadline = deadline
        self.tries = 0
        """Attempts that were made to go on with it."""
        self._away = 0
        """How many of the last of them nobody answered."""
        self._began = self._progress = clock.monotonic()

    def began(self, before: float) -> None:
        """The answer began so many seconds before."""
        self._began -= before

    def progressed(self) -> None:
        """More of it has come."""
        self._progress = self._clock.monotonic()

    def tried(self) -> None:
        """An attempt is made."""
        self.tries += 1
        self._away += 1

    def answered(self) -> None:
        """Somebody has answered it."""
        self._away = 0

    def lasts(self, settings: RecoverySettings) -> bool:
        """Whether another attempt may be made now."""
        now = self._clock.monotonic()
        if self.tries >= settings.attempts or (self._deadline is not None and now >= self._deadline):
            return False
        return now - self._began <= settings.age and now - self._progress <= settings.no_progress

    async def pause(self, error: CauceError, settings: RecoverySettings) -> bool:
        """Wait before another try, as long as `error` asks for; False where that is too long."""
        pause = min(_LONGEST_PAUSE, _PAUSE * self.tries)
        if self._away:
            pause = min(_LONGEST_ABSENCE, _PAUSE * 2 ** min(self._away, 20)) * (1 - self._chance.random() / 2)
        if error.retry_after is not None:
            pause = max(pause, error.retry_after)
        until = self._clock.monotonic() + pause
        if until - self._progress > settings.no_progress or (self._deadline is not None and until >= self._deadline):
            return False
        await self._clock.sleep(pause)
        return True
