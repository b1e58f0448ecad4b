"""Which processes have a device open, on Linux. Nothing here opens the device."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["Holder", "holders_of", "sees_own_processes", "unseen_processes"]

_PROC = Path("/proc")
_PSEUDO_TERMINALS = range(136, 144)
"""The major device numbers of pseudo-terminals."""

_find_tty_index = re.compile(r"^tty-index:\s*(\d+)", re.MULTILINE).search


class Holder(NamedTuple):
    """A process that has a device open."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def unseen_processes() -> str:
    """Say which processes `holders_of` does not see. Empty if it sees all."""
    if not _PROC.is_dir():
        return "this system does not tell which programs have it open"
    return "" if os.geteuid() == 0 else "processes of other users are visible to root only"


def sees_own_processes() -> bool:
    """Return whether `holders_of` sees the processes of this user."""
    return _PROC.is_dir()


def holders_of(path: str) -> list[Holder]:
    """Return the other processes that have the device open or locked, as far as this user may see them.

    The process that serves the other end of a pseudo-terminal is not one of them. Raises OSError if *path* is gone.
    """
    device = os.stat(path)  # noqa: PTH116  # follows a link, as the opening of the port does
    pids = {pid for pid in _processes() if _has_open(pid, device)}
    pids |= _lock_owners(device)
    return [Holder(pid, _name(pid)) for pid in sorted(pids) if not _serves(pid, device)]


def _processes() -> Iterator[int]:
    if _PROC.is_dir():
        yield from (
            int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()
        )


def _descriptors(pid: int) -> Iterator[Path]:
    with suppress(OSError):  # a process of another user, or one that has ended
        yield from (_PROC / str(pid) / "fd").iterdir()


def _has_open(pid: int, device: os.stat_result) -> bool:
    for descriptor in _descriptors(pid):
        with suppress(OSError):
            # The link first: to stat() a file on a network file system that hangs would hang here too.
            if os.readlink(descriptor).startswith("/dev/"):  # noqa: PTH115  # a path is not needed
                opened = descriptor.stat()
                if stat.S_ISCHR(opened.st_mode) and opened.st_rdev == device.st_rdev:
                    return True
    return False


def _serves(pid: int, device: os.stat_result) -> bool:
    """Return whether the process has the other end of the pseudo-terminal."""
    if os.major(device.st_rdev) not in _PSEUDO_TERMINALS:
        return False
    for descriptor in _descriptors(pid):
        with suppress(OSError):
            if os.readlink(descriptor).endswith("ptmx"):  # noqa: PTH115
                found = _find_tty_index((descriptor.parents[1] / "fdinfo" / descriptor.name).read_text())
                if found and int(found[1]) == os.minor(device.st_rdev):
                    return True
    return False


def _lock_owners(device: os.stat_result) -> set[int]:
    """Return the processes that lock the device. The list of locks is readable by all users."""
    file = f"{os.major(device.st_dev):02x}:{os.minor(device.st_dev):02x}:{device.st_ino}"
    owners = set()
    with suppress(OSError):
        for line in (_PROC / "locks").read_text().splitlines():
            words = line.replace(" -> ", " ").split()
            # number: kind mode access pid device:inode start end
            if len(words) >= 6 and words[5] == file and words[4].isdigit() and int(words[4]) not in (0, os.getpid()):
                owners.add(int(words[4]))
    return owners


def _name(pid: int) -> str:
    with suppress(OSError):
        return (_PROC / str(pid) / "comm").read_text().strip()
    return "unknown"
