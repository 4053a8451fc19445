"""Tables of streams in PostgreSQL. They are those of the file that SQLite keeps, column for column.

Half of each page of `streams` is left free, and no index holds a column that an append of content changes: such an update stays on
its page and touches no index. `kept` is what a stream takes that has ended: 0 once it has expired, so that the index alone says what all
of them take.
"""

from psycopg import sql

from cauce.stores.postgres.connections import Connection

NOW = "extract(epoch FROM statement_timestamp())::float8"
"""The server's own time in UNIX seconds, in SQL: whoever reads another one's clock must not remember how far it is from his."""

GIVEN_NOW = f"coalesce(%(now)s::float8, {NOW})"
"""The same, unless `now` is given."""

CLOCK = "extract(epoch FROM clock_timestamp())::float8"
"""The same as it is when it is looked at: a statement may have waited for its rows."""

_RECORD, _STREAM = 90, 2200
"""Bytes that a record takes beside its own, with a row for each, and a stream beside its request and its records."""

TOMBSTONE_BYTES = 600
"""The same of one of which only its id is left."""

_LOCK = 0x63617563
"""Of several processes that start at once one makes the tables."""

_TABLES = """
CREATE TABLE IF NOT EXISTS streams (
    key BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, principal TEXT NOT NULL, id TEXT NOT NULL,
    wire TEXT NOT NULL, request BYTEA NOT NULL, request_hash BYTEA NOT NULL, policy TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued', epoch INTEGER NOT NULL DEFAULT 1, node TEXT, lease_until DOUBLE PRECISION NOT NULL,
    tail INTEGER NOT NULL, bytes BIGINT NOT NULL, cancel_requested BOOLEAN NOT NULL DEFAULT FALSE, cancel_reason TEXT,
    upstream BYTEA, reader_mark INTEGER, settled BOOLEAN NOT NULL DEFAULT FALSE,
    created DOUBLE PRECISION NOT NULL, retention DOUBLE PRECISION NOT NULL, terminal_at DOUBLE PRECISION, due DOUBLE PRECISION,
    UNIQUE (principal, id)
) WITH (fillfactor = 50);
ALTER TABLE streams ADD COLUMN IF NOT EXISTS reader_seen DOUBLE PRECISION, ADD COLUMN IF NOT EXISTS kept BIGINT;
ALTER TABLE streams ADD COLUMN IF NOT EXISTS user_name TEXT;
CREATE INDEX IF NOT EXISTS streams_of_users ON streams (principal, user_name) WHERE user_name IS NOT NULL;
CREATE INDEX IF NOT EXISTS open_streams ON streams (key) WHERE terminal_at IS NULL;
CREATE INDEX IF NOT EXISTS ended_streams ON streams (due) INCLUDE (kept) WHERE due IS NOT NULL;
DROP INDEX IF EXISTS due_streams;
-- What ended before conversations were kept is in none: whoever sweeps would look at all of it, and at what is left of it, each time.
DO $$ BEGIN
    IF to_regclass('unsettled_streams') IS NULL THEN
        UPDATE streams SET settled = TRUE WHERE terminal_at IS NOT NULL AND NOT settled;
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS unsettled_streams ON streams (key) WHERE NOT settled AND terminal_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS early_cancels ON streams (principal, due) WHERE wire = '';
CREATE TABLE IF NOT EXISTS segments (
    stream BIGINT NOT NULL, first_seq INTEGER NOT NULL, n INTEGER NOT NULL, epoch INTEGER NOT NULL, format INTEGER NOT NULL,
    data BYTEA NOT NULL, PRIMARY KEY (stream, first_seq)
);
CREATE TABLE IF NOT EXISTS attempts (
    stream BIGINT NOT NULL, n INTEGER NOT NULL, row BYTEA NOT NULL, exported BOOLEAN NOT NULL DEFAULT FALSE, PRIMARY KEY (stream, n)
);
"""


def takes(tail: str, size: str, of: str = "") -> str:
    """In SQL the bytes that a stream with so many records, of so many bytes, takes in all tables and indexes, roughly."""
    return f"{size} + {_RECORD} * ({tail}) + octet_length({of}request) + octet_length({of}policy) + {_STREAM}"


async def make_tables(connection: Connection, schema: str) -> None:
    """Have the tables there."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        await connection.execute(_TABLES)
