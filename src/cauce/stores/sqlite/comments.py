"""What people wrote to answers, in the ledger: it is deleted with whoever asked, and what the answers cost and how they were voted on stays."""

import sqlite3

from cauce.domain.request import Scope
from cauce.stores.sqlite.book import day_name, has_table, id_hashes
from cauce.stores.sqlite.cleaning import empty_log


def erase_comments(database: sqlite3.Connection, scope: Scope) -> int:
    """See `ports.usage.Feedback`. Comments are few, so each is looked at."""
    given = database.execute(
        """SELECT f.request_id, f.key, f.hour, f.user, k.key FROM feedback f LEFT JOIN kinds k ON k.id = f.kind
        WHERE f.tenant = ? AND f.comment <> ''""",
        (scope.tenant,),
    ).fetchall()
    theirs: list[tuple[str, str, str]] = []
    for request_id, key, hour, user, asked in given:
        if user is None:
            found = _asked_by(database, scope, request_id, hour)
        else:
            found = asked == scope.key and scope.user in (None, Scope().known_as(user))
        if found or (scope.user is None and key == scope.key):
            theirs.append((scope.tenant, request_id, key))
    database.executemany(
        "UPDATE feedback SET comment = '' WHERE tenant = ? AND request_id = ? AND key = ?",
        theirs,
    )
    if theirs:
        # While somebody reads it stays in the log of writes, which the next checkpoint takes in.
        empty_log(database)
    return len(theirs)


def _asked_by(database: sqlite3.Connection, scope: Scope, request_id: str, hour: int) -> bool:
    """Whether the answer, which was given in that hour, was asked for by the key and user of `scope`, as far as its attempts are kept."""
    name = day_name(hour // 24)
    if not has_table(database, f"attempts_{name}"):
        return False
    found = database.execute(
        f"""SELECT 1 FROM ids_{name} i JOIN attempts_{name} a ON a.id = i.attempt JOIN kinds k ON k.id = a.kind
        WHERE i.hash IN (?, ?) AND a.request_id = ? AND k.tenant = ? AND k.key = ? AND (? IS NULL OR a.user = ?)""",  # noqa: S608
        (*id_hashes(request_id), request_id, scope.tenant, scope.key, scope.user, scope.user),
    )
    return found.fetchone() is not None
