"""The two databases of the tests, read by programs that share nothing with the code under test."""

from __future__ import annotations

import csv
import io
import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tests.gateway.peer_process import free_port
from tracer_async.gateway.config import HistoryConfig

PASSWORD = "correct horse ä @:/%"
POSTGRESQL = Path("/usr/lib/postgresql/15/bin")


class TestDatabase(ABC):
    """A database that one test uses."""

    __test__ = False
    url: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def config(self, *, flush_seconds: float = 0.02, **keys: Any) -> HistoryConfig:
        """A configuration. The shortest time that a file may give would make the tests slow."""
        config = HistoryConfig(url=self.url, password=SecretStr(PASSWORD), **keys)
        return config.model_copy(update={"flush_seconds": flush_seconds})

    @abstractmethod
    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a statement. Numbers are numbers, everything else is text."""

    def count(self, table: str = "tracer_readings") -> int:
        """The number of rows of a table."""
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])


class Sqlite(TestDatabase):
    url = "sqlite:///history.db"

    @property
    def file(self) -> Path:
        return self.directory / "history.db"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file, timeout=5)) as connection, connection:
            return connection.execute(sql).fetchall()

    def checkpoint(self) -> None:
        """Move everything from the WAL to the file."""
        assert self.query("PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]


class Cluster:
    """A PostgreSQL server of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = ["--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8", "--no-sync"]
        self.run("initdb", "-D", f"{folder}/data", "-U", "postgres", f"--pwfile={password}", *options)
        self.start()

    def run(self, program: str, *arguments: str) -> str:
        command = [*self._as_user, str(POSTGRESQL / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def control(self, action: str, *arguments: str) -> None:
        # The server inherits the streams, and would keep a pipe open.
        command = [*self._as_user, str(POSTGRESQL / "pg_ctl"), action, "-D", f"{self.folder}/data", "-w", *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, check=True)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.control("start", "-l", f"{self.folder}/log", "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        self.control("stop", "-m", mode)

    def sql(self, database: str, sql: str) -> str:
        address = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres", database]
        return self.run("psql", "-X", "-q", "-t", "--csv", "-v", "ON_ERROR_STOP=1", "-c", sql, *address)


class PostgreSql(TestDatabase):
    def __init__(self, directory: Path, cluster: Cluster, name: str) -> None:
        super().__init__(directory)
        self.cluster = cluster
        self.name = name
        self.url = f"postgresql://postgres@127.0.0.1:{cluster.port}/{name}"
        cluster.sql("postgres", f"CREATE DATABASE {name}")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(map(_number, row)) for row in csv.reader(io.StringIO(self.cluster.sql(self.name, sql)))]


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


@contextmanager
def running_cluster(require: Callable[[str], str]) -> Iterator[Cluster]:
    """A cluster in a folder that the server's user can reach, unlike those of pytest."""
    if not (POSTGRESQL / "postgres").exists():
        require("postgres")  # skips, or fails where peers are required
    folder = Path(tempfile.mkdtemp(prefix="tracer-postgresql-"))
    cluster = None
    try:
        cluster = Cluster(folder)
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(folder)
