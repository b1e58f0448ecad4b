"""The log of the service, on standard error: one line an event, as text or as JSON, and without secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TextIO
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

from tracer_async.gateway.config import GatewayConfig, LogConfig, Section

__all__ = ["configure_logging", "secrets_of"]

# A shorter secret would make the log unreadable, and every gap in it would tell the secret.
_SHORTEST_SECRET = 4

# The priorities of syslog, which journald reads from the beginning of a line.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


def secrets_of(config: GatewayConfig) -> set[str]:
    """Return all secrets of a configuration."""
    return set(_secrets(config))


def _secrets(section: Section) -> Iterator[str]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, Section):
            yield from _secrets(value)


def configure_logging(config: LogConfig, secrets: Iterable[str]) -> None:
    """Log to standard error from now on. *secrets* are replaced by ``***``. A later call replaces an earlier one."""
    handler = _Handler()
    hidden = _Secrets(secrets)
    handler.setFormatter(_JsonFormatter(hidden) if config.format == "json" else _TextFormatter(hidden))
    root = logging.getLogger()
    root.handlers[:] = [other for other in root.handlers if not isinstance(other, _Handler)] + [handler]
    level = logging.getLevelNamesMapping()[config.level.upper()]
    # Messages of other packages below WARNING are for their developers.
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("tracer_async").setLevel(level)
    # Every byte on every line; `tracer-async watch --trace` shows them.
    logging.getLogger("tracer_async.wire").setLevel(logging.INFO)


class _Handler(logging.StreamHandler[TextIO]):
    """The one of the service."""


class _Secrets:
    """Replaces secrets, in the forms in which a URL or a repr contains them, too."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret) >= _SHORTEST_SECRET
            for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1])
        }
        # The longest first: one may be a part of another.
        self._forms = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None

    def hide(self, text: str) -> str:
        """Return *text* without secrets."""
        return text if self._forms is None else self._forms.sub("***", text)


class _TextFormatter(logging.Formatter):
    """``2026-03-01T12:00:00+01:00 WARNING roof is offline: ...``; journald has the time and the level itself."""

    def __init__(self, secrets: _Secrets) -> None:
        super().__init__()
        self._secrets = secrets
        self._is_journal = _is_journal()

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        if record.name.partition(".")[0] != "tracer_async":  # our own messages name what they are about
            text = f"{record.name}: {text}"
        line = _one_line(self._secrets.hide(text))
        if self._is_journal:
            priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
            return f"<{priority}>{line}"
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
        return f"{time} {record.levelname} {line}"


class _JsonFormatter(logging.Formatter):
    """An object a line: time, level, logger, message, and exception if there is one."""

    def __init__(self, secrets: _Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._secrets.hide(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = self._secrets.hide(self.formatException(record.exc_info))
        return json.dumps(entry)


def _one_line(text: str) -> str:
    """Return *text* with escapes in place of line ends and of what controls a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def _is_journal() -> bool:
    """Return whether standard error leads to journald, which says so in a variable: device and inode."""
    try:
        file = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{file.st_dev}:{file.st_ino}"
