"""The Python client of a running Cauce: async, and the same for code that is not."""

from cauce.client.answer import Answer, Parsed
from cauce.client.client import Client
from cauce.client.errors import CallFailed, ParseError, Unreachable
from cauce.client.options import OnDisconnect, Options
from cauce.client.progress import Progress
from cauce.client.reconnect import Reconnect
from cauce.client.stream import Stream
from cauce.client.sync import SyncClient, SyncStream

__all__ = [
    "Answer",
    "CallFailed",
    "Client",
    "OnDisconnect",
    "Options",
    "ParseError",
    "Parsed",
    "Progress",
    "Reconnect",
    "Stream",
    "SyncClient",
    "SyncStream",
    "Unreachable",
]
