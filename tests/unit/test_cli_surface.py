"""The command line is a promise: its commands and options change only on purpose.

After a change on purpose: `python -m tests.unit.test_cli_surface > tests/unit/cli_surface.txt`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from services.cli.main import app

SNAPSHOT = Path(__file__).with_name("cli_surface.txt")
HEAVY = ("torch", "ray", "redis", "obstore", "fastapi", "uvicorn", "numpy", "PIL", "pyarrow")


def surface() -> str:
    """Each command with its arguments and options, one a line."""
    return "".join(f"{line}\n" for line in _lines(get_command(app), "elmyr"))


def _lines(command: Any, path: str) -> Iterator[str]:
    yield " ".join([path, *map(_parameter, command.params)])
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _lines(child, f"{path} {name}")


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        text = parameter.metavar or parameter.name.upper()
    else:
        text = "|".join(parameter.opts + parameter.secondary_opts)
    return text if parameter.required else f"[{text}]"


def test_commands_and_options_are_those_of_the_snapshot() -> None:
    assert surface() == SNAPSHOT.read_text()


def test_starting_the_command_line_imports_nothing_heavy() -> None:
    code = f"import sys, services.cli.main; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    sys.stdout.write(surface())
