"""How providers and clients reach the network: one Protocol, and an HTTP/1.1 client on asyncio and httptools behind it."""

from cauce.transport.http1 import HTTPTransport
from cauce.transport.port import MAX_BODY, Incoming, Outgoing, Transport

__all__ = ["MAX_BODY", "HTTPTransport", "Incoming", "Outgoing", "Transport"]
