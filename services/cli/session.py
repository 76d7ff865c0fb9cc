"""What commands share: the connection, and whether somebody watches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.output import say
from services.client import Client

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of the local stack [env: ELMYR_DATA_DIR; default: .elmyr].",
        show_default=False,
    ),
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME, NAME@VERSION, NAME@ALIAS.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
FollowOption = Annotated[
    bool | None,
    typer.Option(
        "--follow/--detach",
        " /-d",  # the blank is click's way to give a name to the "no" alone
        help="Follow the job until it ends; the default on a terminal. Ctrl-C detaches.",
        show_default=False,
    ),
]

YesOption = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask whether you are sure.")]


def connect(context: typer.Context) -> Client:
    """A client of the stack that the command line, the environment or the data folder names."""
    data_dir: Path | None = context.obj
    return Client(data_dir=data_dir)


def follows(asked: bool | None) -> bool:
    """Whether to follow a job: as asked, else when people watch."""
    return sys.stderr.isatty() if asked is None else asked


def make_sure(question: str, yes: bool) -> None:
    """Ask on stderr, unless `yes` said it before; anything but a yes ends the command with 1."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


def hint(*commands: str) -> None:
    """Suggest what to type next."""
    for command in commands:
        say(f"  {command}", style="cyan")
