"""Tables of conversations in PostgreSQL. They are those of the file that SQLite keeps, column for column."""

from psycopg import sql

from cauce.stores.postgres.connections import Connection

_LOCK = 0x63617566
"""Of several processes that start at once one makes the tables."""

_TABLES = """
CREATE TABLE IF NOT EXISTS conversations (
    n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant TEXT NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL,
    user_id TEXT NOT NULL DEFAULT '', kind TEXT NOT NULL DEFAULT 'assistant', state TEXT NOT NULL DEFAULT 'open', title TEXT NOT NULL,
    started_at DOUBLE PRECISION NOT NULL, last_at DOUBLE PRECISION NOT NULL, count INTEGER NOT NULL DEFAULT 0,
    deleted_at DOUBLE PRECISION, UNIQUE (tenant, key, id)
);
ALTER TABLE conversations ADD COLUMN IF NOT EXISTS begins_at DOUBLE PRECISION;
CREATE TABLE IF NOT EXISTS erased_owners (
    tenant TEXT NOT NULL, key TEXT NOT NULL, user_id TEXT NOT NULL, erased_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (tenant, key, user_id)
);
CREATE INDEX IF NOT EXISTS newest_conversations ON conversations (tenant, key, last_at, id COLLATE "C") WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS oldest_conversations ON conversations (last_at) WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS deleted_conversations ON conversations (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS turns (
    conversation BIGINT NOT NULL, seq INTEGER NOT NULL, message_id TEXT NOT NULL, role TEXT NOT NULL, speaker TEXT, text TEXT NOT NULL,
    message BYTEA, happened_at DOUBLE PRECISION NOT NULL, recorded_at DOUBLE PRECISION NOT NULL, status TEXT NOT NULL,
    stream_id TEXT NOT NULL, model TEXT NOT NULL, user_id TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (conversation, seq), UNIQUE (conversation, message_id)
);
CREATE INDEX IF NOT EXISTS users_of_turns ON turns (user_id, conversation) WHERE user_id <> '';
"""


async def make_tables(connection: Connection, schema: str) -> None:
    """Have the tables there."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        await connection.execute(_TABLES)
