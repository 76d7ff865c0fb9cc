"""Shows a job's events as they come: one status line on a terminal, plain lines elsewhere.

The first Ctrl-C detaches; the job goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from services.cli.exits import ExitCode
from services.cli.output import clean, duration, say
from services.cli.session import hint
from services.client import Client
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import FINAL_STATES, Job, JobKind

LINE_EVERY_S = 5.0
"""Off a terminal a metric is a line at most this often: logs keep what is printed."""


def follow(client: Client, job_id: str, *, on_event: Callable[[Event], None] | None = None) -> Job:
    """Show what happens to a job until it has succeeded; `on_event` hears of it too.

    Raises JobFailed and JobCanceled; exits with 130 after Ctrl-C.
    """
    try:
        is_training = client.job(job_id).kind is JobKind.TRAIN
        with _screen() as screen:
            for event in (_events if is_training else _observations)(client, job_id):
                screen.show(event)
                if on_event is not None:
                    on_event(event)
            return client.succeeded(client.job(job_id))
    except KeyboardInterrupt:
        say(f"detached; job {job_id} goes on")
        hint(f"elmyr jobs watch {job_id}", f"elmyr jobs cancel {job_id}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _events(client: Client, job_id: str) -> Iterator[Event]:
    """A job's own events, past an end behind which somebody asked for a retry."""
    after = None
    while True:
        for event in client.events(job_id, after=after):
            after = event.id
            yield event
        if client.job(job_id).state in FINAL_STATES:
            return


def _observations(client: Client, job_id: str) -> Iterator[Event]:
    """The same for kinds of jobs that report their progress and no metrics."""
    seen: dict[EventType, dict[str, Any]] = {}
    for job in client.poll(job_id):
        state = {"state": job.state, "attempt": job.token, "reason": job.reason}
        for type_, data in (
            (EventType.METRIC, job.progress.model_dump(exclude_none=True)),
            (EventType.STATE, state | {"stop_requested": job.stop_requested}),
        ):
            if data and seen.get(type_) != data:
                seen[type_] = data
                yield Event(id="", type=type_, at=job.updated_at, data=data)


def status_line(data: dict[str, Any]) -> str:
    """`kimg 120.0/1000 | 740 img/s | D 0.64 G 1.23 | eta 2m` of a metric's data, as far as it
    goes."""
    of = data.get("of")
    parts = []
    if data.get("kimg") is not None:
        parts.append(f"kimg {data['kimg']:.1f}" + (f"/{of:g}" if of else ""))
    elif data.get("done") is not None:
        parts.append(f"{data['done']}" + (f"/{of:g}" if of else ""))
    if data.get("img_per_s") is not None:
        parts.append(f"{data['img_per_s']:.0f} img/s")
    losses = [
        f"{name} {data[key]:.2f}"
        for name, key in (("D", "loss_d"), ("G", "loss_g"))
        if data.get(key) is not None
    ]
    if losses:
        parts.append(" ".join(losses))
    if data.get("eta_s") is not None:
        parts.append(f"eta {duration(data['eta_s'])}")
    return " | ".join(parts)


def sentence(event: Event) -> str | None:
    """What an event that is no metric says to people; None for what they need not hear."""
    data = event.data
    if event.type is EventType.STATE:
        attempt = f", attempt {data['attempt']}" if data.get("attempt") else ""
        asked = f", {data['stop_requested']} asked" if data.get("stop_requested") else ""
        reason = f": {data['reason']}" if data.get("reason") else ""
        return f"{data['state']}{attempt}{asked}{reason}"
    if event.type is EventType.COLLAPSE:
        alarms = ", ".join(f"{name} {data['signs'].get(name)}" for name in data["alarms"])
        return f"kimg {data['kimg']:g}: collapsed ({alarms}); {data['action']}"
    return None


class _Lines:
    """Plain lines on stderr."""

    def __init__(self) -> None:
        self._next_line = time.monotonic()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        """Print the event, unless it is one metric of too many."""
        if event.type is EventType.METRIC:
            if time.monotonic() < self._next_line:
                return
            self._next_line = time.monotonic() + LINE_EVERY_S
            say(status_line(event.data))
        elif line := sentence(event):
            say(line)


class _Bar:
    """A bar with the status line at the bottom of the terminal, sentences above it."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("waiting", total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Move the bar, or print a sentence above it."""
        data = event.data
        if event.type is EventType.METRIC:
            done = data.get("kimg") if data.get("kimg") is not None else data.get("done")
            self._progress.update(
                self._task, description=status_line(data), completed=done, total=data.get("of")
            )
        elif line := sentence(event):
            self._progress.console.print(Text(clean(line)))


def _screen() -> _Bar | _Lines:
    return _Bar() if sys.stderr.isatty() else _Lines()
