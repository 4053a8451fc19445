"""What a client's `metadata` says to us: what the request is for, and whether it must stay on this machine."""

from typing import Any, cast

TASK = "task"
PRIVACY = "privacy"


def wishes(metadata: Any) -> tuple[str | None, str | None]:
    """Task and privacy, as `metadata` says them."""
    if not isinstance(metadata, dict):
        return None, None
    told = cast(dict[str, Any], metadata)
    task, privacy = told.get(TASK), told.get(PRIVACY)
    # The router says what is wrong with a wish that is no text.
    return task if isinstance(task, str) else None, None if privacy is None else str(privacy)
