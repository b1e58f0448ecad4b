"""A file that is written as a whole or not at all, and the progress of reading a long one."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

__all__ = ["opened", "progress", "size_of"]

_LONG = 4 << 20


@contextmanager
def opened(path: Path | None, source: BinaryIO | None = None, *, option: str = "--output") -> Iterator[BinaryIO]:
    """Open *path*, the value of *option*, for writing, or standard output for None.

    The data goes to a temporary file in the same folder, which replaces *path* at the end, and only if no error was
    raised. Raises BadParameter if *path* is the file that *source* reads, and FileError if it cannot be written.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()  # before the summary
        return
    old = _status(path)
    if old is not None and not stat.S_ISREG(old.st_mode):  # a device or a pipe cannot be replaced
        with path.open("wb") as out:
            yield out
        return
    # By device and inode, so that no other name of the file, and no link to it, is taken for another file.
    read = None if source is None else _status_of(source)
    if old is not None and read is not None and os.path.samestat(old, read):
        raise click.BadParameter(f"{path} is the capture itself. Choose another file.", param_hint=f"'{option}'")
    path = path.resolve()  # a link stays a link
    # Exclusive creation: a file that is there is never opened, whatever its name.
    temporary = path.with_name(f".tracer-async-{secrets.token_hex(8)}.part")
    try:
        out = temporary.open("xb")
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    try:
        with out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        if old is not None:
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


@contextmanager
def progress(file: BinaryIO, *, quiet: bool) -> Iterator[BinaryIO]:
    """Show on standard error how much of a long file has been read, if that is a terminal, unless *quiet*."""
    size = size_of(file)
    if quiet or size is None or size < _LONG or not sys.stderr.isatty():
        yield file
        return
    from rich.console import Console
    from rich.progress import wrap_file

    with wrap_file(
        file, size, description="Decoding", console=Console(stderr=True), transient=True, refresh_per_second=4
    ) as followed:
        yield followed


def size_of(file: BinaryIO) -> int | None:
    """Return the size of a file, or None for a pipe or a terminal."""
    status = _status_of(file)
    return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None


def _status_of(file: BinaryIO) -> os.stat_result | None:
    try:
        return os.fstat(file.fileno())
    except OSError:  # it has no descriptor
        return None
