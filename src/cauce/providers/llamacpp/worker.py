"""The worker: reads commands, runs models, says what they write. Started by `process.py`; the server never imports llama.cpp.

Two threads: one reads commands, so that a stop is seen between tokens; the other does the work.
"""

import importlib
import logging
import os
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO

import msgspec

from cauce.providers.llamacpp.model import Model, Refused
from cauce.providers.llamacpp.protocol import (
    Absent,
    Count,
    Counted,
    Event,
    Failed,
    Generate,
    Loaded,
    Piece,
    Stop,
    decode_command,
    encode,
)

logger = logging.getLogger("cauce.llamacpp.worker")


class Session:
    """State of a worker. `library` is llama-cpp-python, `said` where events are written."""

    def __init__(self, library: Any, said: BinaryIO) -> None:
        self._library = library
        self._said = said
        self._saying = threading.Lock()
        self._commands: queue.SimpleQueue[Generate | Count] = queue.SimpleQueue()
        self._stopped: set[int] = set()
        self._model: Model | None = None
        self._changing = threading.Lock()
        """Held while the model is loaded, let go of or looked at from the other thread."""

    def listen(self, heard: BinaryIO) -> None:
        """Take commands until the server is gone; then the process ends, whatever it is doing."""
        status = 0
        try:
            for line in heard:
                command = decode_command(line)
                if isinstance(command, Stop):
                    self._stopped.add(command.number)
                elif isinstance(command, Generate) or not self._count_beside(command):
                    self._commands.put(command)
        except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
            logger.error("a command cannot be read: %s", error)
            status = 2
        finally:
            os._exit(status)

    def work(self) -> None:
        """Do what is asked, one after the other."""
        while True:
            command = self._commands.get()
            try:
                self._do(command)
            except Refused as refused:
                self._say(Failed(command.number, refused.kind, str(refused), refused.field))
            except Exception:
                logger.exception("command %d broke", command.number)
                self._say(Failed(command.number, "broken", "llama.cpp failed while it ran the model"))
                os._exit(1)
            self._stopped.discard(command.number)

    def _do(self, command: Generate | Count) -> None:
        number = command.number
        model = self._loaded(command)
        if isinstance(command, Count):
            self._say(Counted(number, len(model.tokens(command.prompt))))
            return

        def stopped() -> bool:
            return number in self._stopped

        def wrote(text: str) -> None:
            self._say(Piece(number, text))

        self._say(model.generate(command, stopped, wrote))

    def _loaded(self, command: Generate | Count) -> Model:
        """The model of `command`. There is memory for one: another one goes first."""
        with self._changing:
            if self._model is None or self._model.file != command.model:
                if self._model is not None:
                    self._model.close()
                    self._model = None
                self._model = Model(self._library, command.model)
        self._say(Loaded(command.number))
        return self._model

    def _count_beside(self, command: Count) -> bool:
        """Count while the other thread may be writing, if the model is the one that is loaded. Whether it was answered."""
        if not self._changing.acquire(blocking=False):
            return False
        try:
            if self._model is None or self._model.file != command.model:
                return False
            self._say(Counted(command.number, len(self._model.tokens(command.prompt))))
        except Refused as refused:
            self._say(Failed(command.number, refused.kind, str(refused), refused.field))
        finally:
            self._changing.release()
        return True

    def _say(self, event: Event) -> None:
        with self._saying:
            self._said.write(encode(event) + b"\n")
            self._said.flush()


def main() -> None:
    """Serve the process that started us."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    # Ctrl-C in a terminal reaches the whole group: the server decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries that print must not spoil what we say.
    said = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        library = importlib.import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "llama_cpp"
        what = "llama-cpp-python is not installed" if missing else f"llama-cpp-python does not run here: {error}"
        said.write(encode(Absent(f"{what}; install it with: pip install 'cauce[local]'")) + b"\n")
        said.flush()
        return
    session = Session(library, said)
    threading.Thread(target=session.listen, args=(sys.stdin.buffer,), daemon=True).start()
    session.work()


if __name__ == "__main__":
    main()
