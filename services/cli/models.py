"""`elmyr models`: what is published, and which version an alias names."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.output import Output, OutputOption, View, say, show, write
from services.cli.session import connect
from shared.schemas.models import ModelSummary

app = typer.Typer(help="See what is published, and promote versions.", no_args_is_help=True)

LIST: View[ModelSummary] = View(
    id=lambda model: model.name,
    columns={
        "NAME": lambda model: model.name,
        "VERSIONS": lambda model: len(model.versions),
        "ALIASES": lambda model: " ".join(
            f"{alias}={version}" for alias, version in sorted(model.aliases.items())
        ),
        "PRESET": lambda model: model.latest.preset if model.latest else None,
        "DATASET": lambda model: model.latest.dataset if model.latest else None,
        "SIZE": lambda model: f"{model.latest.size} px" if model.latest else None,
        "KIMG": lambda model: f"{model.latest.kimg:g}" if model.latest else None,
        "PUBLISHED": lambda model: model.latest.created_at if model.latest else None,
    },
)


@app.command("list")
def list_models(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List models; the last columns tell of the latest version."""
    with connect(context) as client:
        show(client.models(), LIST, output)


@app.command()
def promote(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    version: Annotated[int, typer.Argument(min=1, help="The version to promote or roll back to.")],
    alias: Annotated[str, typer.Option(help="The alias to move.")] = "production",
) -> None:
    """Point an alias at a version; serving follows within 2 seconds without a lost request.

    Example: elmyr models promote tailor 3 --alias production
    """
    with connect(context) as client:
        moved = client.promote(name, alias, version)
    write(f"{name}@{alias}")
    before = f" (before: {moved.history[-2].version})" if len(moved.history) > 1 else ""
    say(f"{name}@{alias} is version {moved.version} now{before}")
