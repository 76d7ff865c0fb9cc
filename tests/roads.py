"""What the acceptance and chaos tests share: a small dataset on the stack, short trainings, and the
processes of an attempt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from services.client import Client
from services.local.marks import marked
from services.local.stack import status
from services.local.state import StackState
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import Job, JobState
from tests.training import squares
from tests.uploads import saved, zip_of

DATASET = "squares"
CLASSES = ("north-east", "north-west", "south-east", "south-west")
NUM_IMAGES = 256
"""Of the 512 pictures: each place of a square comes twice in each brightness."""
DRIVER = "workers.attempt"
RANKS = ("ray::RayTrainWorker", "ray::TrainController", "ray::PlacementGroupCleaner")
"""How Ray names the processes that Ray Train starts for an attempt with several workers."""
REACHABLE = {psutil.CONN_LISTEN, psutil.CONN_NONE}
"""TCP that listens, and UDP, which any packet reaches."""
NEVER = 1e6
"""As `checkpoint_every_kimg`: only a stop and the end leave a checkpoint."""


def push_squares(client: Client, folder: Path) -> Job:
    """512 pictures of squares, four classes, uploaded as a zip and ingested."""
    data = squares(512, size=16)
    assert data.labels is not None
    files = {
        f"{CLASSES[label]}/{i:04d}.png": saved(
            image.clamp(max=200 - i // 128 * 20).permute(1, 2, 0).numpy(), "PNG"
        )
        for i, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True))
    }
    archive = folder / "squares.zip"
    archive.write_bytes(zip_of(files))
    return client.wait(client.push_dataset(DATASET, archive).id, timeout_s=120)


def spec(
    preset: str = "modern-conditional",
    *,
    workers: int = 2,
    kimg: float = 10.0,
    model: str = "shapes",
    seed: int = 0,
    **config: Any,
) -> dict[str, Any]:
    """A training of narrow networks that reports and saves often."""
    often = {"report_every_s": 0.2, "checkpoint_every_kimg": 2.0, "grid_every_kimg": 5.0}
    narrow = {"generator": {"width": 8}, "discriminator": {"width": 8}}
    return {
        "preset": preset,
        "dataset": DATASET,
        "model": model,
        "workers": workers,
        "kimg": kimg,
        "seed": seed,
        "config": narrow | often | {"replay": {"enabled": True}} | config,
    }


def is_state(event: Event, *states: JobState) -> bool:
    return event.type is EventType.STATE and event.data["state"] in states


def kimg_of(events: Iterable[Event], type_: EventType) -> list[float]:
    """How far the run was at each event of a type."""
    return [event.data["kimg"] for event in events if event.type is type_]


def until(events: Iterator[Event], wanted: Callable[[Event], bool]) -> list[Event]:
    """The next events of a job, up to the first that is wanted; fails when it ends without."""
    seen = []
    for event in events:
        seen.append(event)
        if wanted(event):
            return seen
    raise AssertionError(f"ended before: {[(event.type, event.data) for event in seen[-3:]]}")


def until_type(events: Iterator[Event], type_: EventType) -> list[Event]:
    return until(events, lambda event: event.type is type_)


def until_state(events: Iterator[Event], *states: JobState) -> list[Event]:
    return until(events, lambda event: is_state(event, *states))


def attempt_processes(stack: StackState, job_id: str) -> list[psutil.Process]:
    """The driver of a job's attempt, and the ranks on the stack: one training runs at a time."""
    return [
        process
        for process in marked(stack.stack_id, "ray")
        if (command := _command(process))
        and ((DRIVER in command and job_id in command) or command[0].startswith(RANKS))
    ]


def kill_attempt(stack: StackState, job_id: str) -> None:
    """SIGKILL to every process of the attempt that runs."""
    processes = attempt_processes(stack, job_id)
    assert processes
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)


def driver(stack: StackState, job_id: str) -> psutil.Process:
    (found,) = (p for p in attempt_processes(stack, job_id) if DRIVER in _command(p))
    return found


def kill_part(stack: StackState, name: str) -> int:
    """SIGKILL to the process of a part of the stack; returns its id."""
    pid = status(stack.data_dir).part(name).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_until_it_runs_again(stack: StackState, name: str, *, killed: int) -> None:
    def runs() -> bool:
        part = status(stack.data_dir).part(name)
        return part.state == "running" and part.pid != killed

    wait_for(runs, within_s=60, what=f"{name} runs again")


def wait_for(condition: Callable[[], object], *, within_s: float, what: str) -> None:
    """Wait until it holds. Raises AssertionError when it still does not."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.1)


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # ended meanwhile
        return []


def open_to_others(process: psutil.Process) -> list[str]:
    """What a process listens on beyond loopback."""
    try:
        connections = process.net_connections(kind="inet")
    except psutil.Error:
        return []  # ended meanwhile
    return [
        f"{process.name()} {entry.laddr.ip}:{entry.laddr.port}"
        for entry in connections
        if entry.status in REACHABLE
        and entry.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    ]
