"""The ground a server would stand on: its address, its port, its data folder. Looking changes nothing."""

import http.client
import ipaddress
import json
import os
from pathlib import Path
from typing import Literal

from cauce.config import Config
from cauce.server.run import listen
from cauce.server.settings import ServerSettings

Port = Literal["free", "cauce", "taken", "refused"]

_LOOK = 1.0
"""Seconds that whoever holds our port gets to say who it is."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_door(config: Config) -> bool:
    """Whether anyone could use the models: then `serve` refuses to start."""
    return not config.auth.keys and not is_loopback(config.server.host)


def port(settings: ServerSettings) -> Port:
    """Whether `serve` could listen, and if not, whether another Cauce is why. `refused`: this address is not to be had."""
    try:
        sockets = listen(settings.host, settings.port)
    except OSError:
        return _holder(settings)
    for listener in sockets:
        listener.close()
    return "free"


def folder_problem(folder: Path) -> str:
    """Why `folder` cannot be written, or made; empty if it can."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is not a folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} is not writable"


def _holder(settings: ServerSettings) -> Port:
    host = "127.0.0.1" if settings.host in ("", "0.0.0.0", "localhost") else settings.host  # noqa: S104
    connection = http.client.HTTPConnection(host, settings.port, timeout=_LOOK)
    try:
        connection.request("GET", "/health")
        answer = json.loads(connection.getresponse().read(65536))
    except (ValueError, http.client.HTTPException):
        return "taken"
    except TimeoutError:
        return "taken"
    except OSError:
        return "refused"
    finally:
        connection.close()
    return "cauce" if isinstance(answer, dict) and "providers" in answer and "version" in answer else "taken"
