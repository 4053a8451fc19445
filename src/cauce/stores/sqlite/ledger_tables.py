"""The tables of the ledger, and how they came to be.

Attempts stand in a table per UTC day, made when the first of the day comes and dropped whole. An id is looked for by its CRC-32,
which keeps the index small; what is found is compared.
"""

from collections.abc import Sequence

from cauce.stores.sqlite.schema import Migration

HOURS, DAYS, MONTHS = 1, 2, 3
USER_DAYS, USER_MONTHS = 12, 13
"""What a cell's period is: hours or days since 1970, or months since year 0; the latter two for kinds of users."""

FIRST: Migration = (
    # Up to where the spool is in the tables: set in the transaction that puts it there.
    "CREATE TABLE position (file INTEGER NOT NULL, byte INTEGER NOT NULL)",
    "INSERT INTO position VALUES (0, 0)",
    """CREATE TABLE kinds (
        id INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, deployment TEXT NOT NULL, endpoint TEXT NOT NULL,
        key TEXT NOT NULL, level TEXT NOT NULL, outcome TEXT NOT NULL, source TEXT NOT NULL, estimated INTEGER NOT NULL,
        error TEXT NOT NULL, user TEXT NOT NULL,
        UNIQUE (tenant, user, key, provider, model, deployment, endpoint, level, outcome, source, estimated, error)
    )""",
    """CREATE TABLE cells (
        span INTEGER NOT NULL, period INTEGER NOT NULL, kind INTEGER NOT NULL,
        requests INTEGER NOT NULL, attempts INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, cost REAL NOT NULL,
        up INTEGER NOT NULL, down INTEGER NOT NULL, scores INTEGER NOT NULL, score_sum REAL NOT NULL,
        spread BLOB,
        PRIMARY KEY (span, period, kind)
    ) WITHOUT ROWID""",
    """CREATE TABLE feedback (
        tenant TEXT NOT NULL, request_id TEXT NOT NULL, key TEXT NOT NULL,
        given REAL NOT NULL, hour INTEGER NOT NULL, kind INTEGER NOT NULL,
        thumb TEXT, score REAL, comment TEXT NOT NULL,
        PRIMARY KEY (tenant, request_id, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX feedback_by_hour ON feedback (hour)",
)

SEVERAL: Migration = (
    # Each process has a spool of its own; the first is that of the only one there was.
    "ALTER TABLE position ADD COLUMN spool INTEGER NOT NULL DEFAULT 1",
    "CREATE UNIQUE INDEX position_of_spool ON position (spool)",
    # What this ledger is called where several put together what they know.
    "CREATE TABLE node (id TEXT NOT NULL)",
    "INSERT INTO node VALUES (lower(hex(randomblob(8))))",
)

# Who asked, to find what was written to his answers when the attempts have gone. NULL: it was given before there was this.
ASKED: Migration = ("ALTER TABLE feedback ADD COLUMN user TEXT",)

MIGRATIONS: Sequence[Migration] = (FIRST, SEVERAL, ASKED)


def day_tables(name: str) -> Migration:
    """What makes the tables of a day. `name` is its date as digits."""
    return (
        f"""CREATE TABLE attempts_{name} (
            id INTEGER PRIMARY KEY,
            at REAL NOT NULL, kind INTEGER NOT NULL, user TEXT,
            request_id TEXT NOT NULL, stream_id TEXT NOT NULL, conversation_id TEXT NOT NULL, n INTEGER NOT NULL,
            input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
            cache_write_tokens INTEGER NOT NULL, long_cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
            cost REAL NOT NULL, listed_cost REAL, price_snapshot TEXT NOT NULL,
            latency REAL NOT NULL, first_delta REAL, waited REAL NOT NULL
        )""",
        f"CREATE TABLE ids_{name} (hash INTEGER NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (hash, attempt)) WITHOUT ROWID",
    )
