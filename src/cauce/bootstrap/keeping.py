"""What outlives the process, and where: the data folder of a server, or the memory of a command."""

import fcntl
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import msgspec

from cauce.config import Config, ConfigError
from cauce.ports.clock import Clock
from cauce.ports.ledger import Entry, Ledger, LedgerStanding
from cauce.ports.responses import Responses
from cauce.ports.usage import Feedback, Usage
from cauce.stores.inproc.ledger import InprocLedger
from cauce.stores.inproc.responses import InprocResponses
from cauce.stores.sqlite.ledger import SqliteLedger
from cauce.stores.sqlite.reading import FILE, Reading
from cauce.stores.sqlite.responses import FILE as RESPONSES
from cauce.stores.sqlite.responses import SqliteResponses
from cauce.stores.sqlite.schema import SchemaError
from cauce.system.ids import RandomIds

LEDGER = "ledger"
"""The ledger's folder in the data folder."""

_DAY = 86_400.0

logger = logging.getLogger("cauce.bootstrap")


class FolderTaken(ConfigError):
    """Another process has the data folder."""


class Books(Ledger, Usage, Feedback, Protocol):
    """A ledger that can be read, and that feedback is joined to."""

    def last(self, provider: str) -> Entry | None:
        """The newest entry of that provider in this process."""
        ...

    @property
    def standing(self) -> LedgerStanding:
        """How it stands now."""
        ...


class Kept(msgspec.Struct, frozen=True):
    """`start` and `stop` are what the stores need around their work: `stop` after everything that may still write. `node` is what the
    books are called beside those of other nodes, `workers` how many processes write them."""

    books: Books
    responses: Responses
    start: Callable[[], None]
    stop: Callable[[], Awaitable[None]]
    node: str
    workers: Callable[[], int]


def keeping(config: Config, clock: Clock, *, on_disk: bool, joins: bool = False) -> Kept:
    """The stores: in the data folder, which must be this process's alone, or in memory. Raises `ConfigError`.

    `joins`: the data folder is another process's, and only the ledger is kept there, which they share.
    """
    age = config.responses.keep * _DAY
    if not on_disk and not joins:
        books, responses = InprocLedger(), InprocResponses(clock, keep=age)
        return Kept(books, responses, _nothing, _nothing_to_wait_for, RandomIds().new("node"), lambda: 1)
    with usable(config.data_dir):
        ledger = SqliteLedger(config.data_dir / LEDGER, clock, config.ledger)
        file = config.data_dir / RESPONSES
        most = config.responses.max_bytes
        kept = None if joins else SqliteResponses(file, clock, keep=age, most_bytes=most)

    async def stop() -> None:
        if kept is not None:
            await kept.aclose()
        await ledger.stop()

    responses = InprocResponses(clock, keep=age) if kept is None else kept
    return Kept(ledger, responses, ledger.start, stop, ledger.node, lambda: ledger.workers)


def ledger_on_disk(config: Config, clock: Clock) -> Reading | None:
    """The ledger of the data folder, to be read only: also beside the server that keeps it. None if there is none."""
    folder = config.data_dir / LEDGER
    if not (folder / FILE).is_file():
        return None
    return Reading(folder, clock.now)


def lock(config: Config) -> IO[str]:
    """The data folder, ours alone for as long as the file is open. Raises `ConfigError`, `FolderTaken` if another has it."""
    folder = config.data_dir
    with usable(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = (folder / "lock").open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held.close()
            raise FolderTaken(
                f"another Cauce uses the data folder {folder}: stop it, or set another [server] data_dir"
            ) from error
        return held


@contextmanager
def usable(folder: Path, named: str = "[server] data_dir") -> Generator[None]:
    """What is done in `folder`, of which the configuration says by `named` where it is. Raises `ConfigError` where that cannot be done."""
    try:
        yield
    except SchemaError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} cannot be used: {error.strerror or error}: set another {named}"
        ) from error


@contextmanager
def streams_folder(config: Config) -> Generator[Path]:
    """What is done where streams and conversations have their files: in a folder that servers may share, else in the data folder."""
    folder = config.streams.folder
    where, named = (Path(folder).expanduser(), "[streams] folder") if folder else (config.data_dir, "[server] data_dir")
    with usable(where, named):
        yield where


def _nothing() -> None:
    return None


async def _nothing_to_wait_for() -> None:
    return None
