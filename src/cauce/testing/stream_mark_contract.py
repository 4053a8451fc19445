"""What every stream log must keep of how far its readers were sent, for those that resume without a cursor. See `stream_log_contract`."""

from cauce.domain.stream import StreamKey
from cauce.ports.stream_log import StreamLog
from cauce.testing.stream_samples import KEY, Logs, created, head_of, text


async def taken_over(log: StreamLog, key: StreamKey = KEY) -> int | None:
    """The mark that whoever takes the stream over finds. `log` is of another process than the one that wrote it."""
    found = (await head_of(log, key)).reader_mark
    claimed = await log.claim(await head_of(log, key), "b")
    assert claimed is not None
    assert (await head_of(log, key)).reader_mark == found
    return found


class StreamMarkContract:
    """Part of `StreamLogContract`."""

    async def test_reader_that_left_is_found_where_it_left_after_the_end_of_the_process(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await created(log)
        reader = log.attach(KEY)
        for word in "ab":
            log.mark(KEY, reader, hold.tail)
            hold = await log.append(hold, text(word))
        log.mark(KEY, reader, hold.tail)
        log.detach(KEY, reader)
        for word in "cdef":
            hold = await log.append(hold, text(word))
        await log.release([hold])
        assert hold.tail == 7 and await taken_over(other) == 3

    async def test_reader_that_is_slow_is_found_where_it_had_come(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await created(log)
        reader = log.attach(KEY)
        hold = await log.append(hold, text("a", "b", "c", "d"))
        log.mark(KEY, reader, 2)
        hold = await log.append(hold, text("e"))
        await log.release([hold])
        assert await taken_over(other) == 2

    async def test_reader_that_keeps_up_is_found_at_the_end_of_what_was_written(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await created(log)
        first, newest = log.attach(KEY), log.attach(KEY)
        for word in "abc":
            log.mark(KEY, newest, hold.tail)
            hold = await log.append(hold, text(word))
            # Whoever came before it does not count, and neither does that it leaves.
            log.mark(KEY, first, 1)
        log.detach(KEY, first)
        log.mark(KEY, newest, hold.tail)
        hold = await log.append(hold, text("d"))
        log.mark(KEY, newest, hold.tail)
        await log.release([hold])
        assert hold.tail == 5 and await taken_over(other) == 5

    async def test_reader_that_left_before_it_was_sent_anything_moves_no_mark(self, logs: Logs) -> None:
        log, other = await logs(), await logs()
        hold = await created(log)
        first = log.attach(KEY)
        hold = await log.append(hold, text("a"))
        log.mark(KEY, first, 2)
        log.detach(KEY, first)
        log.detach(KEY, log.attach(KEY))
        hold = await log.append(hold, text("b", "c"))
        await log.release([hold])
        assert await taken_over(other) == 2
