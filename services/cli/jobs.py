"""`elmyr jobs`: look at jobs, follow them, and ask things of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any

import typer

from services.cli.exports import mlflow, tensorboard
from services.cli.follow import follow, status_line
from services.cli.output import Output, OutputOption, View, clean, say, show, show_one, write
from services.cli.session import JobArgument, connect
from services.client import Client
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobKind, JobState, StopRequest

app = typer.Typer(help="Look at jobs, follow them, and ask things of them.", no_args_is_help=True)


def _progress(job: Job) -> str:
    return status_line(job.progress.model_dump(include={"kimg", "done", "of"}))


LIST: View[Job] = View(
    id=lambda job: job.id,
    columns={
        "ID": lambda job: job.id,
        "KIND": lambda job: job.kind,
        "STATE": lambda job: job.state,
        "PROGRESS": _progress,
        "ATTEMPT": lambda job: f"{job.token}/{job.max_attempts}",
        "QUEUED": lambda job: job.created_at,
        "STARTED": lambda job: job.started_at,
        "NAME": lambda job: job.name,
    },
)
ONE: View[Job] = View(
    id=lambda job: job.id,
    columns={
        "ID": lambda job: job.id,
        "NAME": lambda job: job.name,
        "KIND": lambda job: job.kind,
        "STATE": lambda job: job.state,
        "REASON": lambda job: job.reason,
        "ASKED": lambda job: job.stop_requested,
        "AHEAD": lambda job: job.jobs_ahead,
        "PROGRESS": lambda job: status_line(job.progress.model_dump()),
        "ATTEMPTS": lambda job: "; ".join(
            f"{a.number} {a.outcome or a.state}" + (f" ({a.error})" if a.error else "")
            for a in job.attempts
        ),
        "SPEC": lambda job: " ".join(
            f"{key}={value}" for key, value in job.spec.items() if value not in (None, "", {})
        ),
        "LABELS": lambda job: " ".join(f"{key}={value}" for key, value in job.labels.items()),
        "PRIORITY": lambda job: job.priority or None,
        "RESULT": lambda job: " ".join(
            f"{key}={value}" for key, value in (job.result or {}).items()
        ),
        "OWNER": lambda job: job.owner,
        "QUEUED": lambda job: job.created_at,
        "STARTED": lambda job: job.started_at,
        "ENDED": lambda job: job.ended_at,
    },
)


RESULTS: dict[JobKind, Callable[[dict[str, Any]], str]] = {
    JobKind.TRAIN: lambda result: f": published {result.get('model')}@{result.get('version')}",
    JobKind.INGEST: lambda result: (
        f": {result.get('num_images')} images in dataset {result.get('dataset')}, "
        f"{result.get('num_refused')} refused, {result.get('num_duplicates')} duplicates left out"
    ),
    JobKind.ENCODE: lambda result: (
        f": {result.get('n')} pictures of {result.get('dataset')} encoded by "
        f"{result.get('model')}@{result.get('version')}, mean error "
        f"{result.get('mean_error', 0.0):.5f}, in {result.get('path')}"
    ),
    JobKind.EVALUATE: lambda result: (
        f": scored {result.get('model')}@{result.get('version')} with n {result.get('n')} and seed "
        f"{result.get('seed')}, in features {result.get('features', '')[:22]}"
    ),
}


@app.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[JobKind | None, typer.Option(help="Only jobs of this kind.")] = None,
    label: Annotated[str | None, typer.Option(help="Only jobs with KEY=VALUE or KEY.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="At most so many.")] = 30,
    output: OutputOption = Output.TABLE,
) -> None:
    """List jobs, newest first.

    Example: elmyr jobs list --state running -o id | xargs -n1 elmyr jobs pause
    """
    with connect(context) as client:
        show(islice(client.jobs(state=state, kind=kind, label=label), limit), LIST, output)


@app.command()
def get(context: typer.Context, job_id: JobArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one job: state, attempts, result, and what it waits for."""
    with connect(context) as client:
        show_one(client.job(job_id), ONE, output)


@app.command()
def watch(context: typer.Context, job_id: JobArgument) -> None:
    """Follow a job until it ends; the exit code is the job's. Ctrl-C detaches.

    Example: elmyr jobs watch JOB && notify-send "it is done"
    """
    with connect(context) as client:
        say_succeeded(follow(client, job_id))


@app.command()
def logs(
    context: typer.Context,
    job_id: JobArgument,
    following: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the job ends.")
    ] = False,
) -> None:
    """Print a job's log."""
    with connect(context) as client:
        events = client.events(job_id) if following else client.logs(job_id)
        for event in events:
            if event.type is EventType.LOG:
                write(clean(str(event.data["line"])))


@app.command()
def wait(
    context: typer.Context,
    job_id: JobArgument,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Seconds; then exit with 124.")
    ] = None,
) -> None:
    """Wait in silence until a job has succeeded; the exit code is the job's.

    Example: elmyr jobs wait JOB --timeout 600 && elmyr sample tailor -n 64 -o out.png
    """
    with connect(context) as client:
        say_succeeded(client.wait(job_id, timeout_s=timeout_s))


@app.command()
def cancel(context: typer.Context, job_id: JobArgument) -> None:
    """Cancel a job. One that runs writes a checkpoint, then its processes end."""
    with connect(context) as client:
        _tell(client.cancel(job_id))


@app.command()
def pause(context: typer.Context, job_id: JobArgument) -> None:
    """Pause a job. One that runs writes a checkpoint, then its processes end."""
    with connect(context) as client:
        _tell(client.pause(job_id))


@app.command()
def resume(context: typer.Context, job_id: JobArgument) -> None:
    """Let a paused job go on from its checkpoint."""
    with connect(context) as client:
        _tell(client.resume(job_id))


@app.command()
def retry(context: typer.Context, job_id: JobArgument) -> None:
    """Queue a failed or canceled job again; it goes on from its newest checkpoint."""
    with connect(context) as client:
        _tell(client.retry(job_id))


for export in (tensorboard, mlflow):
    app.command()(export)


def say_succeeded(job: Job) -> None:
    """Say that a job succeeded, and what came of it."""
    came = RESULTS[job.kind](job.result or {}) if job.kind in RESULTS else ""
    say(f"job {job.id} succeeded{came}", style="green")


def say_submitted(client: Client, job: Job) -> None:
    """Say what was made and where it is to be seen."""
    waits = f", {job.jobs_ahead} ahead of it" if job.jobs_ahead else ""
    where = client.connection.api_url + job.urls.get("self", f"/v1/jobs/{job.id}")
    say(f"{job.kind} job {job.id} is {job.state}{waits}: {where}")


def _tell(job: Job) -> None:
    write(job.id)
    asked = {
        StopRequest.CANCEL: "cancel asked; its processes end within seconds",
        StopRequest.PAUSE: "pause asked; it writes a checkpoint first",
    }
    wish = f" ({asked[job.stop_requested]})" if job.stop_requested else ""
    say(f"job {job.id} is {job.state}{wish}")
