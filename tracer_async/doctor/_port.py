"""The checks of a serial port, before the first byte is sent."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress

from tracer_async.doctor._adapter import describe_adapter, is_console, is_other_device
from tracer_async.doctor._findings import Finding, finding
from tracer_async.doctor._holders import Holder, holders_of, sees_own_processes, unseen_processes
from tracer_async.transport import SerialAddress
from tracer_async.transport._threads import call

__all__ = ["check_port", "held_by_unknown", "permission"]

Report = Callable[[Finding], None]

# Seconds that a driver may take to open a port. Some hang.
_OPEN_TIMEOUT = 5.0
_NO_TERMINAL = "a device without a baud rate"
_SHOWN_HOLDERS = 4


async def check_port(address: SerialAddress, report: Report) -> bool:
    """Report on the port. Return whether it may be used. Nothing is sent."""
    path = address.path
    if sys.platform == "win32":
        return True  # the opening tells all that can be known
    try:
        status = os.stat(path)  # noqa: PTH116  # what is behind the links
    except OSError as error:
        report(finding("port-missing", f"{path}: {_reason(error)}"))
        return False
    report(finding("port-exists", _with_target(path)))
    if not stat.S_ISCHR(status.st_mode):
        report(finding("port-not-serial", f"{path} is {'a folder' if stat.S_ISDIR(status.st_mode) else 'a file'}"))
        return False
    if is_other_device(status.st_rdev):
        report(finding("port-not-serial", f"{path} is {_NO_TERMINAL}"))
        return False
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        report(permission(path))
        return False
    report(finding("port-allowed", f"user {_user(os.geteuid())}"))
    if not _check_holders(path, report):
        return False
    try:
        async with asyncio.timeout(_OPEN_TIMEOUT):
            is_terminal = await call(_is_terminal, path)
    except TimeoutError:
        report(finding("port-failed", f"opening it takes more than {_OPEN_TIMEOUT:g} s"))
        return False
    except OSError as error:
        report(held_by_unknown(path) if error.errno == errno.EBUSY else finding("port-failed", _reason(error)))
        return False
    if not is_terminal:
        report(finding("port-not-serial", f"{path} is {_NO_TERMINAL}"))
        return False
    report(finding("port-serial", f"{address.baudrate} baud, {address.bytesize}{address.parity}{address.stopbits}"))
    report(finding("port-adapter", describe_adapter(path)))
    if is_console(path):
        report(finding("port-console", f"{_with_target(path)}, in /sys/class/tty/console/active"))
    return True


def _check_holders(path: str, report: Report) -> bool:
    holders = []
    with suppress(OSError):  # unplugged just now: the opening tells
        holders = holders_of(path)
    if holders:
        report(_held(holders))
        return False
    unseen = unseen_processes()
    whose = "of yours has" if sees_own_processes() else "is known to have"
    report(finding("port-free", unseen, title=f"no other program {whose} it open" if unseen else None))
    return True


def _held(holders: list[Holder]) -> Finding:
    more = len(holders) - _SHOWN_HOLDERS
    names = ", ".join(map(str, holders[:_SHOWN_HOLDERS])) + (f" and {more} more" if more > 0 else "")
    return finding("port-held", names)


def held_by_unknown(path: str) -> Finding:
    """Return the finding for a port that cannot be opened because another program has it open."""
    seen = []
    with suppress(OSError):
        seen = holders_of(path)
    if seen:
        return _held(seen)
    unseen = unseen_processes()
    more = f", and {unseen}: try `sudo tracer-async doctor {path}`" if unseen else ""
    return finding("port-held", f"the system says so{more}")


def permission(path: str) -> Finding:
    """Return the finding for a port or socket that this user may not open."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        advice = "This user needs permission to enter the folder of the socket."
        return finding("port-permission", f"{path}: {_reason(error)}", advice=advice)
    user, group = _user(os.geteuid()), _group(status.st_gid)
    evidence = f"{stat.filemode(status.st_mode)} {_user(status.st_uid)} {group}, and you are {user}"
    is_socket = stat.S_ISSOCK(status.st_mode)
    needed = stat.S_IWGRP if is_socket else stat.S_IRGRP | stat.S_IWGRP
    if status.st_mode & needed != needed:
        how = "let the program that listens on it change its mode" if is_socket else "change its mode with a udev rule"
        advice = f"Its group may not use it either. Run as {_user(status.st_uid)}, or {how}."
    elif _is_member(user, status.st_gid):
        advice = f"You are in the group {group} since your last login. Log out and in again."
    else:
        advice = f"Join its group with `sudo usermod -aG {group} {user}`, then log out and in again."
    return finding("port-permission", evidence, advice=advice)


# These two modules are not there on Windows, where nothing calls the functions that use them.


def _is_member(user: str, group: int) -> bool:
    import grp

    with suppress(KeyError):
        return user in grp.getgrgid(group).gr_mem
    return False


def _is_terminal(path: str) -> bool:
    """Open the port and close it again. May block without limit. Not a byte is written."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _with_target(path: str) -> str:
    real = os.path.realpath(path)
    return path if real == path else f"{path} is {real}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
