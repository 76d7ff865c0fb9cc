"""`elmyr train`: submit a training and, on a terminal, follow it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from services.cli.follow import follow
from services.cli.jobs import say_submitted, say_succeeded
from services.cli.output import write
from services.cli.session import FollowOption, connect, follows, hint
from shared.schemas.presets import PRESETS, WIDTHS


def train(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help="The dataset to train on.")],
    model: Annotated[str, typer.Option(help="The name to publish the result under.")],
    preset: Annotated[
        str, typer.Option(help=f"The recipe's configuration: {', '.join(PRESETS)}.")
    ] = "modern",
    scale: Annotated[
        str, typer.Option(help=f"How wide the preset's networks are: {', '.join(WIDTHS)}.")
    ] = "small",
    kimg: Annotated[
        float | None, typer.Option(help="Length in thousands of images seen.", min=0)
    ] = None,
    workers: Annotated[int, typer.Option(help="Number of parallel ranks.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.", min=0)] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override one value of the preset, e.g. optimizer_g.lr=0.002; may be repeated.",
        ),
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher runs first.", min=-100, max=100)] = 0,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated."),
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="JOB", help="Start when this job has succeeded; may be repeated."),
    ] = None,
    following: FollowOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the full configuration and submit nothing.")
    ] = False,
) -> None:
    """Train a model on a dataset and publish it.

    The job's id goes to stdout, so that JOB=$(elmyr train ... --detach) works.

    Example: elmyr train --preset lecture --dataset garments --model tailor --set label_flip=0.1
    """
    spec: dict[str, Any] = {
        "preset": preset,
        "scale": scale,
        "dataset": dataset,
        "model": model,
        "workers": workers,
        "seed": seed,
        "config": overrides(settings or []),
    }
    if kimg is not None:
        spec["kimg"] = kimg
    with connect(context) as client:
        if dry_run:
            resolved = client.validate("train", spec, after=after or [])
            write(resolved.model_dump_json(indent=2))
            return
        job = client.submit(
            "train",
            spec,
            name=name,
            priority=priority,
            labels=dict(_pair(label, "--label") for label in labels or []),
            after=after or [],
        )
        write(job.id)
        say_submitted(client, job)
        if follows(following):
            say_succeeded(follow(client, job.id))
            hint(f"elmyr sample {model} -n 64 -o {model}.png")
        else:
            hint(f"elmyr jobs watch {job.id}")


def overrides(settings: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1", "c=x"]` as `{"a": {"b": 1}, "c": "x"}`; a value is JSON where it can be.

    Raises typer.BadParameter for what is not KEY=VALUE or says two things of one key.
    """
    result: dict[str, Any] = {}
    for setting in settings:
        key, value = _pair(setting, "--set")
        *parents, last = key.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"--set {setting}: {parent} is set to a value already")
        if last in place:
            raise typer.BadParameter(f"--set {setting}: {key} is set twice")
        place[last] = _value(value)
    return result


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{option} {text}: it should look like KEY=VALUE")
    return key, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
