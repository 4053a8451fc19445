"""How many calls at once an upstream takes that does not say: learned from what it refuses, as TCP learns how fast a line is.

Until it refuses one, all go there. Then as many go at once as it had under way when it refused. One more tries after a while, and each
time after twice as long; if it is taken, two more go for each that is answered, until one is refused (slow start). If it refuses one while
it has no other under way, it is asked too often: then calls are spaced, further apart after each refusal and closer after each answer;
while it answers none at all, one tries, each time after twice as long. What it asks to wait is waited for by all.

No I/O, no clock: times are readings of a monotonic clock, in seconds, that callers bring.
"""

from math import inf

from cauce.ports.limiter import SOON

FIRST_TRY = 1.0
"""Seconds after a refusal until one more than it took may try."""

LAST_TRY = 30.0
"""Seconds between two that try in vain, at most."""

MORE = 2
"""How many more go for each that is answered, while it takes more than was known."""

QUIET = 30.0
"""Seconds without a refusal after which each answer halves the time between calls; twice as many each time that was in vain."""

LONGEST_QUIET = 480.0
"""Seconds, at most."""

FORGOTTEN = 60.0
"""Seconds without a refusal, and with no pause, after which an upstream that nobody asks is taken to be as if it had never refused."""

FIRST_GAP = 0.25
"""Seconds before the next call when two in a row were refused, and between calls after that; a third one waits twice as long, and so on."""

LAST_GAP = 0.02
"""Seconds between calls that are none any more."""

LONGEST_PAUSE = 30.0
"""Seconds between two calls, at most, unless the upstream asks for more."""

LONGEST_ASKED = 60.0
"""Seconds after which one tries, however long the upstream asks to be left alone: it may be well before."""

WIDER = 1.5
"""What the time between calls grows by with a refusal after an answer."""

MUCH_WIDER = 2.0
"""The same, while more is refused than is allowed: the time is far from what it has to be."""

CLOSER = 0.97
"""What is left of it after an answer."""

LITTLE_CLOSER = 0.99
"""The same, while more is refused than is allowed."""

AT_FIRST, EARNED, SAVED = 3.0, 0.2, 10.0
"""Refusals of calls that went by themselves, which are load in vain: so many at first, a fifth of one more for each answer, and so many in
all. It is the budget of retries."""

_DOUBLINGS = 8
"""From the first gap these lead beyond the longest pause."""


class Concurrency:
    """What one upstream takes. `most` calls at once (infinite: all), none before `pause`, and then `gap` seconds apart. `until` is
    when it wants to be asked again, by its own word."""

    __slots__ = (
        "_before",
        "_credit",
        "_growing",
        "_quiet",
        "_refusals",
        "_refused_at",
        "_spaced",
        "_tries",
        "_try_at",
        "gap",
        "most",
        "pause",
        "under_way",
        "until",
    )

    def __init__(self) -> None:
        self.under_way = 0
        self.most = inf
        self.pause = 0.0
        self.until = 0.0
        self.gap = 0.0
        self._growing = False
        """It takes more than was known, or nothing is known of how many it takes."""
        self._try_at = 0.0
        """When one more than it took may try."""
        self._tries = FIRST_TRY
        """Seconds from the next one that tries in vain to the one after it."""
        self._refusals = 0
        """In a row, of what it might have taken."""
        self._refused_at = 0.0
        self._spaced = 0.0
        """The pause that is there only since a call went."""
        self._credit = AT_FIRST
        """Refusals that it may still answer with until it is asked much less."""
        self._quiet = QUIET
        self._before = 0.0
        """The time between calls before it was halved; 0: it was not."""

    @property
    def limited(self) -> bool:
        """Whether it has refused a call lately."""
        return self.most != inf

    def forgotten(self, now: float) -> bool:
        """Whether its refusals are so long ago that they say nothing any more."""
        return not self.under_way and now - max(self._refused_at, self.pause) > FORGOTTEN

    def wait(self, now: float) -> float:
        """Seconds until one more may go; 0 if it goes now, which the caller then has to count in `under_way`."""
        if now < self.pause:
            return self.pause - now
        if self.forgotten(now):
            self.most, self.gap, self.until, self._refusals = inf, 0.0, 0.0, 0
            self._credit, self._quiet, self._before = AT_FIRST, QUIET, 0.0
            return 0.0
        if self.under_way >= self.most:
            if now < self._try_at:
                return min(self._try_at - now, SOON)
            self._try_at = now + self._tries
        elif not self.under_way:
            # What becomes of it is waited for first.
            self._try_at = max(self._try_at, now + FIRST_TRY)
        if self.gap:
            self.pause = self._spaced = now + self.gap
        return 0.0

    def kept_back(self, now: float) -> None:
        """A call that `wait` let go did not go after all, and is not under way: another may, in its place."""
        if self.pause == self._spaced:
            self.pause = min(self.pause, now)
        if self.under_way >= self.most:
            self._try_at = min(self._try_at, now)

    def room(self, now: float) -> bool:
        """Whether one more may go."""
        return now >= self.pause and self.under_way < self.most

    def answered(self, now: float, *, beyond: bool = False) -> bool:
        """It answers one, which is still under way, and was `beyond` what it was known to take. Whether it takes more since."""
        self._refusals = 0
        self.until = 0.0
        self._credit = min(SAVED, self._credit + EARNED)
        if self.gap:
            self._closer(now)
        if beyond:
            self._growing = True
            self._tries = FIRST_TRY
            self.most = max(self.most, float(self.under_way))
        if not self._growing or self.under_way < self.most:
            return False
        self.most += MORE
        return True

    def _closer(self, now: float) -> None:
        if now - self._refused_at <= self._quiet:
            self.gap *= CLOSER if self._credit > 0 else LITTLE_CLOSER
        else:
            self._before = self.gap
            self.gap *= 0.5
        if self.gap < LAST_GAP:
            self.gap, self._before, self._quiet = 0.0, 0.0, QUIET

    def _wider(self) -> None:
        if self._before:
            # That was too much at a time: back to what was right.
            self.gap, self._before, self._quiet = self._before, 0.0, min(2 * self._quiet, LONGEST_QUIET)
            return
        wider = WIDER if self._credit > 0 else MUCH_WIDER
        self.gap = min(max(self.gap, LAST_GAP) * wider, LONGEST_PAUSE)

    def refused(self, now: float, asked: float | None, *, began: float = 0.0, beyond: bool = False) -> None:
        """It refused one, which is not under way any more, went at `began`, and was `beyond` what it was known to take. `asked`: seconds
        that it wants to be left alone (None: it does not say)."""
        # Of those that went together, the first has said it all.
        again = began > self._refused_at and not beyond
        self._refused_at = now
        self.most = min(self.most, max(1.0, float(self.under_way)))
        self._growing = not self.under_way
        self._tries = min(2 * self._tries, LAST_TRY) if beyond else FIRST_TRY
        pause = self.gap
        if again or not self.under_way:
            self._refusals += 1
            self._credit -= again
            if self._refusals > 1:
                pause = min(FIRST_GAP * 2 ** min(self._refusals - 2, _DOUBLINGS), LONGEST_PAUSE)
                self.gap = self.gap or FIRST_GAP
            elif self.gap or (again and not self.under_way):
                self._wider()
                pause = self.gap
        if asked is not None:
            self.until = now + asked
            # Who asks for no time at all, and refuses again, is not asked as fast as it answers.
            pause = max(min(asked, LONGEST_ASKED), min(pause, SOON))
        self.pause = max(self.pause, now + pause)
        self._try_at = self.pause + self._tries
