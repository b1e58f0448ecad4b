"""The file that a recorder writes. If the disk is full, records are lost, and the file says how many."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from tracer_async.capture._json_lines import Burst, LinkChange, MissingRecords, Record, RecordingHeader, to_line
from tracer_async.errors import CaptureError

__all__ = ["RecordingFile"]

_log = logging.getLogger("tracer_async.capture")


class RecordingFile:
    """Appends records to a file. Raises OSError if it cannot be opened, CaptureError if it is not a recording."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._path = path
        self._fsync = fsync
        # Unbuffered: the caller collects records.
        self._file = path.open("ab", buffering=0)
        try:
            # A crash may have torn the last line.
            self._torn = _is_torn(path)
        except BaseException:
            self._file.close()
            raise
        # The header, until it is written.
        self._header: list[Record] = []
        # Records that were lost, and are not counted in the file yet.
        self._missing = 0
        self.lost: int = 0
        """Number of all records that were lost since the file was opened."""
        self._failing = False

    def begin(self, header: RecordingHeader) -> None:
        """Write *header* before everything else, at the next call of `write`."""
        self._header = [header]

    def close(self) -> None:
        """Close the file. May be called again."""
        self._file.close()

    def write(self, records: list[Record], lost: int) -> None:
        """Write *records*, and that *lost* other ones are missing. Waits for the disk. Errors are logged."""
        times = [record.t or 0.0 for record in records if isinstance(record, Burst | LinkChange)] or [0.0]
        before = [MissingRecords(self._missing, times[0], time.time())] if self._missing else []
        after = [MissingRecords(lost, times[-1], time.time())] if lost else []
        # Without the header, the times of all records would belong to an earlier one. Records that could not be written
        # are from before *records*, and dropped ones came when *records* had filled the queue.
        records = [*self._header, *before, *records, *after]
        self.lost += lost
        if not records:
            return
        unwritten, error = self._write_lines(list(map(to_line, records)))
        left = records[len(records) - unwritten :]
        self._header = [record for record in left if isinstance(record, RecordingHeader)]
        unwritten_records = sum(isinstance(record, Burst | LinkChange) for record in left)
        self.lost += unwritten_records
        self._missing = unwritten_records + sum(each.number for each in left if isinstance(each, MissingRecords))
        if error is not None and not self._failing:
            _log.warning("%s: cannot write the recording (%s), trying again", self._path, error.strerror or error)
        elif error is None and self._failing:
            _log.warning("%s: the recording is written again", self._path)
        self._failing = error is not None

    def _write_lines(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        """Return how many of the last lines were not written, or only in part, and why."""
        text = b"\n" * self._torn + b"".join(lines)
        try:
            while text:
                size = self._file.write(text) or 0
                if size:
                    self._torn = text[size - 1 : size] != b"\n"
                text = text[size:]
            if self._fsync:
                os.fsync(self._file.fileno())
        except OSError as error:
            return min(text.count(b"\n"), len(lines)), error
        return 0, None


def _is_torn(path: Path) -> bool:
    """Return whether the last line of a file has no end. Raises CaptureError unless it is empty or has JSON lines."""
    if not path.is_file():  # a pipe or a device
        return False
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(0)
        if file.read(1) != b"{":
            raise CaptureError(f"{path}: this file is not a recording. Choose another one")
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
