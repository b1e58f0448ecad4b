"""The manual page of the command, made from its help: ``python -m tracer_async.cli.manual > tracer-async.1``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from inspect import cleandoc

import click

from tracer_async import __version__
from tracer_async.cli.app import cli
from tracer_async.cli.exit_codes import meanings
from tracer_async.cli.options import URL_VARIABLE

__all__ = ["manual_page"]

_NAME = "tracer-async"

_ENVIRONMENT = {
    URL_VARIABLE: "The URL of the controller, where none is given.",
    "NO_COLOR": "If it is set, the output has no colors.",
    "NOTIFY_SOCKET": "Set by systemd: watch then says when it is ready, and keeps trying without a connection.",
}


def manual_page() -> str:
    """Return the page in the format of man, roff with its man macros."""
    context = click.Context(cli, info_name=_NAME, **cli.context_settings)
    lines = [
        f'.TH {_NAME.upper()} 1 "" "{_NAME} {__version__}" "User Commands"',
        *(".SH NAME", f"{_escaped(_NAME)} \\- read and control EPsolar Tracer solar charge controllers"),
        *(".SH SYNOPSIS", f".B {_escaped(_NAME)}", "[OPTIONS] COMMAND [ARGS]..."),
        *(".SH DESCRIPTION", *_paragraphs(cli.help or "")),
        ".SH OPTIONS",
        *_options(cli, context),
        ".SH COMMANDS",
    ]
    lines += _commands(cli, context)
    lines += [".SH EXIT STATUS", *(line for code, text in meanings().items() for line in _entry(str(code.value), text))]
    lines += [".SH ENVIRONMENT", *(line for name, text in _ENVIRONMENT.items() for line in _entry(name, text))]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.commands[name]
        inner = click.Context(command, info_name=name, parent=context)
        yield from _command(command, inner)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS {_escaped(f'{context.command_path} {usage}')}"
    yield from _paragraphs(command.help or "")
    yield from _options(command, context)
    formatter = click.HelpFormatter(width=78)
    command.format_epilog(context, formatter)
    if formatter.getvalue():
        yield from (".PP", ".nf", _escaped(formatter.getvalue().strip("\n")), ".fi")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:  # arguments have no text
            yield from _entry(*record)


def _entry(term: str, text: str) -> Iterator[str]:
    yield from (".TP", f"\\fB{_escaped(term)}\\fR", _escaped(text))


def _paragraphs(text: str) -> Iterator[str]:
    """Return the paragraphs of a help text. A backspace marks one whose lines stay as they are."""
    for paragraph in cleandoc(text).split("\n\n"):
        kept = paragraph.lstrip("\n ")
        yield ".PP"
        if kept.startswith("\b"):
            yield from (".nf", _escaped(kept.removeprefix("\b").strip("\n")), ".fi")
        else:
            yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """Return *text* without what roff would take for its own: backslashes, hyphens, lines that begin with a dot."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))


if __name__ == "__main__":
    sys.stdout.write(manual_page())
