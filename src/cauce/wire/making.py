"""Ids for what an upstream gave none."""

import secrets


def made_id(prefix: str) -> str:
    """An id that no other turn of a conversation has: some APIs refuse a history where one comes twice."""
    return f"{prefix}_{secrets.token_hex(12)}"
