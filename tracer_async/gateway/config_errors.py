"""The errors of a configuration file: all of them at once, each in one line, and no secret in any."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tracer_async import TracerError
from tracer_async.gateway.config import GatewayConfig, Section
from tracer_async.gateway.config_keys import Key, keys, tables

__all__ = ["ConfigError", "KeyPath", "dotted", "problems", "shown"]

KeyPath = tuple[str | int, ...]

_LONGEST = 60


class ConfigError(TracerError, ValueError):
    """The configuration file cannot be used. ``errors`` are all of its errors, each in one line."""

    def __init__(self, path: Path, errors: list[str]) -> None:
        self.path = path
        self.errors: list[str] = [_one_line(f"{path}: {error}") for error in errors]
        super().__init__("\n".join(self.errors))


def dotted(path: KeyPath) -> str:
    """Return the path of a key as it is written in TOML: ``controllers.roof.interval``, ``web.hosts[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (_shortened(part) if bare else _quoted(part))
    return text


def problems(error: ValidationError, table: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a file, from pydantic's errors and the file's own values before any substitution."""
    for item in error.errors(include_url=False):
        path: KeyPath = item["loc"]
        key = _key_at(path)
        if key is not None and key.is_secret and item["type"] in ("too_short", "string_too_short"):
            yield _too_short(path, _secret_file(path, table), item["ctx"]["min_length"])
        elif (file := _secret_file(path, table)) is not None:
            yield f"{dotted(file)}: the file does not contain what is expected: {_expected(path)}"
        elif path and path[-1] == "[key]":
            yield f"{dotted(path[:-1])}: {_reason(item)}"
        elif item["type"] == "value_error":
            yield _invalid(path, _reason(item), table)
        elif item["type"] == "missing":
            yield f"{dotted(path)}: the key is missing; expected {_expected(path)}" + (
                f": {key.description}" if key else ""
            )
        elif key is not None and key.type is tuple and path[-1] == key.name and isinstance(_value_at(path, table), str):
            yield f"{dotted(path)}: found {_found(path, table)}; write a list: [{_found(path, table)}]"
        else:
            yield f"{dotted(path)}: found {_found(path, table)}; expected {_expected(path)}"


def _too_short(path: KeyPath, file: KeyPath | None, least: int) -> str:
    """Return the line about a secret that is too short, in the configuration or in a *file* of its own."""
    if least == 1:
        return f"{dotted(file or path)}: it is empty"
    where = "the text in the file is " if file else ""
    return f"{dotted(file or path)}: {where}too short: it needs at least {least} characters"


def _secret_file(path: KeyPath, table: Mapping[str, Any]) -> KeyPath | None:
    """Return the path of the key that names the file which the secret at *path* was read from."""
    key = _key_at(path)
    if key is None or not key.is_secret:
        return None
    section: Any = table
    for part in path[:-1]:
        section = section[part]
    return (*path[:-1], f"{key.name}_file") if key.name not in section else None


def _invalid(path: KeyPath, reason: str, table: Mapping[str, Any]) -> str:
    """Return the line about a value that one of our own checks does not accept, or about several keys of a table."""
    key = _key_at(path)
    if key is None:
        return f"{dotted(path)}: {reason}".removeprefix("controllers: ")
    found = _found(path, table)
    if "${" in found or "${" in str(_value_at(path, table)):  # the reason may repeat what came from the environment
        return f"{dotted(path)}: found {found}, and the value from the environment is not valid: {key.description}"
    return f"{dotted(path)}: found {found}; {reason}"


def _reason(item: Mapping[str, Any]) -> str:
    return str(item["ctx"]["error"])


def _key_at(path: KeyPath) -> Key | None:
    """Return the key at *path*; None if there is a table."""
    model: type[Section] = GatewayConfig
    rest = list(path)
    while rest and (table := tables(model).get(str(rest[0]))) is not None:
        model = table.model
        rest = rest[2 if table.named else 1 :]
    return keys(model).get(str(rest[0])) if rest else None


def _expected(path: KeyPath) -> str:
    key = _key_at(path)
    if key is None:
        return "a table for each controller, such as [controllers.roof]" if path == ("controllers",) else "a table"
    return "a string" if isinstance(path[-1], int) else key.expected


def _found(path: KeyPath, table: Mapping[str, Any]) -> str:
    key = _key_at(path)
    return shown(_value_at(path, table), secret=key is None or key.is_secret)


def _value_at(path: KeyPath, table: Mapping[str, Any]) -> object:
    value: Any = table
    for part in path:
        value = value[part]
    return value


def shown(value: object, *, secret: bool) -> str:
    """Return a value of the file in one short line; its type alone if it may be a secret."""
    kind = next((words for kinds, words in _KINDS.items() if isinstance(value, kinds)), "a value")
    if secret or isinstance(value, list | dict):
        return kind
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # Two parts of a URL may contain a password: what is before the @, and the query.
        pattern = r"(^[^/@]*//)?.*" if "@" in value else r"([?]).*"
        return _quoted(re.sub(pattern, r"\1…", value, count=1, flags=re.DOTALL))
    try:
        return _shortened(str(value))
    except ValueError:  # Python does not print numbers of more than 4300 digits
        return f"{kind} that is far too large"


# bool before int, datetime before date: each is a kind of the other.
_KINDS: dict[type, str] = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
    datetime: "a date and time",
    date: "a date",
    time: "a time",
}


def _quoted(text: str) -> str:
    return _one_line(json.dumps(_shortened(text), ensure_ascii=False))


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
