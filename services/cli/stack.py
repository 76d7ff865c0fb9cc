"""`elmyr up`, `down`, `status`: the embedded stack of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from services.cli.output import Output, OutputOption, View, say, show, show_one
from services.cli.session import DataDir, hint
from shared.settings import ClientSettings

if TYPE_CHECKING:  # the stack's own imports are slow
    from services.local.state import PartState, StackState

STACK: View[StackState] = View(
    id=lambda stack: stack.stack_id,
    columns={
        "STATE": lambda stack: stack.state,
        "API": lambda stack: stack.api_url,
        "DOCS": lambda stack: f"{stack.api_url}/docs",
        "SERVING": lambda stack: stack.serve_url,
        "DASHBOARD": lambda stack: stack.dashboard_url,
        "DATA": lambda stack: str(stack.data_dir),
    },
)
PARTS: View[PartState] = View(
    id=lambda part: part.name,
    columns={
        "PART": lambda part: part.name,
        "STATE": lambda part: part.state,
        "PID": lambda part: part.pid,
        "MEMORY": lambda part: part.memory_bytes and decimal(part.memory_bytes),
        "LOG": lambda part: str(part.log or ""),
    },
)


def up(
    context: typer.Context,
    data_dir: DataDir = None,
    detach: Annotated[
        bool, typer.Option("-d", "--detach", help="Return when all is ready.")
    ] = False,
) -> None:
    """Start a stack on this machine: Redis, S3, Ray, and the services of Elmyr.

    It stays in the foreground, and Ctrl-C stops it; with --detach `elmyr down` does. What it keeps
    lies in one folder, and starting again goes on with it.
    """
    from services.local import stack

    folder = folder_of(context, data_dir)
    if detach:
        stack.start_detached(folder)
        hint("elmyr datasets fetch fashion-mnist", "elmyr down")
    else:
        stack.run_foreground(folder)


def down(context: typer.Context, data_dir: DataDir = None) -> None:
    """Stop the stack of this machine; its data stays."""
    from services.local import stack

    stack.stop(folder_of(context, data_dir))


def status(
    context: typer.Context, data_dir: DataDir = None, output: OutputOption = Output.TABLE
) -> None:
    """Show where the stack is reached, and how its parts are.

    Example: export ELMYR_API_KEY=$(elmyr status -o json | jq -r .api_key)
    """
    from services.local import stack

    state = stack.status(folder_of(context, data_dir))
    show_one(state, STACK, output)
    if output is Output.TABLE:
        show(state.parts, PARTS, output)
        for part in state.parts:
            if part.error:
                say(f"{part.name}: {part.error}", style="red")


def folder_of(context: typer.Context, data_dir: Path | None) -> Path:
    """The stack's data folder, as the command line or the environment names it."""
    return data_dir or context.obj or ClientSettings().data_dir
