"""A recording that was read into memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from tracer_async.capture._json_lines import (
    Burst,
    DamagedLine,
    LinkChange,
    MissingRecords,
    Record,
    RecordingHeader,
    read_records,
    split_lines,
)
from tracer_async.errors import CaptureError

__all__ = ["CONTROLLER", "Recording"]

CONTROLLER = "controller"
"""The name of the sender whose bytes are replies. Every other sender asks."""

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Recording:
    """What was sent and received on one line, in order, with its times."""

    header: RecordingHeader | None
    """The first header. None if it is damaged, and in a capture of another program."""
    records: tuple[Record, ...]
    """All records in order, including headers."""
    damaged: tuple[DamagedLine, ...] = ()
    """The lines that could not be read. Their bytes are missing."""

    @classmethod
    def read(cls, source: str | os.PathLike[str] | BinaryIO) -> Self:
        """Read a recording, or a capture of JSON lines without times, from a path or from a file open in binary mode.

        Damaged lines are left out, and listed in `damaged`. Raises CaptureError if there is no line of a recording,
        OSError if the file cannot be read.
        """
        if isinstance(source, str | os.PathLike):
            with Path(source).open("rb") as file:
                return cls.read(file)
        return cls.of(read_records(split_lines(iter(partial(source.read, _CHUNK), b""))))

    @classmethod
    def of(cls, found: Iterable[Record | DamagedLine]) -> Self:
        """Make a recording of records. Raises CaptureError if there is none."""
        records: list[Record] = []
        damaged: list[DamagedLine] = []
        for record in found:
            if isinstance(record, DamagedLine):
                damaged.append(record)
            else:
                records.append(record)
        if not records:
            raise CaptureError("not a recording: there is no line of a recording in it")
        header = next((record for record in records if isinstance(record, RecordingHeader)), None)
        return cls(header, tuple(records), tuple(damaged))

    @property
    def bursts(self) -> tuple[Burst, ...]:
        """What was sent and received, without the other records."""
        return tuple(record for record in self.records if isinstance(record, Burst))

    @property
    def link_changes(self) -> tuple[LinkChange, ...]:
        """When the connection was established and lost."""
        return tuple(record for record in self.records if isinstance(record, LinkChange))

    @property
    def missing(self) -> int:
        """Number of records that the recorder could not write."""
        return sum(record.number for record in self.records if isinstance(record, MissingRecords))
