"""The file of the energy totals: its format, and how it is replaced so that no fault takes a stored total back.

There are two copies, the file itself and one with the suffix ``.bak``. Each of them is replaced as a whole, the backup
first. So both are complete at any moment, and after `EnergyFile.save` both hold the same totals. If one of them is lost
or damaged, even while the other one is replaced, every total that was saved is in the other one.

A file that cannot be used is never overwritten: it gets another name.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

from tracer_async.gateway._durable_file import sync_directory, write_new
from tracer_async.gateway.energy import MeterState
from tracer_async.gateway.events import DayEnergy

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["EnergyFile", "decode_states", "encode_states"]

_log = logging.getLogger(__name__)

_FORMAT = 1


class EnergyFile:
    """The file at *path*, with its backup. Blocking, and not thread-safe: call one method at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._backup = path.with_name(f"{path.name}.bak")
        # SHA-256 of each copy as it was read or written here last.
        self._known: dict[Path, bytes] = {}
        self._lock: int | None = None

    def open(self) -> dict[str, MeterState]:
        """Lock the file for this process, and return its totals by controller ID; none if there is no file.

        The backup is used only if the file cannot be: an owner may have restored an older file. A damaged copy is set
        aside with a logged error. Raises BlockingIOError if another process has locked the file.
        """
        with suppress(OSError):  # `save` fails too, and reports it
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._acquire()
        found: dict[Path, dict[str, MeterState]] = {}
        damaged = False
        for path in (self._path, self._backup):
            try:
                raw = path.read_bytes()
                found[path] = decode_states(raw)
                self._known[path] = sha256(raw).digest()
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                damaged = True
                try:
                    self._set_aside(path, f"cannot be used: {error}")
                except OSError as failure:  # `save` tries again before it writes.
                    _log.error("%s cannot be used: %s; it cannot be renamed: %s", path, error, failure)
        if self._path in found:
            return found[self._path]
        if self._backup in found:
            _log.warning("%s: using the backup %s", self._path, self._backup.name)
            return found[self._backup]
        if damaged:
            _log.error("%s: no totals can be read, counting begins at 0", self._path)
        else:
            _log.info("%s: a new file, counting begins at 0", self._path)
        return {}

    def save(self, states: Mapping[str, MeterState]) -> None:
        """Write the totals. Both copies are on the disk when this returns.

        Raises OSError, also if another process has locked the file since the lock was removed. Then each copy holds the
        old totals or the new ones.
        """
        self._acquire()
        content = encode_states(states)
        checksum = sha256(content).digest()
        for path in (self._backup, self._path):
            new = write_new(path, content)
            if not self._is_intact(path) and path.exists():
                self._set_aside(path, "was damaged or changed by another program")
            new.replace(path)
            self._known[path] = checksum
        sync_directory(self._path.parent)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _acquire(self) -> None:
        """Lock the file, unless that is done. A lock file that was removed is made again."""
        path = self._path.with_name(f"{self._path.name}.lock")
        if fcntl is None or (self._lock is not None and _is_open_as(self._lock, path)):
            return
        self.close()
        # Opened for reading: a file that is open for writing would keep its file system from being made read-only.
        try:
            lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return  # `save` fails too, and reports it.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise BlockingIOError(
                error.errno,
                "another gateway uses these energy totals: stop it, or set another state_directory",
                str(self._path),
            ) from None
        except OSError:
            os.close(lock)  # The file system has no locks.
        else:
            self._lock = lock

    def _is_intact(self, path: Path) -> bool:
        """Return whether a copy is as it was read or written here last."""
        try:
            return sha256(path.read_bytes()).digest() == self._known.get(path)
        except OSError:
            return False

    def _set_aside(self, path: Path, reason: str) -> None:
        """Rename a file that must be neither used nor overwritten. Raises OSError."""
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        path.rename(aside)
        _log.error("%s %s; it is kept as %s", path, reason, aside.name)


def _is_open_as(descriptor: int, path: Path) -> bool:
    """Return whether the open file is the one at *path*."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def encode_states(states: Mapping[str, MeterState]) -> bytes:
    """Encode totals by controller ID: one JSON document, with one line for each controller."""
    lines = [_encode_line(controller_id, _to_json(state)) for controller_id, state in states.items()]
    head = f'{{"format": {_FORMAT}, "sha256": "{_checksum(lines)}", "controllers": {{\n'
    return (head + ",\n".join(lines) + "\n}}\n").encode()


def decode_states(raw: bytes) -> dict[str, MeterState]:
    """Decode what `encode_states` has encoded. Raises ValueError with a reason for anything else."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(f"it is not of format {_FORMAT}")
    controllers = document.get("controllers")
    if not isinstance(controllers, dict):
        raise ValueError("it has no controllers")  # noqa: TRY004  # the caller expects one kind of error
    lines = [_encode_line(controller_id, state) for controller_id, state in controllers.items()]
    if document.get("sha256") != _checksum(lines):
        raise ValueError("the checksum is wrong")
    try:
        return {controller_id: _from_json(state) for controller_id, state in controllers.items()}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"a value is wrong: {error!r}") from None


def _encode_line(controller_id: str, state: Any) -> str:
    return f"{json.dumps(controller_id)}: {json.dumps(state)}"


def _checksum(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode()).hexdigest()


def _to_json(state: MeterState) -> dict[str, Any]:
    days = [[day.isoformat(), charge, load] for day, charge, load in state.days]
    return {
        "charge": state.charge,
        "load": state.load,
        "unknown": state.unknown,
        "time": state.time,
        "days": days,
        "monotonic": state.monotonic,
    }


def _from_json(state: dict[str, Any]) -> MeterState:
    return MeterState(
        _number(state["charge"]),
        _number(state["load"]),
        _number(state["unknown"]),
        _optional_number(state["time"]),
        tuple(
            DayEnergy(date.fromisoformat(day), _number(charge), _number(load)) for day, charge, load in state["days"]
        ),
        _optional_number(state.get("monotonic")),  # Files of older versions lack it.
    )


def _optional_number(value: Any) -> float | None:
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise ValueError(f"{value!r} is not a number of 0 or more")
    return float(value)
