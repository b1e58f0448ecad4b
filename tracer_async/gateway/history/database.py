"""The database itself: how to connect to it, what its errors mean, and what to do with a damaged file.

Never open the SQLite file by other means than SQLite while it is in use: closing such a file releases the locks of
this process (see "How To Corrupt An SQLite Database File" in SQLite's documentation).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tracer_async.gateway.config import HistoryConfig
from tracer_async.gateway.history.schema import prepare

__all__ = ["DamageError", "Database", "is_damage", "reason"]

# Seconds to wait for a lock of SQLite, for a connection to PostgreSQL, for a statement of
# PostgreSQL, and for closing a connection.
_BUSY = 2.0
_CONNECT = 5.0
_COMMAND = 30.0
_CLOSE = 5.0

# FULL: what was committed survives a power cut. The WAL is cut to 16 MB after it was longer.
_PRAGMAS = (
    "synchronous = FULL",
    "cell_size_check = ON",
    "journal_size_limit = 16777216",
)

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class DamageError(Exception):
    """A check has found the SQLite file damaged."""


class Database:
    """A database: one connection that writes, and a small pool of others that read."""

    def __init__(self, config: HistoryConfig, directory: Path) -> None:
        self._config = config
        self.file: Path | None = None
        """The SQLite file; None for PostgreSQL."""
        if config.url.startswith("sqlite:///"):
            self.file = directory.absolute() / config.url.removeprefix("sqlite:///")
        self._writer: AsyncConnection | None = None
        self._identity: tuple[tuple[int, int] | None, ...] = ()
        self._readers: AsyncEngine | None = None

    async def writer(self) -> AsyncConnection:
        """Return the connection that writes. The tables are there. Raises what the database raises.

        A SQLite file that was moved or deleted is replaced by a new one, and so is its WAL: what is written to a file
        that was deleted would be lost.
        """
        if self._writer is not None:
            before, found = self._identity, await self._identify()
            if found != before:
                await self.close()
                if self.file is not None and found[0] != before[0] and found[1] == before[1]:
                    # The WAL is that of the former file. SQLite would apply it to the new one.
                    await asyncio.to_thread(_delete_wal, self.file)
        if self._writer is None:
            await self._check_access(read_only=False)
            engine = self._engine(read_only=False)
            connection = await engine.connect()
            try:
                async with connection.begin():
                    await connection.run_sync(prepare)
                self._identity = await self._identify()
            except BaseException:
                await connection.close()
                raise
            self._writer = connection
        return self._writer

    async def forget_pages(self) -> None:
        """Let SQLite read all pages again, so that a file that something else has overwritten is found out soon."""
        if self._writer is not None and self.file is not None:
            raw = await self._writer.get_raw_connection()
            driver: Any = raw.driver_connection
            await driver.execute_fetchall("PRAGMA shrink_memory")

    async def is_sound(self) -> bool:
        """Return whether SQLite finds no damage in the whole file."""
        connection = await self.writer()
        async with connection.begin():
            return (await connection.exec_driver_sql("PRAGMA quick_check(1)")).scalar() == "ok"

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection that sees one state of the database, and changes nothing."""
        await self._check_access(read_only=True)
        if self._readers is None:
            self._readers = self._engine(read_only=True)
        async with self._readers.connect() as connection, connection.begin():
            yield connection

    async def close(self) -> None:
        """Close all connections. They are opened again when they are needed."""
        writer, readers = self._writer, self._readers
        self._writer = self._readers = None
        if readers is not None:
            await readers.dispose()
        if writer is not None:
            # What fails here was reported by the transaction before.
            with suppress(Exception):
                async with asyncio.timeout(_CLOSE):
                    await writer.close()

    async def set_aside(self) -> Path:
        """Close and rename the damaged SQLite file. Return its new path. Raises OSError."""
        if self.file is None:
            raise OSError("only a file can be set aside")
        await self.close()
        return await asyncio.to_thread(_set_aside, self.file)

    async def _check_access(self, *, read_only: bool) -> None:
        """Raise OSError if the SQLite file cannot be opened. SQLite would not say why."""
        if self.file is not None:
            await asyncio.to_thread(_check_access, self.file, read_only)

    async def _identify(self) -> tuple[tuple[int, int] | None, ...]:
        """Return device and inode of the SQLite file and of its WAL, which exists while the writer is connected."""
        if self.file is None:
            return ()
        files = (self.file, self.file.with_name(f"{self.file.name}-wal"))
        return await asyncio.to_thread(lambda: tuple(map(_device_and_inode, files)))

    def _engine(self, *, read_only: bool) -> AsyncEngine:
        if self.file is None:
            return _postgresql(self._config, read_only=read_only)
        return _sqlite(self.file, read_only=read_only)


def _sqlite(file: Path, *, read_only: bool) -> AsyncEngine:
    # A read-only connection never deletes the WAL when it is closed, and it never creates the file.
    url = URL.create("sqlite+aiosqlite", database=str(file))
    if read_only:
        url = url.set(database=f"file:{quote(str(file))}", query={"mode": "ro", "uri": "true"})
    # sqlite3 begins no transaction itself: it would leave out those of CREATE and of SELECT.
    connect_args = {"timeout": _BUSY, "isolation_level": None}
    pool: dict[str, Any] = {"pool_size": 2, "max_overflow": 0} if read_only else {"poolclass": NullPool}
    engine = create_async_engine(url, connect_args=connect_args, hide_parameters=True, **pool)
    if not read_only:

        @event.listens_for(engine.sync_engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            # Only once: SQLite does not wait for locks to set the mode, but it does to read it.
            cursor.execute("PRAGMA journal_mode")
            if cursor.fetchone()[0] != "wal":
                cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect only on an empty file
                cursor.execute("PRAGMA journal_mode = WAL")
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql(config: HistoryConfig, *, read_only: bool) -> AsyncEngine:
    url = make_url(config.url).set(drivername="postgresql+asyncpg")
    if config.password is not None:
        url = url.set(password=config.password.get_secret_value())
    options: dict[str, Any] = (
        {"pool_size": 2, "max_overflow": 0, "pool_pre_ping": True, "isolation_level": "REPEATABLE READ"}
        if read_only
        else {"poolclass": NullPool}
    )
    connect_args = {
        "timeout": _CONNECT,
        "command_timeout": _COMMAND,
        "server_settings": {"application_name": "tracer-async"},
    }
    return create_async_engine(url, connect_args=connect_args, hide_parameters=True, **options)


def _device_and_inode(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _check_access(file: Path, read_only: bool) -> None:
    if not read_only and not file.parent.is_dir():
        raise FileNotFoundError(f"the folder {file.parent} does not exist")
    if read_only and not file.exists():
        raise FileNotFoundError(f"{file} does not exist")
    if file.exists() and not os.access(file, os.R_OK if read_only else os.R_OK | os.W_OK):
        raise PermissionError(f"this user may not {'read' if read_only else 'write'} {file}")


def _set_aside(file: Path) -> Path:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    target = file.with_name(f"{file.name}.damaged-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = file.with_name(f"{file.name}.damaged-{stamp}-{number}")
    # The file itself first: without it, nobody opens the others.
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            file.with_name(file.name + suffix).rename(target.with_name(target.name + suffix))
    return target


def _delete_wal(file: Path) -> None:
    for suffix in ("-wal", "-shm"):
        file.with_name(f"{file.name}{suffix}").unlink(missing_ok=True)


def is_damage(error: BaseException) -> bool:
    """Return whether *error* says that the SQLite file is damaged, or not a database at all."""
    if isinstance(error, DamageError):
        return True
    original = error.orig if isinstance(error, DBAPIError) else error
    # The low byte is the kind of the error; the others tell more about it.
    return isinstance(original, sqlite3.Error) and (getattr(original, "sqlite_errorcode", 0) & 0xFF) in _DAMAGE


def reason(error: BaseException) -> str:
    """Return the text of *error* for people, in one line, without statements and parameters."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    original: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        original = error.orig.__cause__ or error.orig  # asyncpg's own error is the cause of SQLAlchemy's
    return " ".join(str(original).split()) or type(original).__name__
