"""``tracer-async history``: its errors. What it exports is tested with the databases of the gateway."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command
from tracer_async.cli.exit_codes import ExitCode

ROOF = '[controllers.roof]\nurl = "sim:"\n'


def test_all_errors_of_the_configuration_are_printed_and_are_a_usage_error(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"{ROOF}intervall = 5\n[mqtt]\nurl = 'http://broker'\n")
    code, out, err = command("history", "export", str(path), "--controller", "roof")
    assert (code, out) == (ExitCode.USAGE, "")
    assert [line.removeprefix(f"Error: {path}: ").partition(":")[0] for line in err.splitlines()] == [
        "controllers.roof.intervall",
        "mqtt.url",
    ]
