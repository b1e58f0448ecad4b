"""Databases as older versions of the program have left them. Versions are added here, and never changed.

It is written out, because a migration must not be tested with the tables that the present program would make.
"""

from __future__ import annotations

from typing import Any

from tests.gateway.history.databases import Sqlite, TestDatabase
from tests.gateway.history.events import START

BATTERY_VOLTAGES = [12.5, 12.51, 13.0]
"""Those of the readings of `roof-1` in each database, in V. They are 1 s apart, from 10 s before `START` on."""

READINGS = """
    SELECT controller, time, battery_voltage, pv_voltage, load_current, charge_current, over_discharge_voltage,
    battery_full_voltage, battery_temperature, flags, reserved FROM tracer_readings ORDER BY time"""

_TYPES = {
    Sqlite: {"serial": "INTEGER", "double": "DOUBLE", "bytes": "BLOB", "end": "WITHOUT ROWID", "hex": "x'00003500'"},
    TestDatabase: {
        "serial": "SERIAL",
        "double": "DOUBLE PRECISION",
        "bytes": "BYTEA",
        "end": "",
        "hex": r"'\x00003500'",
    },
}

_CONTROLLER = "FOREIGN KEY (controller) REFERENCES tracer_controllers (key)"
_OF_TIME = f"PRIMARY KEY (controller, time), {_CONTROLLER}"
_QUANTITIES = ("battery_voltage", "pv_voltage", "charge_power", "load_power", "battery_temperature")
_AGGREGATES = ", ".join(f"{name}_{kind} BIGINT NOT NULL" for name in _QUANTITIES for kind in ("min", "sum", "max"))

_VERSION_1 = f"""
CREATE TABLE tracer_schema (version INTEGER NOT NULL);
CREATE TABLE tracer_controllers (
    key {{serial}} NOT NULL, id VARCHAR(64) NOT NULL, PRIMARY KEY (key), UNIQUE (id));
CREATE TABLE tracer_readings (
    controller INTEGER NOT NULL, time BIGINT NOT NULL, battery_voltage INTEGER NOT NULL, pv_voltage INTEGER NOT NULL,
    load_current INTEGER NOT NULL, charge_current INTEGER NOT NULL, over_discharge_voltage INTEGER NOT NULL,
    battery_full_voltage INTEGER NOT NULL, battery_temperature SMALLINT NOT NULL, flags SMALLINT NOT NULL,
    reserved {{bytes}} NOT NULL, {_OF_TIME}) {{end}};
CREATE TABLE tracer_five_minutes (
    controller INTEGER NOT NULL, time BIGINT NOT NULL, count INTEGER NOT NULL, {_AGGREGATES}, {_OF_TIME}) {{end}};
CREATE TABLE tracer_hours (
    controller INTEGER NOT NULL, time BIGINT NOT NULL, count INTEGER NOT NULL, {_AGGREGATES}, {_OF_TIME}) {{end}};
CREATE TABLE tracer_pending (controller INTEGER NOT NULL, time BIGINT NOT NULL, {_OF_TIME}) {{end}};
CREATE TABLE tracer_days (
    controller INTEGER NOT NULL, day DATE NOT NULL, charge {{double}} NOT NULL, load {{double}} NOT NULL,
    PRIMARY KEY (controller, day), {_CONTROLLER}) {{end}};
INSERT INTO tracer_schema VALUES (1);
INSERT INTO tracer_controllers (id) VALUES ('roof-1');
INSERT INTO tracer_readings VALUES
    (1, {{start}} - 10000, 1250, 3463, 139, 1012, 1109, 1439, 24, 65, {{hex}}),
    (1, {{start}} - 9000, 1251, 0, 0, 0, 1109, 1439, -5, 0, {{hex}}),
    (1, {{start}} - 8000, 1300, 65535, 65535, 65535, 65535, 65535, 127, 127, {{hex}});
INSERT INTO tracer_pending VALUES (1, {{start}} - 300000);
INSERT INTO tracer_days VALUES (1, '2025-12-31', 1234.5, 0.25)"""

VERSIONS = {1: _VERSION_1}
"""What makes a database of each version: tables, and readings of one controller."""


def create(database: TestDatabase, version: int) -> None:
    """Make an old database."""
    types = _TYPES[Sqlite if isinstance(database, Sqlite) else TestDatabase]
    for statement in VERSIONS[version].format(start=round(START * 1000), **types).split(";"):
        database.query(statement)


def columns(database: TestDatabase) -> list[tuple[Any, ...]]:
    """The columns of all tables in their order, with types and whether they may be empty."""
    if isinstance(database, Sqlite):
        return database.query(
            """SELECT tables.name, cid, columns.name, columns.type, "notnull", pk
            FROM sqlite_master AS tables JOIN pragma_table_info(tables.name) AS columns
            WHERE tables.type = 'table' ORDER BY 1, 2"""
        )
    return database.query(
        """SELECT table_name, ordinal_position, column_name, data_type, is_nullable
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"""
    )
