"""The spools of all processes that share a ledger: each appends to one of its own, and any of them may take in what is in any.

The first is the folder `spool`, the next `spool-2` and so on. A lock beside each says that a process writes there; the kernel lets go of
it with the process, however that ends. Who comes takes the first that is free, and goes on after what was left in it.
"""

import fcntl
import os
from pathlib import Path

from cauce.stores.sqlite.spool import Position, files, path_of

SPOOL = "spool"
"""What the first is called, in the ledger's folder."""


class Claim:
    """A spool that this process alone appends to, until it lets go."""

    def __init__(self, ledger: Path) -> None:
        """Claim the first that is free. Raises `OSError`."""
        self.number = 1
        while (lock := _locked(ledger, self.number, fcntl.LOCK_EX)) is None:
            self.number += 1
        self._lock = lock
        self.folder = folder_of(ledger, self.number)
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def let_go(self) -> None:
        """Others may have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def folder_of(ledger: Path, number: int) -> Path:
    """Where spool `number` is."""
    return ledger / (SPOOL if number == 1 else f"{SPOOL}-{number}")


def is_claimed(ledger: Path, number: int) -> bool:
    """Whether a process that lives appends to spool `number`."""
    lock = _locked(ledger, number, fcntl.LOCK_SH)
    if lock is None:
        return True
    os.close(lock)
    return False


def end_of(folder: Path) -> Position:
    """Up to where the spool in `folder` reaches now. Raises `FileNotFoundError` where files of it go away meanwhile."""
    known = files(folder)
    return Position(known[-1], path_of(folder, known[-1]).stat().st_size) if known else Position(0, 0)


def _locked(ledger: Path, number: int, how: int) -> int | None:
    """The open lock of spool `number`; None if another has it."""
    descriptor = os.open(f"{folder_of(ledger, number)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
