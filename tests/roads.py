"""What the acceptance and chaos tests share: a small dataset on the stack, short trainings, and the
processes of an attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from services.client import Client
from services.local.marks import marked
from services.local.state import StackState
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import Job
from tests.training import squares
from tests.uploads import saved, zip_of

DATASET = "squares"
CLASSES = ("north-east", "north-west", "south-east", "south-west")
ATTEMPT_WORDS = ("workers.attempt", "RayTrainWorker", "TrainController")
"""What the command lines of an attempt's processes hold, one of them each."""


def push_squares(client: Client, folder: Path) -> Job:
    """512 pictures of squares, four classes, uploaded as a zip and ingested."""
    data = squares(512, size=16)
    assert data.labels is not None
    files = {
        f"{CLASSES[label]}/{i:04d}.png": saved(image.permute(1, 2, 0).numpy(), "PNG")
        for i, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True))
    }
    archive = folder / "squares.zip"
    archive.write_bytes(zip_of(files))
    return client.wait(client.push_dataset(DATASET, archive).id, timeout_s=120)


def spec(preset: str = "modern-conditional", *, workers: int = 2, **changes: Any) -> dict[str, Any]:
    """A training of narrow networks that reports and saves often."""
    config = {
        "generator": {"width": 8},
        "discriminator": {"width": 8},
        "report_every_s": 0.2,
        "checkpoint_every_kimg": 2.0,
        "grid_every_kimg": 5.0,
    }
    return {
        "preset": preset,
        "dataset": DATASET,
        "model": changes.pop("model", "shapes"),
        "workers": workers,
        "kimg": changes.pop("kimg", 10.0),
        "config": config,
        **changes,
    }


def until(client: Client, job_id: str, wanted: Callable[[Event], bool]) -> Event:
    """The first event of a job that is wanted; fails when the job ends without it."""
    for event in client.events(job_id):
        if wanted(event):
            return event
    raise AssertionError(f"{job_id} ended before: {client.job(job_id)}")


def until_checkpoint(client: Client, job_id: str) -> Event:
    return until(client, job_id, lambda event: event.type is EventType.CHECKPOINT)


def attempt_processes(stack: StackState) -> list[psutil.Process]:
    """The driver and the ranks of all attempts that run on the stack."""
    return [
        process
        for process in marked(stack.stack_id, "ray")
        if any(word in line for line in _command(process) for word in ATTEMPT_WORDS)
    ]


def wait_for(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Wait until it holds. Raises AssertionError when it still does not."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.1)


def _command(process: psutil.Process) -> Iterator[str]:
    try:
        yield from process.cmdline()
    except psutil.Error:
        return
