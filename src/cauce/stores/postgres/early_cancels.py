"""Cancels of streams that are not there yet, in PostgreSQL.

Each is a tombstone before its stream: a row of `streams` without a wire, which becomes the stream, or goes with the sweep. So the index of
ids says which of the two came first, whatever else goes on at the same time.
"""

from cauce.domain.stream import StreamKey
from cauce.ports.stream_log import EARLY, MOST_EARLY
from cauce.stores.postgres.connections import Connection, fetched
from cauce.stores.postgres.stream_tables import GIVEN_NOW

# What is asked of those that are too many is asked again of each as it is when it is deleted: it may be a stream by then.
_REMEMBER = f"""
WITH too_many AS (
    DELETE FROM streams WHERE wire = '' AND id <> %(id)s AND key IN (
        SELECT key FROM streams WHERE principal = %(principal)s AND wire = '' ORDER BY due DESC OFFSET %(others)s)
)
INSERT INTO streams AS s (principal, id, wire, request, request_hash, policy, state, lease_until, tail, bytes, created, retention,
                          cancel_requested, cancel_reason, terminal_at, due, kept, settled)
VALUES (%(principal)s, %(id)s, '', '', '', '', 'expired', 0, 0, 0, {GIVEN_NOW}, 0, TRUE, %(reason)s, {GIVEN_NOW}, {GIVEN_NOW} + %(seconds)s, 0,
        TRUE)
ON CONFLICT (principal, id) DO UPDATE SET cancel_requested = TRUE, cancel_reason = excluded.cancel_reason,
       due = CASE s.wire WHEN '' THEN excluded.due ELSE s.due END
 WHERE s.wire = '' OR (s.terminal_at IS NULL AND NOT s.cancel_requested)
RETURNING wire
"""  # noqa: S608

BECOMES = f"""
ON CONFLICT (principal, id) DO UPDATE SET wire = excluded.wire, request = excluded.request, request_hash = excluded.request_hash,
       policy = excluded.policy, state = 'queued', node = excluded.node, lease_until = excluded.lease_until, tail = excluded.tail,
       bytes = excluded.bytes, created = excluded.created, retention = excluded.retention, terminal_at = NULL, due = NULL, kept = NULL,
       settled = excluded.settled, user_name = excluded.user_name,
       cancel_requested = s.due > {GIVEN_NOW}, cancel_reason = CASE WHEN s.due > {GIVEN_NOW} THEN s.cancel_reason END
 WHERE s.wire = ''
"""
"""What the statement that makes a stream, `s`, does where a cancel came before it."""


async def cancel_early(connection: Connection, key: StreamKey, reason: str, now: float | None) -> bool:
    """Cancel a stream that was not there. Whether it is now."""
    facts = {
        "principal": key.principal,
        "id": key.id,
        "reason": reason,
        "now": now,
        "seconds": EARLY,
        "others": MOST_EARLY - 1,
    }
    found = await fetched(connection, _REMEMBER, facts)
    # None was written: it is there, and has ended or was cancelled.
    return not found or bool(found[0][0])
