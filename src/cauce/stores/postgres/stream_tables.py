"""Tables of streams in PostgreSQL. They are those of the file that SQLite keeps, column for column.

Half of each page of `streams` is left free, and no index holds a column that an append of content changes: such an update stays on
its page and touches no index.
"""

from psycopg import sql

from cauce.stores.postgres.connections import Connection

NOW = "extract(epoch FROM statement_timestamp())::float8"
"""The server's own time in UNIX seconds, in SQL: whoever reads another one's clock must not remember how far it is from his."""

CLOCK = "extract(epoch FROM clock_timestamp())::float8"
"""The same as it is when it is looked at: a statement may have waited for its rows."""

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
ALTER TABLE streams ADD COLUMN IF NOT EXISTS reader_seen DOUBLE PRECISION;
CREATE INDEX IF NOT EXISTS open_streams ON streams (key) WHERE terminal_at IS NULL;
CREATE INDEX IF NOT EXISTS due_streams ON streams (due) WHERE due IS NOT NULL;
CREATE TABLE IF NOT EXISTS segments (
    stream BIGINT NOT NULL, first_seq INTEGER NOT NULL, n INTEGER NOT NULL, epoch INTEGER NOT NULL, format INTEGER NOT NULL,
    data BYTEA NOT NULL, PRIMARY KEY (stream, first_seq)
);
CREATE TABLE IF NOT EXISTS attempts (
    stream BIGINT NOT NULL, n INTEGER NOT NULL, row BYTEA NOT NULL, exported BOOLEAN NOT NULL DEFAULT FALSE, PRIMARY KEY (stream, n)
);
"""


async def make_tables(connection: Connection, schema: str) -> None:
    """Have the tables there."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        await connection.execute(_TABLES)
