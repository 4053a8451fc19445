"""A fake provider server: a real HTTP server on loopback that speaks every provider's wire and takes a fault script."""

from cauce.testing.upstream.faults import FAULTS, fault
from cauce.testing.upstream.record import Limits, Record
from cauce.testing.upstream.reply import Ask, Reply, Tokens
from cauce.testing.upstream.server import Upstream

__all__ = ["FAULTS", "Ask", "Limits", "Record", "Reply", "Tokens", "Upstream", "fault"]
