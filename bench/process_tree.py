"""What a process tree costs, read from /proc: CPU time, resident memory, and where it listens.

The tree of a root is every descendant and every member of the session the root leads, so a worker that
outlived its parent still counts. Linux only; nothing here starts or stops a process.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK_NANOSECONDS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LISTENING = "0A"
_LOOPBACK_6 = "00000000000000000000000001000000"
_MAPPED_4 = "0000000000000000FFFF0000"


@dataclass(frozen=True)
class _Stat:
    """The fields of /proc/PID/stat that matter here (proc(5)), times in clock ticks."""

    pid: int
    parent: int
    session: int
    own_ticks: int
    reaped_ticks: int
    resident_pages: int
    started_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may hold spaces and brackets; the fields after it begin behind the last bracket.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        own_ticks=int(fields[11]) + int(fields[12]),
        reaped_ticks=int(fields[13]) + int(fields[14]),
        resident_pages=int(fields[21]),
        started_ticks=int(fields[19]),
    )


def _tree(root: int) -> list[_Stat]:
    stats = [stat for entry in _PROC.iterdir() if entry.name.isdigit() and (stat := _stat(int(entry.name)))]
    found = {stat.pid for stat in stats if root in (stat.pid, stat.session)}
    grown = True
    while grown:
        children = {stat.pid for stat in stats if stat.parent in found} - found
        found |= children
        grown = bool(children)
    return [stat for stat in stats if stat.pid in found]


def members(root: int) -> dict[int, int]:
    """The process ids of the tree, each with the tick of its start: together they name a process for good."""
    return {stat.pid: stat.started_ticks for stat in _tree(root)}


def survivors(known: dict[int, int]) -> list[int]:
    """Those of the known members that still run; a process id that went to somebody else is left out."""
    return [pid for pid, started in known.items() if (stat := _stat(pid)) and stat.started_ticks == started]


def cpu_nanoseconds(root: int) -> int:
    """User and system time the tree has used since it started, ended children included.

    schedstat counts nanoseconds but only of threads that still run; stat counts ended threads too, in
    ticks of 10 ms. The larger of the two loses neither.
    """
    total = 0
    for stat in _tree(root):
        total += max(_threads_nanoseconds(stat.pid), stat.own_ticks * _TICK_NANOSECONDS)
        total += stat.reaped_ticks * _TICK_NANOSECONDS
    return total


def _threads_nanoseconds(pid: int) -> int:
    total = 0
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        # A thread or the process ended while we read, or the kernel keeps no schedstat: stat still knows.
        return total
    return total


def resident_megabytes(root: int) -> float:
    """Resident memory of the tree; pages that several of its processes share are counted in each."""
    return sum(stat.resident_pages for stat in _tree(root)) * _PAGE_BYTES / 1_000_000


def exposed_listeners(root: int) -> list[int]:
    """The TCP ports on which the tree listens on an address that is not loopback."""
    inodes = {inode for pid in members(root) for inode in _socket_inodes(pid)}
    ports: list[int] = []
    for table in ("tcp", "tcp6"):
        path = _PROC / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == _LISTENING and fields[9] in inodes and not _is_loopback(address):
                ports.append(int(port, 16))
    return ports


def _is_loopback(address: str) -> bool:
    # /proc/net writes addresses as host-order words: 127.x.y.z ends in 7F on a little-endian machine.
    if len(address) == 8:
        return address.endswith("7F")
    return address == _LOOPBACK_6 or (address.startswith(_MAPPED_4) and address.endswith("7F"))


def _socket_inodes(pid: int) -> list[str]:
    inodes: list[str] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            # A descriptor may be closed while we look; the others still count.
            with suppress(FileNotFoundError):
                link = str(entry.readlink())
                if link.startswith("socket:["):
                    inodes.append(link[8:-1])
    return inodes
