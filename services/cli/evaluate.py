"""`elmyr evaluate`: score a model's pictures, and print each score between floor and ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel

from services.cli.follow import follow
from services.cli.jobs import say_submitted, say_succeeded
from services.cli.output import Output, OutputOption, View, show, write
from services.cli.session import FollowOption, ModelArgument, connect, follows, hint
from shared.schemas.specs import Features


class Row(BaseModel):
    """One line of the table; what it needs to be held against another stands in JSON alone."""

    score: str
    value: float
    floor: float
    ceiling: float
    n: int
    seed: int
    features: str


TABLE: View[Row] = View(
    id=lambda row: row.score,
    columns={
        "SCORE": lambda row: row.score,
        "VALUE": lambda row: f"{row.value:.4g}",
        "REAL PICTURES": lambda row: f"{row.floor:.4g}",
        "NOISE": lambda row: f"{row.ceiling:.4g}",
    },
)


def evaluate(
    context: typer.Context,
    model: ModelArgument,
    dataset: Annotated[
        str, typer.Option(help="What to hold it against: best pictures that it never saw.")
    ],
    n: Annotated[
        int, typer.Option("-n", "--n", min=100, help="Pictures to draw; say it with each score.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scores.")] = 0,
    features: Annotated[
        str, typer.Option(help=f"The network to compare by: {', '.join(get_args(Features))}.")
    ] = "yardstick",
    following: FollowOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Score a published model: distance, variety, freshness, and how well it knows its classes.

    The features are of a classifier that Elmyr trains on the model's dataset, once, or of
    Inception-v3, whose weights the stack must have.

    Example: elmyr evaluate tailor@production --dataset garments-test
    """
    spec: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "n": n,
        "seed": seed,
        "features": features,
    }
    with connect(context) as client:
        job = client.submit("evaluate", spec)
        say_submitted(client, job)
        if not follows(following):
            write(job.id)
            hint(f"elmyr jobs watch {job.id}")
            return
        ended = follow(client, job.id)
        say_succeeded(ended)
        show(rows(ended.result or {}), TABLE, output)


def rows(result: Mapping[str, Any]) -> list[Row]:
    """The scores of a job's result as lines of a table."""
    of_all = {key: result[key] for key in ("n", "seed", "features")}
    return [Row(score=name, **score, **of_all) for name, score in result["scores"].items()]
