"""`elmyr sample`: pictures of a published model into a file.

Few come from the serving endpoint at once; many, or an archive, from a sampling job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from services.cli.follow import follow
from services.cli.jobs import say_submitted
from services.cli.output import say, write
from services.cli.session import ModelArgument, connect
from services.client import Client
from services.client.client import ImageFormat
from shared.settings import settings

ONE: dict[str, ImageFormat] = {".png": "png", ".webp": "webp", ".npy": "npy", ".json": "json"}
"""What to ask serving for, by the end of the file's name, for one picture."""
SEVERAL: dict[str, ImageFormat] = {".png": "grid", ".zip": "png", ".npy": "npy", ".json": "json"}
"""The same for several: PNGs come as a zip."""
SHEET: dict[str, ImageFormat] = {".png": "grid"}
ARCHIVE = ".zip"


def sample(
    context: typer.Context,
    model: ModelArgument,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Number of pictures.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same pictures.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="A class, by number or name; without it all take turns.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="What to draw, of a model with text; without it captions take turns."),
    ] = None,
    truncation: Annotated[
        float, typer.Option(min=0, max=1, help="Below 1: less variety, fewer odd ones.")
    ] = 1.0,
    grid: Annotated[
        bool, typer.Option("--grid", help="One sheet, as is usual for several pictures in a PNG.")
    ] = False,
    job: Annotated[
        bool, typer.Option("--job", help="Draw by a sampling job, into a zip archive.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="A .png, .webp, .npy, .json or .zip file.", dir_okay=False
        ),
    ] = None,
) -> None:
    """Draw pictures from a published model.

    Example: elmyr sample tailor@production -n 64 --seed 7 -o garments.png
    """
    wanted: dict[str, Any] = {"n": n, "truncation": truncation}
    if seed is not None:
        wanted["seed"] = seed
    if label is not None:
        wanted["label"] = class_of(label)
    if prompt is not None:
        wanted["prompt"] = prompt
    by_job = job or n > settings().serve_max_images
    file = out or Path(model.replace("@", "-") + (ARCHIVE if by_job else ".png"))
    formats = SHEET if grid else SEVERAL if n > 1 else ONE
    if by_job and (grid or file.suffix != ARCHIVE):
        raise typer.BadParameter(f"a sampling job gives a zip of single pictures: -o NAME{ARCHIVE}")
    if not by_job and file.suffix not in formats:
        raise typer.BadParameter(f"{file}: {n} of a model go to {', '.join(formats)}")
    with connect(context) as client:
        if by_job:
            num_bytes = _archive(client, model, wanted, file)
        else:
            pictures = client.generate(model, format=formats[file.suffix], **wanted)
            num_bytes = file.write_bytes(pictures)
    write(str(file))
    say(f"{n} of {model}, {decimal(num_bytes)}")


def class_of(label: str) -> int | str:
    """A class as serving and jobs take it: a number if it looks like one, else a name."""
    return int(label) if label.isdecimal() else label


def _archive(client: Client, model: str, wanted: dict[str, Any], file: Path) -> int:
    job = client.submit("sample", {"model": model, **wanted})
    say_submitted(client, job)
    follow(client, job.id)
    return client.archive(job.id, file)
