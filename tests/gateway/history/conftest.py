from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.gateway.history.databases import Cluster, PostgreSql, Sqlite, TestDatabase, running_cluster

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster(require) as cluster:
        yield cluster


@pytest.fixture
def sqlite(tmp_path: Path) -> Sqlite:
    return Sqlite(tmp_path)


@pytest.fixture
def postgresql(tmp_path: Path, request: pytest.FixtureRequest) -> PostgreSql:
    return PostgreSql(tmp_path, request.getfixturevalue("cluster"), f"history_{next(_numbers)}")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> TestDatabase:
    """Each database in turn."""
    made: TestDatabase = request.getfixturevalue(request.param)
    return made
