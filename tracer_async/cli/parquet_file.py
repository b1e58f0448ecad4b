"""A Parquet file of readings, written chunk by chunk. What it needs is imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from tracer_async.cli.formats import printable
from tracer_async.errors import MissingExtraError
from tracer_async.records import DATA_FIELDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COLUMNS", "ParquetFile"]

COLUMNS = ("offset", "sender", *DATA_FIELDS)
"""The columns of a table of readings, in CSV too."""

# So many readings, about 10 MB, make a row group.
_ROW_GROUP = 1 << 17

_POWERS = {"charge_power": "charge_current", "load_power": "load_current"}


class ParquetFile:
    """A Parquet file with a column for each of `COLUMNS`. The sender is its name or null."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._writer: Any = None
        self._batches: list[Any] = []
        self._count = 0

    @staticmethod
    def require() -> None:
        """Raise MissingExtraError unless NumPy and pyarrow are installed."""
        try:
            import numpy as np  # noqa: F401  # only to find out whether it is there
            import pyarrow as pa  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("writing Parquet", "parquet") from error

    def write(self, readings: NDArray[np.void], senders: tuple[str, ...]) -> None:
        """Add the readings of a chunk."""
        import numpy as np
        import pyarrow as pa

        def column(name: str) -> Any:
            if name == "sender":
                names = [printable(sender) or None for sender in senders]
                return pa.array(names, pa.string()).take(pa.array(readings["sender"]))
            if name == "reserved":
                return _hexadecimal(np.ascontiguousarray(readings["reserved"]))
            if name in _POWERS:
                return pa.array(_power(readings["battery_voltage"], readings[_POWERS[name]]))
            return pa.array(np.ascontiguousarray(readings[name]))

        self._batches.append(pa.RecordBatch.from_pydict({name: column(name) for name in COLUMNS}))
        self._count += len(readings)
        if self._count >= _ROW_GROUP:
            self._write_row_group()

    def _write_row_group(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.Table.from_batches(self._batches)
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._out, table.schema)
        self._writer.write_table(table)
        self._batches.clear()
        self._count = 0

    def finish(self) -> None:
        """Write what is left, and the end of the file. Without a chunk, nothing is written."""
        if self._batches:
            self._write_row_group()
        self.close()

    def close(self) -> None:
        """Discard what has not been written yet."""
        self._batches.clear()
        if self._writer is not None:
            self._writer.close()


def _power(volts: NDArray[np.float64], amperes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return watts, rounded as `RealtimeData.to_dict` rounds them: from whole numbers of hundredths."""
    import numpy as np

    watts: NDArray[np.float64] = np.rint(np.rint(volts * 100) * np.rint(amperes * 100) / 100) / 100
    return watts


def _hexadecimal(rows: NDArray[np.uint8]) -> Any:
    """Return each row of bytes as a string of hexadecimal digits."""
    import numpy as np
    import pyarrow as pa

    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.stack([digits[rows >> 4], digits[rows & 15]], axis=-1)
    ends = np.arange(len(rows) + 1, dtype=np.int32) * (2 * rows.shape[1])
    return pa.Array.from_buffers(
        pa.string(), len(rows), [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(text.tobytes())]
    )
