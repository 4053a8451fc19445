"""Chance that a test decides: what waits or picks at random then always does the same.

chance = FakeChance(0.5, 0.0)     # the first draw is 0.5, all further ones are 0.0
"""


class FakeChance:
    """See `ports.chance.Chance`. Gives `draws` in turn; the last one for ever."""

    def __init__(self, *draws: float) -> None:
        self._draws = draws or (0.5,)
        self._drawn = 0

    def random(self) -> float:
        draw = self._draws[min(self._drawn, len(self._draws) - 1)]
        self._drawn += 1
        return draw
