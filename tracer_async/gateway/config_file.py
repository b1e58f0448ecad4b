"""Reads the configuration file: TOML, then ``${ENVIRONMENT}``, secrets and paths, then the models.

A file with errors gives one `ConfigError` with all of them. A misspelt key is reported, and then treated as the key
that was probably meant, so that one mistake gives one error.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tracer_async.gateway._config_conflicts import conflicts
from tracer_async.gateway._config_warnings import warn_if_parent_is_missing, warn_if_readable_by_all
from tracer_async.gateway._toml import parse_toml, read_error
from tracer_async.gateway.config import GatewayConfig, Section
from tracer_async.gateway.config_errors import ConfigError, KeyPath, dotted, problems, shown
from tracer_async.gateway.config_keys import Key, keys, tables

__all__ = ["ConfigError", "load_config"]

# More than any real secret.
_MAX_SECRET = 64 * 1024

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# The keys that two controllers must not have in common.
_COMPARED = ("url", "listen", "id")


def load_config(path: str | Path, *, environment: Mapping[str, str] | None = None) -> GatewayConfig:
    """Read a configuration file.

    Paths in it become absolute, and ``password_file`` becomes ``password``, and so on. *environment* replaces the
    process's own. Logs a warning about files with secrets that other users can read, and about a state directory that
    would be created together with its parent. Raises ConfigError.
    """
    path = Path(path)
    table = parse_toml(path)
    loader = _Loader(path.absolute().parent, os.environ if environment is None else environment)
    known = loader.known(table, GatewayConfig, ())
    resolved = loader.resolved(known, GatewayConfig, ())
    resolved.setdefault("state_directory", str(loader.state_directory()))
    errors = loader.errors
    found: list[str] = []
    try:
        config = GatewayConfig.model_validate(resolved)
    except ValidationError as error:
        found = list(problems(error, known))
    # The models compare controllers only where each of them is right, and also those whose key is a guess.
    controllers = resolved.get("controllers")
    compared = _conflicts(controllers, set())
    errors += [text for text in found if not text.startswith(loader.unresolved) and text not in compared]
    errors += _conflicts(controllers, loader.guessed)
    if errors:
        raise ConfigError(path, errors)
    warn_if_parent_is_missing(config.state_directory)
    if _has_secret(known, GatewayConfig):
        warn_if_readable_by_all(path, "")
    return config


def _conflicts(controllers: object, guessed: set[KeyPath]) -> list[str]:
    """Return what controllers have in common, without those whose address or ID is only *guessed*."""
    if not isinstance(controllers, dict):
        return []
    known = []
    for name, table in controllers.items():
        if isinstance(table, dict) and guessed.isdisjoint(("controllers", name, key) for key in _COMPARED):
            listen, stable_id = table.get("listen"), table.get("id")
            urls = [table.get("url"), *(listen if isinstance(listen, list) else [listen])]
            known.append(
                (name, [url for url in urls if isinstance(url, str)], stable_id if isinstance(stable_id, str) else None)
            )
    return [f"{dotted(('controllers', name))}: {reason}" for name, reason in conflicts(known)]


class _Loader:
    """Turns the tables of a file into those that the models take, and collects the errors."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.errors: list[str] = []
        self.guessed: set[KeyPath] = set()
        """The keys that have the value of a misspelt key."""
        self._unresolved: list[str] = []
        self._directory = directory
        self._environment = environment

    @property
    def unresolved(self) -> tuple[str, ...]:
        """How an error begins that only repeats one of `errors`: the value could not be found out."""
        return tuple(f"{path}: " for path in self._unresolved)

    def state_directory(self) -> Path:
        """Return the directory that is used if the file names none."""
        # systemd may give several, with colons between them.
        first = self._environment.get("STATE_DIRECTORY", "").partition(":")[0]
        return Path(first) if first else self._directory

    def known(self, table: Mapping[str, Any], model: type[Section], path: KeyPath) -> dict[str, Any]:
        """Return *table* without unknown keys, and misspelt ones under their right names."""
        names = [*keys(model), *tables(model)]
        known = {name: value for name, value in table.items() if name in names}
        for name, value in table.items():
            if name not in names:
                (match,) = get_close_matches(name, names, 1) or ("",)
                hint = f"did you mean {match}?" if match else f"expected one of {', '.join(names)}"
                self.errors.append(f"{dotted((*path, name))}: unknown key; {hint}")
                if match and match not in known:
                    known[match] = value
                    self.guessed.add((*path, match))
        for name, inner in tables(model).items():
            value = known.get(name)
            if not isinstance(value, dict):
                continue
            if inner.named:
                known[name] = {
                    key: self.known(item, inner.model, (*path, name, key)) if isinstance(item, dict) else item
                    for key, item in value.items()
                }
            else:
                known[name] = self.known(value, inner.model, (*path, name))
        return known

    def resolved(self, table: Mapping[str, Any], model: type[Section], path: KeyPath) -> dict[str, Any]:
        """Return *table* with the values of variables and secrets, and with absolute paths."""
        resolved: dict[str, Any] = {}
        inner = tables(model)
        for name, value in table.items():
            here = (*path, name)
            if name not in inner:
                resolved[name] = self._value(value, keys(model)[name], here)
            elif not isinstance(value, dict):
                resolved[name] = value
            elif inner[name].named:
                resolved[name] = {
                    key: self.resolved(item, inner[name].model, (*here, key)) if isinstance(item, dict) else item
                    for key, item in value.items()
                }
            else:
                resolved[name] = self.resolved(value, inner[name].model, here)
        self._read_secrets(resolved, model, path)
        return resolved

    def _value(self, value: object, key: Key, path: KeyPath) -> object:
        if isinstance(value, list):
            return [self._value(item, key, (*path, number)) for number, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        text = self._substituted(value, path)
        if text and key.is_path:
            text = str(self._directory / text)
            if key.name.endswith("_file"):
                self._check_file(text, value, path)
        return text

    def _substituted(self, text: str, path: KeyPath) -> str:
        """Return *text* with the values of the variables that it names."""

        def value(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = match[1]
            if not match[2] or not _VARIABLE.fullmatch(name):
                self._fail(path, "write ${NAME} for an environment variable, or $${ for the characters ${")
            elif name not in self._environment:
                self._fail(path, f"the environment variable {name} is not set")
            else:
                return self._environment[name]
            return match[0]

        return _REFERENCE.sub(value, text)

    def _check_file(self, file: str, written: str, path: KeyPath) -> None:
        try:
            if stat.S_ISFIFO(os.stat(file).st_mode):  # noqa: PTH116  # as below
                # To open it would wait for a writer, and it could be read only once.
                self._fail(path, f"the file {shown(written, secret=False)} cannot be read: it is a pipe")
                return
            with open(file, "rb") as opened:  # noqa: PTH123  # Path.open raises the same
                opened.read(1)
        except (OSError, ValueError) as error:
            self._fail(path, f"the file {shown(written, secret=False)} cannot be read: {read_error(error)}")

    def _read_secrets(self, table: dict[str, Any], model: type[Section], path: KeyPath) -> None:
        """Put the content of ``password_file`` into ``password``, and so on."""
        for key in keys(model).values():
            name = f"{key.name}_file"
            if not key.is_secret or key.name in table or not isinstance(table.get(name), str):
                continue
            here = (*path, name)
            if f"{dotted(here)}: " in self.unresolved:
                continue
            secret = self._secret(Path(table[name]), here)
            if secret is not None:
                table[key.name] = secret
                del table[name]

    def _secret(self, file: Path, path: KeyPath) -> str | None:
        try:
            with file.open("rb") as opened:
                text = opened.read(_MAX_SECRET + 1).decode("utf-8")
        except (OSError, ValueError) as error:
            self._fail(path, f"the file cannot be read: {read_error(error)}")
            return None
        secret = text.removesuffix("\n").removesuffix("\r")
        if not secret.strip():
            self._fail(path, "the file is empty")
        elif len(text) > _MAX_SECRET or not secret.isprintable():
            self._fail(path, "the file must contain one line, and no control character")
        else:
            warn_if_readable_by_all(file, f"{dotted(path)}: ")
            return secret
        return None

    def _fail(self, path: KeyPath, reason: str) -> None:
        self._unresolved.append(dotted(path))
        self.errors.append(f"{dotted(path)}: {reason}")


def _has_secret(table: Mapping[str, Any], model: type[Section]) -> bool:
    """Return whether a secret is written in the file itself."""
    own = any(
        key.is_secret and not re.fullmatch(r"\$\{[^}]*\}", str(table[key.name]))
        for key in keys(model).values()
        if key.name in table
    )
    return own or any(
        _has_secret(table[name], inner.model)
        for name, inner in tables(model).items()
        if not inner.named and isinstance(table.get(name), dict)
    )
