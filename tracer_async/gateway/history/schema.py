"""The tables of the history, the version of their schema, and its migrations.

Rows are small, because many owners keep them on an SD card. Volts and amperes are whole hundredths, which is exactly
what the controller sends. Times are whole milliseconds since 1970. Five-minute rows hold sums instead of means, so that
the mean of a longer step is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Date,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    cast,
    func,
    insert,
    inspect,
    select,
    update,
)

__all__ = [
    "AGGREGATES",
    "FLAGS",
    "HOUR",
    "MIGRATIONS",
    "QUANTITIES",
    "SLOT",
    "VERSION",
    "Migration",
    "Quantity",
    "SchemaError",
    "aggregated",
    "check_version",
    "controllers",
    "days",
    "extremes",
    "five_minutes",
    "hours",
    "metadata",
    "pending",
    "prepare",
    "readings",
    "schema",
    "total",
]

SLOT = 300_000
"""Milliseconds of a row of `five_minutes`. It begins at a multiple of this."""

HOUR = 3_600_000
"""The same for `hours`."""

FLAGS = (
    "load_on",
    "overload",
    "load_short_circuit",
    "battery_over_voltage",
    "over_discharge",
    "battery_full",
    "charging",
)
"""The flags of a reading; the first one is bit 0 of the column `flags`."""

metadata: MetaData = MetaData()

schema: Table = Table("tracer_schema", metadata, Column("version", Integer, nullable=False))
"""One row: the version of the schema."""

controllers: Table = Table(
    "tracer_controllers",
    metadata,
    Column("key", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
)
"""A small number for the stable identifier of each controller."""


def _of_controller() -> Column[Any]:
    return Column("controller", Integer, ForeignKey(controllers.c.key), primary_key=True, autoincrement=False)


def _time() -> Column[Any]:
    return Column("time", BigInteger, primary_key=True, autoincrement=False)


# The primary key is the order in which rows are read and deleted. Without a row ID, SQLite stores the rows in this
# order, and needs no index beside them.
readings: Table = Table(
    "tracer_readings",
    metadata,
    _of_controller(),
    _time(),
    *(
        Column(name, Integer, nullable=False)
        for name in (
            "battery_voltage",
            "pv_voltage",
            "load_current",
            "charge_current",
            "over_discharge_voltage",
            "battery_full_voltage",
        )
    ),
    Column("battery_temperature", SmallInteger, nullable=False),
    Column("flags", SmallInteger, nullable=False),
    Column("reserved", LargeBinary(4), nullable=False),
    # The last one, as in a database to which a migration has added it.
    Column("age", Integer),
    sqlite_with_rowid=False,
)
"""Each reading. Volts and amperes in hundredths, the temperature in degrees Celsius, the age in milliseconds.

The age is NULL where it is unknown: nobody has stated it, or a version without this column has written the row.
"""


@dataclass(frozen=True)
class Quantity:
    """A quantity of which minimum, mean and maximum are kept."""

    name: str
    """Its name, as in `Point`."""
    scale: int
    """How many of the stored units are one of the physical unit."""
    value: ColumnElement[int]
    """Its value in one row of `readings`."""


def _power(current: Column[Any]) -> ColumnElement[int]:
    # A product of two columns can be larger than PostgreSQL's INTEGER.
    return cast(readings.c.battery_voltage, BigInteger) * cast(current, BigInteger)


QUANTITIES = (
    Quantity("battery_voltage", 100, cast(readings.c.battery_voltage, BigInteger)),
    Quantity("pv_voltage", 100, cast(readings.c.pv_voltage, BigInteger)),
    Quantity("charge_power", 10_000, _power(readings.c.charge_current)),
    Quantity("load_power", 10_000, _power(readings.c.load_current)),
    Quantity("battery_temperature", 1, cast(readings.c.battery_temperature, BigInteger)),
)
"""The quantities, in the order of the fields of `Point`."""

AGGREGATES = {f"{quantity.name}_{kind}": quantity.value for quantity in QUANTITIES for kind in ("min", "sum", "max")}
"""The columns of aggregated rows, except `count`; with the value of each in a row of `readings`."""


def _of_rows(name: str) -> Table:
    """Return a table of the count of readings, and of minimum, sum and maximum of each quantity in its stored unit."""
    return Table(
        name,
        metadata,
        _of_controller(),
        _time(),
        Column("count", Integer, nullable=False),
        *(Column(name, BigInteger, nullable=False) for name in AGGREGATES),
        sqlite_with_rowid=False,
    )


five_minutes: Table = _of_rows("tracer_five_minutes")
"""The readings of each five minutes, aggregated."""

hours: Table = _of_rows("tracer_hours")
"""The same of each hour, so that a year is read fast."""

pending: Table = Table("tracer_pending", metadata, _of_controller(), _time(), sqlite_with_rowid=False)
"""The five minutes for which readings were written since the last roll-up: `five_minutes` is not complete there."""

days: Table = Table(
    "tracer_days",
    metadata,
    _of_controller(),
    Column("day", Date, primary_key=True),
    Column("charge", Double, nullable=False),
    Column("load", Double, nullable=False),
    sqlite_with_rowid=False,
)
"""Energy of each local day in watt-hours."""


def total(value: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the sum of whole numbers as one. PostgreSQL alone would make a decimal number of it."""
    return cast(func.sum(value), BigInteger)


def aggregated(name: str, value: ColumnElement[Any]) -> ColumnElement[int]:
    """Return what aggregates *value* as the column *name* of `AGGREGATES` does."""
    if name.endswith("_sum"):
        return total(value)
    return func.min(value) if name.endswith("_min") else func.max(value)


def extremes(count: int, aggregates: Sequence[int]) -> Iterator[tuple[float, float, float]]:
    """Yield minimum, mean and maximum of each quantity in its physical unit, from the columns `AGGREGATES` of a row."""
    for number, scale in enumerate(_SCALES):
        low, sum_, high = aggregates[3 * number : 3 * number + 3]
        yield low / scale, sum_ / count / scale, high / scale


_SCALES = [quantity.scale for quantity in QUANTITIES]

Migration = Callable[[Connection], None]


def _add_age(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE tracer_readings ADD COLUMN age INTEGER")


MIGRATIONS: Sequence[Migration] = (_add_age,)
"""What leads from version 1 to 2, from 2 to 3, and so on. A migration runs in one transaction with all others."""

VERSION = 1 + len(MIGRATIONS)
"""The version of the tables above."""


class SchemaError(Exception):
    """The database has a schema that this version of the program does not know."""


def prepare(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Create the tables, or bring them to the newest version. Needs a transaction.

    Raises SchemaError for a newer schema, before anything is changed.
    """
    newest = 1 + len(migrations)
    if not inspect(connection).has_table(schema.name):
        metadata.create_all(connection)
        connection.execute(insert(schema).values(version=newest))
        return
    version = _version(connection)
    _check(version, newest)
    for migration in migrations[version - 1 :]:
        migration(connection)
    if version != newest:
        connection.execute(update(schema).values(version=newest))


def check_version(connection: Connection) -> None:
    """Raise SchemaError unless the tables have the version that this program knows."""
    version = _version(connection)
    _check(version, VERSION)
    if version < VERSION:
        raise SchemaError(f"the history has schema version {version}; start the gateway once to bring it to {VERSION}")


def _version(connection: Connection) -> int:
    return connection.execute(select(func.max(schema.c.version))).scalar() or 0


def _check(version: int, newest: int) -> None:
    if version > newest:
        raise SchemaError(
            f"the history has schema version {version}, and this version of tracer-async knows {newest}: "
            "update tracer-async, or configure another database"
        )
    if version < 1:
        raise SchemaError("the history has no schema version: configure another database")
