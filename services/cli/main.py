"""`elmyr`: the commands, put together, and the one place where an error becomes a sentence.

Start-up time is import time: neither torch nor ray nor the stack is imported before a command
needs it.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from services.cli import datasets, jobs, models
from services.cli.demo import demo
from services.cli.evaluate import evaluate
from services.cli.exits import MEANINGS, ExitCode, exit_code
from services.cli.latent import encode, interpolate
from services.cli.output import say, write
from services.cli.sample import sample
from services.cli.session import DataDir
from services.cli.stack import down, status, up
from services.cli.train import train
from services.client import JobFailed
from shared.errors import ElmyrError, Unauthorized

NAME = "elmyr"

app = typer.Typer(
    name=NAME,
    help="Train networks that forge, and ask them for forgeries.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    data_dir: DataDir = None,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    """What stands before the command."""
    if show_version:
        write(version(NAME))
        raise typer.Exit
    context.obj = data_dir


@app.command("help")
def help_(
    topic: Annotated[
        list[str] | None, typer.Argument(help="The words of a command, or exit-codes.")
    ] = None,
) -> None:
    """Explain a command, or the exit codes: elmyr help exit-codes."""
    if topic == ["exit-codes"]:
        for code, meaning in MEANINGS.items():
            write(f"{code:>3}  {meaning}")
    else:
        app([*(topic or []), "--help"], prog_name=NAME)


for command in (demo, up, down, status, train, sample, encode, interpolate, evaluate):
    app.command()(command)
for noun, commands in (("datasets", datasets.app), ("jobs", jobs.app), ("models", models.app)):
    app.add_typer(commands, name=noun)


def main() -> None:
    """Run a command line; the process ends with a code of exits.py."""
    try:
        app(prog_name=NAME)
    except ElmyrError as error:
        tell(error)
        sys.exit(exit_code(error))
    except OSError as error:  # a file that cannot be read or written; the message names it
        say(f"error: {error}", style="red")
        sys.exit(ExitCode.ERROR)


def tell(error: ElmyrError) -> None:
    """Say what went wrong and what to do about it."""
    say(f"error: {error.detail}", style="red")
    for place in error.errors:
        if place.detail != error.detail:
            say(f"  {place.pointer}: {place.detail}")
    if isinstance(error, JobFailed):
        for line in error.log_tail:
            say(f"  | {line}", style="dim")
        say(f"  elmyr jobs logs {error.job.id}; elmyr jobs retry {error.job.id}", style="cyan")
    if isinstance(error, Unauthorized):
        say("  set ELMYR_API_KEY, or start a stack of your own: elmyr up", style="cyan")
    if error.request_id:
        say(f"  request {error.request_id}", style="dim")


if __name__ == "__main__":
    main()
