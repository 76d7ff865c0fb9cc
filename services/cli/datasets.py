"""`elmyr datasets`: bring images in, and see what there is."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from services.cli.follow import follow
from services.cli.jobs import say_submitted, say_succeeded
from services.cli.output import (
    Output,
    OutputOption,
    View,
    clean,
    dimensions,
    say,
    show,
    show_one,
    write,
)
from services.cli.session import FollowOption, YesOption, connect, follows, hint, make_sure
from services.client import Client
from services.client.uploads import upload_of
from shared.schemas.datasets import DatasetManifest

app = typer.Typer(help="Bring images in, and see what there is.", no_args_is_help=True)

LIST: View[DatasetManifest] = View(
    id=lambda dataset: dataset.name,
    columns={
        "NAME": lambda dataset: dataset.name,
        "IMAGES": lambda dataset: dataset.num_images,
        "SIZE": lambda dataset: dimensions(dataset.size, dataset.channels),
        "CLASSES": lambda dataset: dataset.num_classes or None,
        "REFUSED": lambda dataset: dataset.num_refused or None,
        "VERSION": lambda dataset: dataset.version[:12],
        "MADE": lambda dataset: dataset.created_at,
        "SOURCE": lambda dataset: dataset.source,
    },
)
ONE: View[DatasetManifest] = View(
    id=lambda dataset: dataset.name,
    columns={
        "NAME": lambda dataset: dataset.name,
        "VERSION": lambda dataset: dataset.version,
        "IMAGES": lambda dataset: dataset.num_images,
        "SIZE": lambda dataset: dimensions(dataset.size, dataset.channels),
        "CLASSES": lambda dataset: ", ".join(
            f"{name} ({count})"
            for name, count in zip(dataset.class_names, dataset.class_counts, strict=True)
        ),
        "CAPTIONS": lambda dataset: "yes" if dataset.has_captions else None,
        "DUPLICATES": lambda dataset: dataset.num_duplicates or None,
        "MADE": lambda dataset: dataset.created_at,
        "SOURCE": lambda dataset: dataset.source,
        "REFUSED": lambda dataset: dataset.num_refused or None,
    },
)


class Fit(StrEnum):
    CROP = "crop"
    PAD = "pad"


DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's name.")]
SizeOption = Annotated[
    int | None, typer.Option(help="Side in pixels; without it the images decide.", min=8)
]


@app.command("list")
def list_datasets(context: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List datasets."""
    with connect(context) as client:
        show(client.datasets(), LIST, output)


@app.command()
def get(
    context: typer.Context,
    name: DatasetArgument,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one dataset: its classes, and which files were refused and why."""
    with connect(context) as client:
        dataset = client.dataset(name)
    show_one(dataset, ONE, output)
    if output is Output.TABLE:
        for refusal in dataset.refused:
            write(clean(f"  {refusal.path}: {refusal.reason}"))
        if (more := dataset.num_refused - len(dataset.refused)) > 0:
            say(f"  and {more} more")


@app.command()
def delete(context: typer.Context, name: DatasetArgument, yes: YesOption = False) -> None:
    """Delete every version of a dataset; the models trained on it stay."""
    with connect(context) as client:
        make_sure(f"Delete every version of dataset {name}?", yes)
        client.delete_dataset(name)
    write(name)


@app.command()
def push(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What to call the dataset.")],
    path: Annotated[
        Path, typer.Argument(help="A folder, zip, tar, Parquet or IDX file.", exists=True)
    ],
    size: SizeOption = None,
    channels: Annotated[
        int | None, typer.Option(help="1 (grey) or 3 (colour); without it the images decide.")
    ] = None,
    fit: Annotated[Fit, typer.Option(help="Cut the middle, or pad with black.")] = Fit.CROP,
    source: Annotated[str, typer.Option(help="Where the images come from, in words.")] = "",
    following: FollowOption = None,
) -> None:
    """Upload images; an ingest job makes a dataset of them.

    A subfolder's name is the class of its images.

    Example: elmyr datasets push garments ./garments --size 32
    """
    with connect(context) as client:
        _push(
            client, name, path, size=size, channels=channels, fit=fit, source=source,
            following=following,
        )  # fmt: skip


@app.command()
def fetch(
    context: typer.Context,
    known: Annotated[
        str, typer.Argument(metavar="SET", help="fashion-mnist, cifar10, emoji or digits.")
    ],
    name: Annotated[
        str | None, typer.Option(help="What to call the dataset; the set's name otherwise.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only train or test; dataset SET-train or SET-test.")
    ] = None,
    size: SizeOption = None,
    following: FollowOption = None,
) -> None:
    """Get a well-known set from whichever source is in reach, and push it.

    Example: elmyr datasets fetch fashion-mnist --split train
    """
    from services.local.sources import fetch as get  # its readers of formats import slowly

    with connect(context) as client, tempfile.TemporaryDirectory(prefix="elmyr-") as folder:
        found = get(known, Path(folder), split=split)
        say(f"{known} comes from {found.source}")
        called = name or (f"{known}-{split}" if split else known)
        _push(
            client, called, found.path, size=size or found.size, channels=None,
            fit=Fit(found.fit), source=found.source, following=following,
        )  # fmt: skip


def _push(
    client: Client,
    name: str,
    path: Path,
    *,
    size: int | None,
    channels: int | None,
    fit: Fit,
    source: str,
    following: bool | None,
) -> None:
    with Progress(
        BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    ) as progress:  # fmt: skip
        task = progress.add_task("upload", total=upload_of(path).num_bytes)
        job = client.push_dataset(
            name,
            path,
            size=size,
            channels=channels,
            fit=fit.value,
            source=source,
            on_progress=lambda num_bytes: progress.update(task, completed=num_bytes),
        )
    write(job.id)
    say_submitted(client, job)
    if follows(following):
        ended = follow(client, job.id)
        say_succeeded(ended)
        if (ended.result or {}).get("num_refused"):
            hint(f"elmyr datasets get {name}")
        hint(f"elmyr train --dataset {name} --model MODEL")
    else:
        hint(f"elmyr jobs watch {job.id}")
