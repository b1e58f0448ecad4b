"""Files of columns that are written chunk by chunk: npz and Parquet. Each imports what it needs when it is used."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, BinaryIO
from zipfile import ZipFile

from tracer_async.errors import MissingExtraError
from tracer_async.protocol import RealtimeData

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COLUMNS", "NpzFile", "ParquetFile"]

COLUMNS = ("offset", "sender", *RealtimeData._fields)

# So many readings, about 10 MB, make a row group.
_ROW_GROUP = 1 << 17


class NpzFile:
    """An npz file: an array for each of `COLUMNS`, and the names of the senders, which ``sender`` counts into.

    In the file an array's length comes before it, and is not known until the last chunk. So the columns wait in
    temporary files, in *folder*: the usual place for such files may be in memory.
    """

    def __init__(self, out: BinaryIO, folder: Path | None) -> None:
        self._out = out
        self._folder = folder
        self._files = ExitStack()
        self._columns: dict[str, tuple[IO[bytes], np.dtype[Any]]] = {}
        self._count = 0
        self._senders: tuple[str, ...] = ()

    def write(self, readings: NDArray[np.void], senders: tuple[str, ...]) -> None:
        """Add the readings of a chunk."""
        for name in COLUMNS:
            if name not in self._columns:
                file = self._files.enter_context(TemporaryFile(dir=self._folder))  # noqa: SIM115  # the stack closes it
                self._columns[name] = file, readings.dtype[name]
            self._columns[name][0].write(readings[name].tobytes())
        self._count += len(readings)
        self._senders = senders

    def finish(self) -> None:
        """Put the columns together. Without a chunk, nothing is written."""
        if not self._columns:
            return
        import numpy as np
        from numpy.lib import format as npy

        with ZipFile(self._out, "w") as archive:
            for name, (column, dtype) in self._columns.items():
                column.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as array:
                    header = {"descr": dtype.base.str, "fortran_order": False, "shape": (self._count, *dtype.shape)}
                    npy.write_array_header_1_0(array, header)
                    shutil.copyfileobj(column, array, 1 << 20)
            with archive.open("senders.npy", "w") as array:
                npy.write_array(array, np.array(self._senders), allow_pickle=False)

    def close(self) -> None:
        """Give up the temporary files."""
        self._files.close()


class ParquetFile:
    """A Parquet file: a column for each of `COLUMNS`, the sender by its name or null, the reserved bytes as bytes."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._writer: Any = None
        self._batches: list[Any] = []
        self._count = 0

    @staticmethod
    def require() -> None:
        """Raise MissingExtraError unless pyarrow is installed."""
        try:
            import pyarrow as pa  # noqa: F401  # only to find out whether it is there
        except ImportError as error:
            raise MissingExtraError("writing Parquet", "parquet") from error

    def write(self, readings: NDArray[np.void], senders: tuple[str, ...]) -> None:
        """Add the readings of a chunk."""
        import numpy as np
        import pyarrow as pa

        columns = {name: pa.array(np.ascontiguousarray(readings[name])) for name in COLUMNS if name != "reserved"}
        columns["sender"] = pa.array([name or None for name in senders], pa.string()).take(columns["sender"])
        raw = pa.py_buffer(readings["reserved"].tobytes())
        columns["reserved"] = pa.Array.from_buffers(pa.binary(4), len(readings), [None, raw])
        self._batches.append(pa.RecordBatch.from_pydict(columns))
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
        """Write what is left, and the file's end. Without a chunk, nothing is written."""
        if self._batches:
            self._write_row_group()
        self.close()

    def close(self) -> None:
        """Give up what has not been written yet."""
        self._batches.clear()
        if self._writer is not None:
            self._writer.close()
