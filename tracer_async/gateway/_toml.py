"""Reads a TOML file; what is wrong with it becomes a `ConfigError` with the place, and with nothing of the values."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from tracer_async.gateway.config import GatewayConfig, Section
from tracer_async.gateway.config_errors import ConfigError
from tracer_async.gateway.config_keys import keys, tables

__all__ = ["parse_toml", "read_error"]

# More than any real file.
_MAX_SIZE = 1024 * 1024

# What the parser says of a text without quotes: 192.168.1.20:8088 begins like a number, hello like nothing known.
_UNQUOTED = ("Expected newline or end of document after a statement", "Invalid value")


def parse_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(path, [f"cannot be read: {read_error(error)}"]) from None
    if len(data) > _MAX_SIZE:
        raise ConfigError(path, ["is larger than 1 MiB, and so no configuration"])
    try:
        text = data.decode("utf-8-sig")  # some editors on Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, [f"line {line}: is not UTF-8"]) from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(path, ["contains too many brackets within each other"]) from None
    except ValueError as error:
        raise ConfigError(path, [_syntax_error(str(error), text)]) from None


def _syntax_error(message: str, text: str) -> str:
    """Return what is wrong with a text that is not TOML: the place, and for a duplicate its name."""
    place = re.search(r" \(at (line (\d+), column \d+|end of document)\)$", message)
    if place is None:  # such as a number with too many digits
        return "is not TOML: a value is not valid"
    reason = message[: place.start()]
    if (twice := re.fullmatch(r"Cannot declare (\(.*\)) twice", reason)) is not None:
        table = ".".join(re.findall(r"'([^']*)'", twice[1]))
        return f"{_begin(place, text)}: the table [{table}] occurs twice"
    if (twice := re.fullmatch(r"Duplicate inline table key '(.*)'", reason, re.DOTALL)) is not None:
        return f"{place[1]}: the key {twice[1]} occurs twice"
    if reason == "Cannot overwrite a value":
        lines = text.rstrip().splitlines()
        line = lines[min(int(place[2] or len(lines)), len(lines)) - 1]
        # Only a name that is known: the line may be the end of a secret that has several lines.
        name = re.match(r"\s*\[?([A-Za-z0-9_.-]+)\]?\s*(=|$)", line)
        named = name is not None and name[1].rpartition(".")[2] in _all_names()
        return f"{place[1]}: the key {name[1] + ' ' if name and named else ''}occurs twice"
    hint = '. Is a text without quotes? Write "..."' if reason in _UNQUOTED else ""
    return f"{place[1]}: is not TOML: {reason[0].lower()}{reason[1:]}{hint}"


def _begin(place: re.Match[str], text: str) -> str:
    """Return where the line of *place* begins. The parser names the end of the table's name."""
    if place[2] is None:
        return place[1]
    line = text.replace("\r\n", "\n").split("\n")[int(place[2]) - 1]
    return f"line {place[2]}, column {len(line) - len(line.lstrip()) + 1}"


def _all_names(model: type[Section] = GatewayConfig) -> set[str]:
    names = {*keys(model), *tables(model)}
    return names.union(*(_all_names(table.model) for table in tables(model).values()))


def read_error(error: OSError | ValueError) -> str:
    """Return why a file could not be read."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return (isinstance(error, OSError) and error.strerror) or "the name is not valid"
