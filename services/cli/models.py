"""`elmyr models`: what is published, and which version an alias names."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli import evaluate
from services.cli.output import Output, OutputOption, View, dimensions, say, show, show_one, write
from services.cli.session import ModelArgument, YesOption, connect, make_sure
from shared.schemas.models import ModelCard, ModelSummary

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
ONE: View[ModelCard] = View(
    id=lambda card: f"{card.model}@{card.version}",
    columns={
        "NAME": lambda card: card.model,
        "VERSION": lambda card: card.version,
        "PRESET": lambda card: card.preset,
        "DATASET": lambda card: f"{card.dataset} at {card.dataset_version[:12]}",
        "KIMG": lambda card: f"{card.kimg:g}",
        "RESCUED": lambda card: "from a run that collapsed" if card.rescued else None,
        "SEED": lambda card: card.seed,
        "SIZE": lambda card: dimensions(card.size, card.channels),
        "CLASSES": lambda card: ", ".join(card.class_names),
        "PROMPT": lambda card: "yes" if card.takes_prompt else None,
        "PARAMETERS": lambda card: card.num_parameters,
        "METRICS": lambda card: " ".join(f"{name}={x:.4g}" for name, x in card.metrics.items()),
        "JOB": lambda card: card.job_id,
        "PUBLISHED": lambda card: card.created_at,
    },
)


@app.command("list")
def list_models(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List models; the last columns tell of the latest version."""
    with connect(context) as client:
        show(client.models(), LIST, output)


@app.command()
def get(
    context: typer.Context,
    model: ModelArgument,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one version of a model: where it comes from, and its scores, newest first."""
    name, at, target = model.partition("@")
    with connect(context) as client:
        alias = target if at else "latest"
        version = int(target) if target.isdecimal() else client.alias(name, alias).version
        card = client.card(name, version)
        show_one(card, ONE, output)
        if output is not Output.TABLE:
            return
        for scored in client.scores(name, version):
            write(f"against {scored.dataset}, n {scored.n}, in features {scored.features[:22]}:")
            show(evaluate.rows(scored.model_dump()), evaluate.TABLE, output)


@app.command()
def delete(context: typer.Context, model: ModelArgument, yes: YesOption = False) -> None:
    """Delete what is named: a whole model, one version that no alias names, or an alias alone.

    Example: elmyr models delete tailor@2
    """
    name, at, target = model.partition("@")
    with connect(context) as client:
        if not at:
            make_sure(f"Delete model {name} with every version?", yes)
            client.delete_model(name)
        elif target.isdecimal():
            make_sure(f"Delete version {target} of model {name}?", yes)
            client.delete_version(name, int(target))
        else:
            make_sure(f"Delete alias {target} of model {name}? Its version stays.", yes)
            client.delete_alias(name, target)
    write(model)


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
