"""What a run leaves in PostgreSQL: one schema, which is dropped. Needs the extra `postgres`."""

from psycopg import AsyncConnection, sql


async def clear(url: str, schema: str) -> None:
    """Drop the schema with everything in it. Raises `psycopg.Error`."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
