"""Chance from the interpreter's generator."""

import random


class SystemChance:
    """See `ports.chance.Chance`."""

    random = staticmethod(random.random)
