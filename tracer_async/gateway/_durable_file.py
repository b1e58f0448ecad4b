"""Replaces files so that a power cut leaves the old content or the new one, and never a part."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["sync_directory", "write_new"]


def write_new(file: Path, content: bytes) -> Path:
    """Write the new content beside *file*, and return where it is. It is on the disk then. Raises OSError."""
    new = file.with_name(f"{file.name}.new")
    try:
        with new.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        # On a full disk, a part of a file would take the space that others need.
        with suppress(OSError):
            new.unlink()
        raise
    return new


def sync_directory(path: Path) -> None:
    """Write the names in a directory to the disk, after a file was renamed. Windows cannot do that."""
    if os.name == "nt":
        return
    directory = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
