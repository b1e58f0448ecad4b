"""The protocol imports no event loop, socket, thread or clock."""

import subprocess
import sys

import pytest

FORBIDDEN = {"asyncio", "anyio", "socket", "select", "selectors", "threading", "time", "datetime", "ssl", "concurrent"}


def test_importing_the_protocol_imports_no_io() -> None:
    """In a new interpreter, apart from the modules that the interpreter always loads."""
    program = (
        "import sys, types\n"
        "before = set(sys.modules)\n"
        # The package's own __init__ brings the client; the protocol has to be importable without it.
        "package = types.ModuleType('tracer_async'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['tracer_async'] = package\n"
        "import tracer_async.protocol\n"
        "print('\\n'.join(set(sys.modules) - before))\n"
    )
    import tracer_async

    done = subprocess.run(
        [sys.executable, "-c", program, tracer_async.__path__[0]], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "tracer_async.protocol.decoder" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in FORBIDDEN}
    assert not {name for name in loaded if name.startswith("tracer_async.") and "protocol" not in name} - {
        "tracer_async.errors"
    }


@pytest.mark.parametrize(
    "module",
    [
        "frame",
        "decoder",
        "values",
        "commands",
        "exchange",
        "session",
        "_reception",
        "_request",
        "_load_switch",
        "_answer",
        "_echoes",
        "_failures",
        "_windows",
    ],
)
def test_no_module_names_io_in_its_imports(module: str) -> None:
    """Also within functions, which an import does not run."""
    import ast
    from importlib import import_module
    from pathlib import Path

    source = Path(import_module(f"tracer_async.protocol.{module}").__file__ or "").read_text(encoding="utf-8")
    named = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add(node.module or "")
    assert named
    assert not {name for name in named if name.partition(".")[0] in FORBIDDEN}
