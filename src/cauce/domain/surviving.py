"""What is left of a stream in which the answer began anew, for readers who are shown all of it at once."""

from collections.abc import Sequence

import msgspec

from cauce.domain.delta import Attempt, Restart, Status, ToolResult
from cauce.domain.stream import Record


def surviving(records: Sequence[Record]) -> Sequence[Record]:
    """`records` with those that a later `Restart` takes back made statuses, which say nothing of an answer, and so the `Restart`s.

    Numbers stay as they are, so the places of frames do too. Statuses and attempts are not taken back.
    """
    restarts = [record for record in records if isinstance(record.delta, Restart)]
    if not restarts:
        return records
    taken: set[int] = set()
    for record in restarts:
        assert isinstance(record.delta, Restart)
        taken.update(range(record.delta.from_seq, record.seq + 1))
    return [_withdrawn(record) if record.seq in taken else record for record in records]


def _withdrawn(record: Record) -> Record:
    match record.delta:
        case Status() | Attempt() | ToolResult():
            return record
        case Restart(_, reason):
            return msgspec.structs.replace(record, delta=Status("restart", reason))
        case _:
            return msgspec.structs.replace(record, delta=Status("withdrawn"))
