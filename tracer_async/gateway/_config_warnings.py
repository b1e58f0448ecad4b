"""What is not wrong with a configuration, but probably not meant: a line in the log for each."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

__all__ = ["warn_if_parent_is_missing", "warn_if_readable_by_all"]

_log = logging.getLogger(__name__)


def warn_if_parent_is_missing(directory: Path) -> None:
    """Warn if a state directory and its parent do not exist: the path may be mistyped.

    It is no error, since the gateway creates both.
    """
    if _is_missing(directory) and _is_missing(directory.parent):
        _log.warning(
            "state_directory: %s does not exist, and neither does %s. Is the path right? "
            "The gateway creates it, and counts the energy from 0",
            directory,
            directory.parent,
        )


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # such as no permission: it cannot be found out
        return False
    return False


def warn_if_readable_by_all(file: Path, where: str) -> None:
    """Warn about a file with a secret that every user can read. *where* is what the line begins with."""
    if os.name == "posix" and file.stat().st_mode & stat.S_IROTH:
        _log.warning("%s%s contains a secret and can be read by every user: chmod o-r it", where, file)
