"""The Python client of a running Cauce: async, and the same for code that is not."""

from cauce.client.answer import Answer, Parsed
from cauce.client.client import Client
from cauce.client.errors import CallFailed, ParseError, Unreachable
from cauce.client.options import Options
from cauce.client.sync import SyncClient

__all__ = ["Answer", "CallFailed", "Client", "Options", "ParseError", "Parsed", "SyncClient", "Unreachable"]
