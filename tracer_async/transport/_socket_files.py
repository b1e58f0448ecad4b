"""The files of Unix sockets that servers of this library listen on."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["MadeSocket", "refuse_taken"]


def refuse_taken(path: str | os.PathLike[str]) -> None:
    """Raise FileExistsError unless *path* is free, or the socket of a server that has ended.

    Without this check asyncio and anyio replace the socket of a server that is still running.
    """
    name = os.fspath(path)
    try:
        if not stat.S_ISSOCK(os.lstat(name).st_mode):
            raise FileExistsError(errno.EEXIST, "a file with this name exists", name)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            return
        except OSError:
            pass
    raise FileExistsError(errno.EEXIST, "another program listens there", name)


class MadeSocket:
    """The file of a socket that was bound just now."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._made = self._path.lstat()

    def remove(self) -> None:
        """Remove the file, unless another program has replaced it.

        Call it while the socket is open: afterwards the file of another program can have the same number.
        """
        with suppress(OSError):
            if os.path.samestat(self._path.lstat(), self._made):
                self._path.unlink()
