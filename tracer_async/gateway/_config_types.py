"""The types of values in the configuration, and the checks that several tables share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict

__all__ = ["FilePath", "Name", "OneOrMore", "Section", "Topic", "Zone", "is_loopback", "split_url"]

_NAME = re.compile(r"[a-z0-9_-]{1,64}")


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a name consists of 1 to 64 characters a-z, 0-9, _ and -")
    if name == "bridge":
        raise ValueError("bridge is the name of the gateway itself in MQTT topics; choose another one")
    return name


def _check_topic(topic: str) -> str:
    if not topic or any(character in topic for character in "+# ") or topic.strip("/") != topic:
        raise ValueError("a topic prefix has no +, # or space, and does not begin or end with /")
    if not topic.isprintable():
        raise ValueError("a topic prefix has no control character or other invisible one")
    return topic


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not a time zone of the IANA database, such as Europe/Berlin") from None
    return name


def _check_path(path: object) -> object:
    if path == "":
        raise ValueError("the path is empty")
    return path


def _tuple(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Name = Annotated[str, AfterValidator(_check_name)]
Topic = Annotated[str, AfterValidator(_check_topic)]
Zone = Annotated[str, AfterValidator(_check_zone)]
# Not strict: a path is a string in the file.
FilePath = Annotated[Path, Strict(strict=False), BeforeValidator(_check_path)]

# A string in the file, or an array of strings.
OneOrMore = Annotated[tuple[str, ...], BeforeValidator(_tuple)]


class Section(BaseModel):
    """A table of the file. An unknown key is an error; values are not converted from one type to another.

    A whole number is accepted where a number is expected; ``true`` and ``false`` are no numbers.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def split_url(url: str, *schemes: str) -> SplitResult:
    """Return the parts of *url*. Raises ValueError if it is not a URL of one of the *schemes*."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"write {schemes[0]}://HOST:PORT, with a port from 1 to 65535") from None
    if parts.scheme not in schemes:
        raise ValueError(f"the URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not parts.hostname or port == 0:
        raise ValueError(f"write {schemes[0]}://HOST:PORT")
    if "@" in parts.netloc:
        raise ValueError("the URL must not contain a user name or password; use the keys for them")
    if parts.query or parts.fragment:
        raise ValueError("the URL must not contain ? or #")
    return parts


def is_loopback(host: str) -> bool:
    """Return whether *host* is an address of this machine that no other machine reaches."""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
