"""A wall clock that is moved from outside: how far it is ahead stands in a small file beside the configuration (`Node.clock`)."""

import mmap
import os
import struct
from pathlib import Path

from cauce.system.clock import SystemClock

_AHEAD = struct.Struct("d")


def moved_by(file: Path) -> type[SystemClock]:
    """A clock that looks at `file`, which is made if it is not there."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(handle, _AHEAD.size)
    there = mmap.mmap(handle, _AHEAD.size)
    os.close(handle)

    class MovedClock(SystemClock):
        """What does not jump does not: `monotonic`."""

        @staticmethod
        def now() -> float:
            (ahead,) = _AHEAD.unpack_from(there)
            return SystemClock.now() + ahead

    return MovedClock
