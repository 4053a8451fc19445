"""What one wire knows and no other: carried along raw, so that nothing is lost between equal wires."""

from typing import Any

import msgspec


class Extra(msgspec.Struct, frozen=True):
    """Unknown fields of one wire. `data` is that wire's own JSON, keyed the way its codec decides."""

    wire: str
    data: dict[str, Any]
