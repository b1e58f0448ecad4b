"""Text made from the models: the commented example of a configuration, and the reference for the docs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

from tracer_async.gateway.config import GatewayConfig, Section
from tracer_async.gateway.config_keys import Key, Table, keys, tables

__all__ = ["example", "reference"]

_WIDTH = 100

_HEADER = """\
# The configuration of `tracer-async gateway`. Check it with `tracer-async gateway --check FILE`.
# A key with a # in front of it shows its default, or an example if there is none. ${NAME} in a string is
# the value of an environment variable, and $${ is ${. A changed file is read again after SIGHUP.
"""

_NAMES = ("roof", "shed")
_URLS = {"roof": "192.168.1.20:8088", "shed": "/dev/ttyUSB0"}
# The tables that the example has switched on. The others need something that the reader has to set up first.
_ACTIVE = ("web", "history", "energy", "log")


def example() -> str:
    """Return a configuration with every key, its description, default and range. It is valid as it is."""
    lines = [_HEADER, *_key_lines(GatewayConfig, {})]
    for name, table in tables(GatewayConfig).items():
        if table.named:
            first, *others = _NAMES
            lines += [*_title(table), f"[{name}.{first}]", *_key_lines(table.model, {"url": _URLS[first]})]
            for other in others:
                lines += [f"[{name}.{other}]", f"url = {_toml(_URLS[other])}", ""]
        elif name in _ACTIVE:
            lines += [*_title(table), f"[{name}]", *_key_lines(table.model, {})]
        else:
            lines += [*_title(table), f"#[{name}]", *_key_lines(table.model, {}, active=False)]
    return "\n".join(lines).rstrip("\n") + "\n"


def reference() -> str:
    """Return a Markdown section for each table, with a row for each key."""
    lines = ["### At the beginning of the file", "", *_rows(GatewayConfig)]
    for table in tables(GatewayConfig).values():
        header = f"[{table.name}.NAME]" if table.named else f"[{table.name}]"
        lines += [f"### `{header}`", "", _summary(table.model), "", *_rows(table.model)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _summary(model: type[Section]) -> str:
    return " ".join(cleandoc(model.__doc__ or "").partition("\n\n")[0].split())


def _title(table: Table) -> Iterator[str]:
    yield "# " + "-" * (_WIDTH - 2)
    yield from _comment(_summary(table.model))


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _key_lines(model: type[Section], values: dict[str, str], *, active: bool = True) -> Iterator[str]:
    for key in keys(model).values():
        yield from _comment(key.description + _range(key))
        value = values.get(key.name, _value(key))
        yield f"{'' if (key.required or key.name in values) and active else '#'}{key.name} = {_toml(value)}"
        yield ""


def _range(key: Key) -> str:
    if key.kind.startswith('"'):
        return f" One of {key.kind}."
    return f" Range: {key.limits}." if key.limits not in ("", "not empty") else ""


def _value(key: Key) -> object:
    return key.example if key.default is None else key.default


def _rows(model: type[Section]) -> Iterator[str]:
    yield "| key | value | default | |"
    yield "|---|---|---|---|"
    for key in keys(model).values():
        default = "required" if key.required else "" if key.default is None else f"`{_toml(key.default)}`"
        yield f"| `{key.name}` | {key.expected} | {default} | {key.description} |"
    yield ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:_}" if value >= 10_000 else f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # The strings in the models have no characters that JSON and TOML escape in different ways.
    return json.dumps(str(value) if isinstance(value, Path) else value)
