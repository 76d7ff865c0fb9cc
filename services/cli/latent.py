"""`elmyr encode`, `elmyr interpolate`: from pictures back to z, and what lies between two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from services.cli.follow import follow
from services.cli.jobs import say_submitted, say_succeeded
from services.cli.output import say, write
from services.cli.sample import SEVERAL, class_of
from services.cli.session import FollowOption, ModelArgument, connect, follows, hint
from services.client import Client
from services.client.answers import Encoding
from services.client.client import Point

SeedOption = Annotated[
    int, typer.Option(min=0, help="Of the search: the same seed finds the same z.")
]
LabelOption = Annotated[
    str | None, typer.Option(help="A class, by number or name; without it all are tried.")
]

PICTURES: dict[str, Literal["png", "webp"]] = {".png": "png", ".webp": "webp"}
Z = ".json"
"""What a file holds that is written or read, by the end of its name."""


def encode(
    context: typer.Context,
    model: ModelArgument,
    picture: Annotated[
        Path | None,
        typer.Argument(metavar="PICTURE", help="A PNG, JPEG or WebP file.", dir_okay=False),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Instead of PICTURE: pictures of a dataset, by a job.")
    ] = None,
    n: Annotated[
        int, typer.Option("-n", "--n", min=1, help="Of a dataset: so many pictures.")
    ] = 256,
    seed: SeedOption = 0,
    label: LabelOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="A .json file for z, .png or .webp for its picture.", dir_okay=False
        ),
    ] = None,
    following: FollowOption = None,
) -> None:
    """Find the z of which a model draws a picture best.

    Example: elmyr encode tailor@production coat.jpg -o coat.json
    """
    if (picture is None) == (dataset is None):
        raise typer.BadParameter("say either a PICTURE or --dataset")
    if dataset is not None:
        if label is not None or out is not None:
            raise typer.BadParameter("--label and -o are for a PICTURE: a job keeps what it finds")
        spec = {"model": model, "dataset": dataset, "n": n, "seed": seed}
        with connect(context) as client:
            _by_job(client, spec, following)
    elif picture is not None:
        file = out or Path("encoded.png")
        if file.suffix not in (*PICTURES, Z):
            raise typer.BadParameter(f"{file}: z goes to {Z}, its picture to .png or .webp")
        with connect(context) as client:
            found = _found(client, model, picture.read_bytes(), seed, label, file.suffix)
        file.write_bytes(found)
        write(str(file))


def interpolate(
    context: typer.Context,
    model: ModelArgument,
    a: Annotated[
        str, typer.Argument(metavar="A", help="A picture, a seed, or a .json of elmyr encode.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    n: Annotated[int, typer.Option("-n", "--n", min=2, max=64, help="Number of pictures.")] = 8,
    seed: SeedOption = 0,
    label: Annotated[
        str | None, typer.Option(help="The class of all; without it that of A.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="A .png, .npy, .json or .zip file.", dir_okay=False),
    ] = Path("interpolated.png"),
) -> None:
    """Draw the way from one picture to another.

    Example: elmyr interpolate tailor coat.jpg shirt.png -n 8 -o between.png
    """
    if out.suffix not in SEVERAL:
        raise typer.BadParameter(f"{out}: {n} of a model go to {', '.join(SEVERAL)}")
    start, own = _point(a)
    end, _ = _point(b)
    with connect(context) as client:
        pictures = client.interpolate(
            model,
            start,
            end,
            num=n,
            seed=seed,
            label=own if label is None else class_of(label),
            format=SEVERAL[out.suffix],
        )
    out.write_bytes(pictures)
    write(str(out))
    say(f"{n} of {model}")


def _found(
    client: Client, model: str, image: bytes, seed: int, label: str | None, suffix: str
) -> bytes:
    """What goes into a file whose name ends so."""
    known = None if label is None else class_of(label)
    if suffix == Z:
        return client.encode(model, image, seed=seed, label=known).model_dump_json().encode()
    return client.reconstruct(model, image, seed=seed, label=known, format=PICTURES[suffix])


def _point(text: str) -> tuple[Point, int | None]:
    """Where an interpolation starts or ends, and its class where a file names one."""
    if text.isdecimal():
        return int(text), None
    content = Path(text).read_bytes()
    if not text.endswith(Z):
        return content, None
    try:
        encoding = Encoding.model_validate_json(content)
    except ValidationError as error:
        raise typer.BadParameter(f"{text} is not what elmyr encode writes") from error
    return encoding.z, encoding.label


def _by_job(client: Client, spec: dict[str, Any], following: bool | None) -> None:
    job = client.submit("encode", spec)
    write(job.id)
    say_submitted(client, job)
    if follows(following):
        say_succeeded(follow(client, job.id))
    else:
        hint(f"elmyr jobs watch {job.id}")
