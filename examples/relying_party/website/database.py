"""The tables, in SQLite. One connection, on the event loop: each query takes microseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS account (
    id BLOB PRIMARY KEY,             -- the user handle: 32 random bytes, says nothing about anybody
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    display_name TEXT NOT NULL,
    policy TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS passkey (
    id BLOB PRIMARY KEY,             -- unique over all accounts
    account BLOB NOT NULL REFERENCES account,
    attested BLOB NOT NULL,          -- attested credential data: AAGUID, id, public key
    algorithm INTEGER NOT NULL,
    transports TEXT NOT NULL,        -- JSON list, as the browser said
    aaguid TEXT NOT NULL,
    backup_eligible INTEGER NOT NULL,
    backed_up INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    attachment TEXT,
    created INTEGER NOT NULL,
    last_used INTEGER,
    last_way TEXT,
    nickname TEXT NOT NULL,
    trusted INTEGER NOT NULL,        -- a root that we trust vouched for the device
    copied INTEGER                   -- when its owner told us of an export or import
) STRICT;
CREATE TABLE IF NOT EXISTS recovery_code (
    hash BLOB PRIMARY KEY,
    account BLOB NOT NULL REFERENCES account,
    used INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS recovery_failure (source TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS session (
    hash BLOB PRIMARY KEY,
    account BLOB NOT NULL REFERENCES account,
    scope TEXT NOT NULL,
    passkey BLOB,
    verified INTEGER NOT NULL,       -- the last signature
    expires INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS challenge (
    hash BLOB PRIMARY KEY,
    browser BLOB NOT NULL,
    purpose TEXT NOT NULL,
    state TEXT NOT NULL,             -- JSON
    expires INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    account BLOB,
    event TEXT NOT NULL,
    detail TEXT NOT NULL,            -- JSON
    chain BLOB NOT NULL              -- hash over this line and the chain before it
) STRICT;
CREATE TRIGGER IF NOT EXISTS audit_is_not_rewritten BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_is_not_shortened BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""


class Database:
    """All tables. `path` None: in memory, gone with the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._connection = sqlite3.connect(":memory:" if path is None else path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def run(self, sql: str, *values: Any) -> int:
        """Change something; give the number of rows that it met."""
        return self._connection.execute(sql, values).rowcount

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return found

    @property
    def version(self) -> int:
        """Another number each time that another connection has changed the file; our own changes leave it."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing. Nothing in it awaits, so no other request comes between."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # whatever ends it, nothing of it stays
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
