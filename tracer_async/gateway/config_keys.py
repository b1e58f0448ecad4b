"""The keys of the configuration with their types, ranges and defaults, in words: read from the models.

Errors, the example and the reference in the docs have the same words, because all of them are made from these.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tracer_async.gateway._config_types import OneOrMore
from tracer_async.gateway.config import Section

__all__ = ["Key", "Table", "keys", "tables"]

_WORDS: dict[Any, str] = {
    str: "a string",
    SecretStr: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}


class Key(NamedTuple):
    """A key that has a value of its own, and is no table."""

    name: str
    type: Any
    """str, SecretStr, int, float, bool, Path, tuple or a Literal."""
    kind: str
    """The type in words: "a number"."""
    limits: str
    """The range in words: "0.2 to 3,600". Empty if there is none."""
    required: bool
    default: Any
    """None if there is none, or if the description tells it."""
    example: Any
    description: str

    @property
    def expected(self) -> str:
        """What the value must be, in words."""
        if " to " not in self.limits:
            return f"{self.kind}, {self.limits}" if self.limits else self.kind
        return f"{self.kind} {'of' if self.limits.endswith('characters') else 'from'} {self.limits}"

    @property
    def is_secret(self) -> bool:
        """Whether the value must not be shown."""
        return self.type is SecretStr

    @property
    def is_path(self) -> bool:
        """Whether the value is a path."""
        return self.type is Path


class Table(NamedTuple):
    """A table of the file, or one table for each name."""

    name: str
    model: type[Section]
    named: bool
    """Whether it contains one table of this kind for each name: ``[controllers.NAME]``."""


def keys(model: type[Section]) -> dict[str, Key]:
    """Return the keys of a table that are no tables themselves."""
    return {name: _key(name, field) for name, field in model.model_fields.items() if _table_of(name, field) is None}


def tables(model: type[Section]) -> dict[str, Table]:
    """Return the keys of a table that are tables."""
    found = {name: _table_of(name, field) for name, field in model.model_fields.items()}
    return {name: table for name, table in found.items() if table is not None}


def _table_of(name: str, field: FieldInfo) -> Table | None:
    kind = _plain(field.annotation)
    named = get_origin(kind) is dict
    model = get_args(kind)[1] if named else kind
    if isinstance(model, type) and issubclass(model, Section):
        return Table(name, model, named)
    return None


def _plain(annotation: Any) -> Any:
    """Return a type without Annotated and without None."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, UnionType):
            (annotation,) = (part for part in get_args(annotation) if part is not NoneType)
        else:
            return annotation


def _key(name: str, field: FieldInfo) -> Key:
    kind = _plain(field.annotation)
    if OneOrMore in (field.annotation, *get_args(field.annotation)):
        words, kind = "a string or a list of strings", tuple
    elif get_origin(kind) is Literal:
        words = " or ".join(f'"{choice}"' for choice in get_args(kind))
    elif get_origin(kind) is tuple:
        words, kind = "a list of strings", tuple
    else:
        words = _WORDS[kind]
    return Key(
        name,
        kind,
        words,
        _limits(field),
        field.is_required(),
        None if field.is_required() else field.default,
        field.examples[0] if field.examples else None,
        " ".join((field.description or "").split()),
    )


def _limits(field: FieldInfo) -> str:
    low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    shortest = next((item.min_length for item in field.metadata if isinstance(item, MinLen)), None)
    longest = next((item.max_length for item in field.metadata if isinstance(item, MaxLen)), None)
    if longest is not None:
        return f"{shortest or 0} to {longest} characters"
    if shortest is not None:
        return "not empty" if shortest == 1 else f"at least {shortest} characters"
    return ""
