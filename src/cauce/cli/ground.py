"""The ground a server would stand on: its address, its port, its data folder. Looking changes nothing."""

import errno
import http.client
import os
from pathlib import Path
from typing import Literal

import msgspec

from cauce.config import Config
from cauce.server.gate import is_loopback
from cauce.server.run import listen
from cauce.server.settings import ServerSettings

_LOOK = 1.0
"""Seconds that whoever holds our port gets to say who it is."""

_MOST_BYTES = 64 * 1024
_EVERYWHERE = ("", "localhost", "0.0.0.0")  # noqa: S104  (compared, not listened on)


class Port(msgspec.Struct, frozen=True, omit_defaults=True):
    """`refused`: this address is not to be had, for `reason`."""

    state: Literal["free", "cauce", "taken", "refused"]
    reason: str = ""


class _Health(msgspec.Struct):
    status: str
    version: str
    providers: dict[str, object]


def open_door(config: Config) -> bool:
    """Whether anyone could use the models: then `serve` refuses to start."""
    return not config.auth.keys and not is_loopback(config.server.host)


def port(settings: ServerSettings) -> Port:
    """Whether `serve` could listen, and if not, whether another Cauce is why."""
    try:
        sockets = listen(settings.host, settings.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Port("cauce" if _is_cauce(settings) else "taken")
        return Port("refused", error.strerror or str(error))
    for listener in sockets:
        listener.close()
    return Port("free")


def folder_problem(folder: Path) -> str:
    """Why `folder` cannot be written, or made; empty if it can."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is not a folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} is not writable"


def _is_cauce(settings: ServerSettings) -> bool:
    """Whether whoever holds our port answers as a Cauce does."""
    host = "127.0.0.1" if settings.host in _EVERYWHERE else settings.host
    connection = http.client.HTTPConnection(host, settings.port, timeout=_LOOK)
    try:
        connection.request("GET", "/health")
        msgspec.json.decode(connection.getresponse().read(_MOST_BYTES), type=_Health)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, UnicodeDecodeError):
        return False
    finally:
        connection.close()
    return True
