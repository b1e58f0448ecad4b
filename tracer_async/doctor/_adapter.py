"""What Linux knows about the adapter of a serial port."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["describe_adapter", "is_console", "is_other_device", "is_pseudo_terminal"]

_SYSFS = Path("/sys")


def describe_adapter(path: str, sysfs: Path = _SYSFS) -> str:
    """Return what is known about the adapter, such as "FT232R USB UART, USB 0403:6001, driver ftdi_sio"."""
    if is_pseudo_terminal(path):
        return "a pseudo-terminal, no hardware"
    device = sysfs / "class" / "tty" / Path(os.path.realpath(path)).name / "device"
    words = []
    with suppress(OSError):
        folder = device.resolve(strict=True)
        usb = next((parent for parent in (folder, *folder.parents) if (parent / "idVendor").is_file()), None)
        if usb is not None:
            words = [
                _text(usb / "product") or "unnamed adapter",
                f"USB {_text(usb / 'idVendor')}:{_text(usb / 'idProduct')}",
            ]
    with suppress(OSError):
        words.append(f"driver {(device / 'driver').resolve(strict=True).name}")
    return ", ".join(words) or "unknown: the system has no data about it"


def is_other_device(device: int, sysfs: Path = _SYSFS) -> bool:
    """Return whether the device with this number is known to be no terminal. Tells without opening it."""
    subsystem = sysfs / "dev" / "char" / f"{os.major(device)}:{os.minor(device)}" / "subsystem"
    with suppress(OSError):
        return subsystem.resolve(strict=True).name != "tty"
    return False


def is_pseudo_terminal(path: str) -> bool:
    """Return whether the port is a pseudo-terminal of Linux, which has no baud rate."""
    return os.path.realpath(path).startswith("/dev/pts/")


def is_console(path: str, sysfs: Path = _SYSFS) -> bool:
    """Return whether the kernel writes its messages to the port."""
    return Path(os.path.realpath(path)).name in _text(sysfs / "class" / "tty" / "console" / "active").split()


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""
