"""`elmyr demo`: the whole road once, on this machine, with real images.

Upload, ingest, train on two ranks, look at the grids as they come, publish, serve, sample.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from services.cli.follow import follow
from services.cli.jobs import say_submitted, say_succeeded
from services.cli.output import say, write
from services.cli.session import DataDir
from services.cli.stack import folder_of
from services.client import Client
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import JobState

IMAGES = Path("examples/fashion-mnist")
DATASET, MODEL = "fashion-mnist", "garments"
KIMG = {"modern-conditional": 160.0, "modern": 160.0, "lecture": 200.0}
SERVED, SAMPLED = 64, 1000


def demo(
    context: typer.Context,
    data_dir: DataDir = None,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(KIMG)}.")] = "modern-conditional",
    kimg: Annotated[float | None, typer.Option(help="Length of the training.", min=1)] = None,
    images: Annotated[Path, typer.Option(help="Pictures to learn from.", exists=True)] = IMAGES,
    out: Annotated[Path, typer.Option(help="Where the pictures go.", file_okay=False)] = Path(
        "demo-out"
    ),
    end: Annotated[bool, typer.Option("--exit", help="Stop the stack at the end.")] = False,
) -> None:
    """Train a GAN on real images, here and now, and look at what it forges."""
    from services.local import stack
    from services.local.state import load_state

    began = time.monotonic()
    folder = folder_of(context, data_dir)
    out.mkdir(exist_ok=True)
    state = load_state(folder)
    if state is None or state.state != "running":
        state = stack.start_detached(folder)
    try:
        with Client(data_dir=folder) as client:
            _ingest(client, images)
            _train(client, preset, kimg or KIMG.get(preset, 100.0), out)
            _serve(client, out)
            _sample(client, out)
            say(f"done in {time.monotonic() - began:.0f} s", style="green")
    finally:
        if end:
            stack.stop(folder)
    write(f"pictures   {out.resolve()}")
    if not end:
        write(f"API docs   {state.api_url}/docs")
        write(f"dashboard  {state.dashboard_url}")
        write(f"endpoint   curl -o one.png '{state.serve_url}/v1/models/{MODEL}/image?label=9'")
        write(f"openai     OpenAI(base_url='{state.serve_url}/v1', api_key='unused')")
        write("stop it    elmyr down")


def _ingest(client: Client, images: Path) -> None:
    """The same pictures give the same version, so a second demo only points at it again."""
    say(f"1. ingest {images}", style="bold")
    job = client.push_dataset(DATASET, images, size=32, fit="pad", source=str(images))
    say_succeeded(follow(client, job.id))


def _train(client: Client, preset: str, kimg: float, out: Path) -> None:
    say(f"2. train preset {preset} on two workers; grids come to {out}/", style="bold")
    spec = {"preset": preset, "dataset": DATASET, "model": MODEL, "kimg": kimg, "workers": 2}
    job = client.submit("train", spec, name=f"demo {preset}")
    say_submitted(client, job)

    def keep_grid(event: Event) -> None:
        if event.type is EventType.SAMPLE:
            grid = out / f"grid-{event.data['kimg']:06.1f}.webp"
            client.download(f"/v1/jobs/{job.id}/artifacts/{event.data['path']}", grid)
            say(f"grid at {event.data['kimg']:g} kimg: {grid}")

    trained = follow(client, job.id, on_event=keep_grid)
    assert trained.state is JobState.SUCCEEDED
    say_succeeded(trained)


def _serve(client: Client, out: Path) -> None:
    from PIL import Image  # a tenth of every command's start otherwise

    say(f"3. ask the endpoint for {SERVED} pictures", style="bold")
    began = time.monotonic()
    picture = client.generate(MODEL, n=SERVED, seed=1, format="grid")
    took_s = time.monotonic() - began
    file = out / "served.png"
    file.write_bytes(picture)
    width, height = Image.open(io.BytesIO(picture)).size
    say(f"{file}: {width} x {height} pixels, {decimal(len(picture))}, in {took_s:.2f} s")


def _sample(client: Client, out: Path) -> None:
    say(f"4. a sampling job of {SAMPLED}", style="bold")
    job = client.submit("sample", {"model": MODEL, "n": SAMPLED, "seed": 1})
    follow(client, job.id)
    archive = out / "sampled.zip"
    say(f"{archive}: {decimal(client.archive(job.id, archive))}")
