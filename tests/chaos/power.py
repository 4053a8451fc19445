"""A disk that loses what was not synced: what SQLite writes and syncs is noted from inside the server, and the file is cut by it from outside.

A shim around the system's own way of SQLite to files (a VFS), over the very library that `sqlite3` uses. It only looks: all goes on to
where it would have gone. What it knows is in a small file beside the write-ahead log that outlives a SIGKILL and is shared by all nodes.

    in the node      watch()        before anything is opened; watch(file) also writes down each write (`w`) and sync (`s`) there
    in the harness   cut(file)      while no node runs
"""

import _sqlite3
import ctypes
import fcntl
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WAL = "streams.db-wal"
_NOTES = ".unsynced"
_SYNCED = 2**63 - 1
"""Where unsynced bytes begin when there are none."""

_NOTED = struct.Struct("<qq")
"""Where bytes begin that nobody has synced, and where those begin that are being synced now."""

_NOTHING = _NOTED.pack(_SYNCED, _SYNCED)

_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs of version 3 (https://www.sqlite.org/c3ref/vfs.html)."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 15),
    )


class _Methods(ctypes.Structure):
    """sqlite3_io_methods of version 3 (https://www.sqlite.org/c3ref/io_methods.html)."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", ctypes.c_void_p),
        ("truncate", ctypes.c_void_p),
        ("sync", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 13),
    )


class _Notes:
    """What is known of one write-ahead log; any number of threads and processes write it."""

    def __init__(self, wal: str) -> None:
        self._file = os.open(f"{wal}{_NOTES}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()

    def change(self, how: Callable[[int, int], tuple[int, int]]) -> None:
        """Note what `how` makes of both places."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                known = os.pread(self._file, _NOTED.size, 0) or _NOTHING
                os.pwrite(self._file, _NOTED.pack(*how(*_NOTED.unpack(known))), 0)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)


class _Shim:
    """What stands between. It lives as long as the process: SQLite holds on to all of it."""

    def __init__(self, library: ctypes.CDLL, said: int | None) -> None:
        self._said = said
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
        library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), ctypes.c_int]
        system = library.sqlite3_vfs_find(None)
        self._opened = _OPEN(system.contents.open)
        self._open = _OPEN(self._on_open)
        self.vfs = _Vfs.from_buffer_copy(system.contents)
        self.vfs.name = b"noted"
        self.vfs.open = ctypes.cast(self._open, ctypes.c_void_p).value
        self._tables: dict[int, tuple[_Methods, Any, Any]] = {}
        self._logs: dict[str, _Notes] = {}
        self._notes: dict[int, _Notes] = {}
        """By the address of each open file."""
        if library.sqlite3_vfs_register(self.vfs, 1):
            raise RuntimeError("SQLite does not take the shim")

    def _on_open(self, vfs: int, name: int, file: int, flags: int, given: int) -> int:
        status = self._opened(vfs, name, file, flags, given)
        path = os.fsdecode(ctypes.string_at(name)) if name else ""
        if status == 0 and path.endswith(_WAL):
            if path not in self._logs:
                self._logs[path] = _Notes(path)
            self._notes[file] = self._logs[path]
            methods = ctypes.c_void_p.from_address(file)
            assert methods.value is not None
            methods.value = self._watched(methods.value)
        return status

    def _watched(self, methods: int) -> int:
        """The address of the same methods, of which two are ours."""
        if methods not in self._tables:
            table = _Methods.from_buffer_copy(_Methods.from_address(methods))
            write, sync = _WRITE(table.write), _SYNC(table.sync)

            def on_write(file: int, data: int, size: int, offset: int) -> int:
                self._say(b"w")
                self._notes[file].change(lambda unsynced, syncing: (min(unsynced, offset), syncing))
                return write(file, data, size, offset)

            def on_sync(file: int, flags: int) -> int:
                self._say(b"s")
                notes = self._notes[file]
                notes.change(lambda unsynced, syncing: (_SYNCED, min(unsynced, syncing)))
                status = sync(file, flags)
                if status == 0:
                    notes.change(lambda unsynced, syncing: (unsynced, _SYNCED))
                return status

            ours = (_WRITE(on_write), _SYNC(on_sync))
            table.write = ctypes.cast(ours[0], ctypes.c_void_p).value
            table.sync = ctypes.cast(ours[1], ctypes.c_void_p).value
            self._tables[methods] = (table, *ours)
        return ctypes.addressof(self._tables[methods][0])

    def _say(self, what: bytes) -> None:
        if self._said is not None:
            os.write(self._said, what)


_SHIMS: list[_Shim] = []


def watch(told: Path | None = None) -> None:
    """Note what is synced from now on, and say each of it in `told`, which processes may share. The library is the one that `sqlite3` has
    loaded: its symbols are found through that module."""
    if not _SHIMS:
        said = None if told is None else os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _SHIMS.append(_Shim(ctypes.CDLL(_sqlite3.__file__), said))


def cut(file: Path) -> int:
    """Do to the write-ahead log of `file` what the end of the power does to it; returns how many bytes went. Nobody has it open."""
    wal = file.with_name(f"{file.name}-wal")
    notes = Path(f"{wal}{_NOTES}")
    if not wal.exists() or not notes.exists():
        return 0
    size = wal.stat().st_size
    synced = min(size, *_NOTED.unpack(notes.read_bytes()))
    os.truncate(wal, synced)
    notes.write_bytes(_NOTHING)
    return size - synced


class Disk:
    """The disk of `file`, as `cauce.testing.chaos.beneath.Backing`: its power goes with that of the nodes."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def down(self, *, whole: bool) -> None:
        """It has no process of its own."""

    async def up(self, *, whole: bool) -> int:
        return 0 if whole else cut(self._file)
