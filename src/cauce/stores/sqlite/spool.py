"""Records on their way into the ledger: files that are only ever appended to, so that taking a record is one write.

| bytes | meaning |
|---|---|
| 8 | `cauceL1` and a newline, once per file |
| 4 | length of a record, little-endian |
| 4 | its CRC-32 |
| length | the record |

A write that has returned survives the end of this process, however it ends; it is not synced, so it may not survive that of the
machine. What is torn at the end of a file was never taken. Files are numbered; a start begins a new one, so that a torn one is
never gone on with.
"""

import logging
import os
import struct
import threading
from collections import deque
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

MAGIC = b"cauceL1\n"

MOST_FILE = 16 * 1024 * 1024
"""Bytes after which a new file is begun."""

MOST_BACKLOG = 8 * 1024 * 1024
"""Bytes of records that are kept in memory while they cannot be written."""

_HEAD = struct.Struct("<II")
_LENGTH = _HEAD.size
_SUFFIX = ".spool"
_READ = 256 * 1024
_MOST_RECORD = 64 * 1024

logger = logging.getLogger("cauce.ledger")


class Position(NamedTuple):
    """Everything before `byte` of file number `file`, and all files before that one."""

    file: int
    byte: int


class Spool:
    """The writing end. All of it may be called from any thread."""

    def __init__(self, folder: Path, after: int = 0, most_file: int = MOST_FILE) -> None:
        """Begin a new file in `folder`, numbered higher than `after` and than those there. Raises `OSError`."""
        self.folder = folder
        self.lost = 0
        """Records that could not be kept, not even in memory."""
        self._most_file = most_file
        self._lock = threading.Lock()
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._file = max([after, *files(folder)])
        self._byte = 0
        self._descriptor = -1
        self._begin()

    @property
    def end(self) -> Position:
        """Where the next record goes."""
        return Position(self._file, self._byte)

    @property
    def waiting(self) -> int:
        """How many records wait in memory because they cannot be written."""
        return len(self._backlog)

    @property
    def backlog(self) -> tuple[bytes, ...]:
        """Records that wait in memory because they cannot be written, oldest first."""
        with self._lock:
            return tuple([frame[_LENGTH:] for frame in self._backlog])

    def append(self, record: bytes) -> tuple[int, int, int] | None:
        """Take `record`: one write. Returns the number of its file and the bytes there that it begins and ends at.

        Never raises: what cannot be written waits in memory, within bounds, and is tried again. None then.
        """
        frame = _HEAD.pack(len(record), crc32(record)) + record
        with self._lock:
            if not self._backlog and self._write(frame):
                return self._file, self._byte - len(frame), self._byte
            if self._backlog_bytes + len(frame) > MOST_BACKLOG:
                self.lost += 1
                return None
            self._backlog.append(frame)
            self._backlog_bytes += len(frame)
            if len(self._backlog) == 1:
                logger.error("the ledger's spool in %s cannot be written: entries are kept in memory", self.folder)
            else:
                self._catch_up()
            return None

    def retry(self) -> None:
        """Try to write what waits in memory."""
        if self._backlog:
            with self._lock:
                self._catch_up()

    def close(self) -> None:
        """Take nothing more."""
        self.retry()
        self.lost += len(self._backlog)
        if self.lost:
            logger.error("%d ledger entries are lost: the spool in %s could not be written", self.lost, self.folder)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _catch_up(self) -> None:
        while self._backlog:
            if not self._write(self._backlog[0]):
                return
            self._backlog_bytes -= len(self._backlog.popleft())
        logger.warning("the ledger's spool in %s can be written again; %d entries are lost", self.folder, self.lost)

    def _write(self, frame: bytes) -> bool:
        """Whether all of `frame` is in the file; if not, nothing of it is."""
        try:
            if self._byte >= self._most_file or self._descriptor < 0:
                self._begin()
            written = os.write(self._descriptor, frame)
        except OSError:
            return False
        if written != len(frame):
            self._undo()
            return False
        self._byte += written
        return True

    def _begin(self) -> None:
        """Go on in the next file."""
        path = path_of(self.folder, self._file + 1)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, MAGIC) != len(MAGIC):
                raise OSError(f"{path} could not be begun")
        except OSError:
            # It must not stand in the way of the next try.
            os.close(descriptor)
            path.unlink()
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._file += 1
        self._byte = len(MAGIC)
        self._descriptor = descriptor

    def _undo(self) -> None:
        """Take back a write that was cut short. Where even that fails, the file ends here."""
        try:
            os.ftruncate(self._descriptor, self._byte)
        except OSError:
            os.close(self._descriptor)
            self._descriptor = -1


def files(folder: Path) -> list[int]:
    """The numbers of the files in `folder`, oldest first."""
    return sorted([int(path.stem) for path in folder.glob("*" + _SUFFIX) if path.stem.isdigit()])


def path_of(folder: Path, number: int) -> Path:
    """Where file `number` of the spool in `folder` is."""
    return folder / f"{number:08}{_SUFFIX}"


def read(folder: Path, after: Position) -> tuple[list[bytes], Position]:
    """Some of the records after `after`, oldest first, and the position after them; none when there are no more now.

    Raises `FileNotFoundError` when the file has been deleted meanwhile: then everything in it is in the ledger.
    """
    position = after
    while True:
        if position.file not in (known := files(folder)):
            following = [number for number in known if number > position.file]
            if not following:
                return [], position
            position = Position(following[0], 0)
        final = known[-1] > position.file
        data = _part(path_of(folder, position.file), position.byte)
        records, used = _frames(data, fresh=position.byte == 0)
        if used:
            position = Position(position.file, position.byte + used)
        if records or not final:
            return records, position
        if used == 0:
            if data:
                path = path_of(folder, position.file)
                logger.warning("%s ends in a torn record of %d bytes, which was never taken", path, len(data))
            position = Position(next(number for number in known if number > position.file), 0)


def delete_before(folder: Path, position: Position) -> None:
    """Delete the files that nothing is left to be read in."""
    for number in files(folder):
        if number < position.file:
            path_of(folder, number).unlink(missing_ok=True)


def _part(path: Path, start: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, _READ, start)
    finally:
        os.close(descriptor)


def _frames(data: bytes, *, fresh: bool) -> tuple[list[bytes], int]:
    """The whole records in `data`, and how many bytes of it they take. `fresh`: `data` is the beginning of a file."""
    records: list[bytes] = []
    at = 0
    if fresh:
        if not data.startswith(MAGIC):
            return records, 0
        at = len(MAGIC)
    while at + _LENGTH <= len(data):
        length, check = _HEAD.unpack_from(data, at)
        record = data[at + _LENGTH : at + _LENGTH + length]
        if length > _MOST_RECORD or len(record) != length or crc32(record) != check:
            break
        records.append(record)
        at += _LENGTH + length
    return records, at
