"""A symbolic link to a pseudo-terminal, which belongs to one server at a time.

The server holds a lock on the file ``LINK.lock`` and writes into it where the link leads. The system releases the lock
when the process ends, however it ends. So the next server knows whether a link is served, and whether a link that is
not served was left by a server that was killed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["ServedLink"]

_LONGEST_PATH = 4096


class ServedLink:
    """A link that this server has made, or will make."""

    def __init__(self, link: str) -> None:
        self._link = Path(link)
        self._lock_path = self._link.with_name(f"{self._link.name}.lock")
        self._lock = -1
        self._target: str | None = None

    def take(self) -> None:
        """Reserve the name. Raises FileExistsError if the name is in use, OSError if the lock cannot be created."""
        link = self._link
        if link.exists() and not link.is_symlink():
            raise FileExistsError(None, "a file with this name exists")
        # A user's link leads nowhere while its adapter is unplugged.
        if link.is_symlink() and not str(link.readlink()).startswith(("/dev/pts/", "/dev/ttys")):
            raise FileExistsError(None, "a link with this name exists, and does not lead to a pseudo-terminal")
        self._lock = _locked(self._lock_path)
        # A server that was killed leaves its link, and the terminal may be another program's now.
        left = os.pread(self._lock, _LONGEST_PATH, 0)
        if left and not left.startswith(b"/dev/"):
            os.close(self._lock)
            self._lock = -1
            raise FileExistsError(None, f"{self._lock_path} exists, and is not the lock of a link")
        if link.exists() and os.fsencode(link.readlink()) != left:
            self.remove()
            raise FileExistsError(None, "another program serves there. If none does, delete the link")

    def lead_to(self, path: str) -> None:
        """Create the link, or change it. Raises OSError."""
        made = self._link.with_name(f"{self._link.name}.{os.getpid()}")
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, os.fsencode(path), 0)
        # Renaming replaces the link in one step: a program that opens it finds either the old or the new terminal.
        made.symlink_to(path)
        made.replace(self._link)
        self._target = path

    def remove(self) -> None:
        """Remove the link, unless another program has replaced it, and release its name."""
        if self._target is not None:
            with suppress(OSError):
                if str(self._link.readlink()) == self._target:
                    self._link.unlink()
            self._target = None
        if self._lock >= 0:
            with suppress(OSError):
                self._lock_path.unlink()
            os.close(self._lock)
            self._lock = -1


def _locked(path: Path) -> int:
    """Return a descriptor of a file that nobody else has locked. Raises FileExistsError, OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                # The server before may have removed the file after it was opened here.
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise FileExistsError(None, "another program serves there") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
