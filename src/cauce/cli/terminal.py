"""Writing to a terminal: answers on stdout, everything said about them on stderr.

What models and upstreams say is shown without its control characters: an answer cannot move the cursor or set the title.
"""

import os
import sys
from typing import TextIO

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it."""

_CONTROLS = dict.fromkeys([*range(0x20), 0x7F, *range(0x80, 0xA0)])
del _CONTROLS[ord("\n")], _CONTROLS[ord("\t")]

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def harmless(text: str) -> str:
    """`text` without control characters but for newlines and tabs."""
    return text.translate(_CONTROLS)


def line(text: str) -> str:
    """`text` as one harmless line."""
    return " ".join(harmless(text).split())


def readable(data: bytes) -> str:
    """The text in `data`, whatever its bytes are."""
    return data.decode("utf-8", "replace")


def sendable(text: str) -> str:
    """`text` from the command line as JSON can carry it: bytes that were no UTF-8 arrive as surrogates."""
    return readable(text.encode("utf-8", "surrogateescape"))


def lenient_output() -> None:
    """Let characters the terminal's encoding lacks become question marks instead of errors."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def dimmed(text: str, stream: TextIO) -> str:
    """`text` dim, where `stream` is a terminal that shows it."""
    return f"{_DIM}{text}{_PLAIN}" if stream.isatty() and not os.environ.get("NO_COLOR") else text


def note(text: str) -> None:
    """Say something about an answer: one dim line on stderr."""
    print(dimmed(line(text), sys.stderr), file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Say what went wrong: one line on stderr."""
    print(f"cauce: {line(text)}", file=sys.stderr, flush=True)
