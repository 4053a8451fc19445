"""A process that writes streams until it is killed: `python -m tests.contract.stream_writers FILE NODE STREAMS alone|shared`.

It takes over what others left, makes what is not there, and appends. The text of a record is its stream and its number. What the log
has acknowledged it says on standard output, `stream epoch seq` a line, and `fenced stream` where it was told that it lost one.
"""

import asyncio
import os
import sys
from pathlib import Path

from cauce.domain.delta import Text
from cauce.domain.stream import Commit, Hold, StreamKey
from cauce.ports.stream_log import Fenced
from cauce.stores.followed_log import LEASE
from cauce.stores.sqlite.stream_log import SqliteStreamLog, StreamLogOptions
from cauce.system.clock import SystemClock
from cauce.testing.stream_samples import new_stream


def key_of(number: int) -> StreamKey:
    return StreamKey("tenant/key", f"s{number}")


def texts(number: int, first: int, count: int) -> tuple[Text, ...]:
    """What records `first` and following of stream `number` say."""
    return tuple([Text(f"{number}:{seq}") for seq in range(first, first + count)])


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def write(log: SqliteStreamLog, number: int, hold: Hold) -> None:
    while True:
        count = (hold.tail + number) % 4 + 1
        try:
            hold = await log.append(hold, Commit(texts(number, hold.tail + 1, count), "running"))
        except Fenced:
            say(f"fenced {number}")
            return
        say(f"{number} {hold.epoch} {hold.tail}")


async def main(path: Path, node: str, streams: int, *, alone: bool) -> None:
    log = SqliteStreamLog(path, SystemClock(), node, StreamLogOptions(lease=None if alone else LEASE))
    await log.start()
    holds: dict[int, Hold] = {}
    for head in await log.orphans(1000):
        hold = await log.claim(head, node)
        if hold is not None:
            holds[int(head.key.id[1:])] = hold
    for number in range(streams):
        if number not in holds and (hold := (await log.create(new_stream(key_of(number)))).hold) is not None:
            holds[number] = hold
    say("ready")
    await asyncio.gather(*[write(log, number, hold) for number, hold in holds.items()])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), alone=sys.argv[4] == "alone"))
