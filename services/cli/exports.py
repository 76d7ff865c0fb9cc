"""`elmyr jobs tensorboard` and `elmyr jobs mlflow`: a job's metrics and pictures for other tools.

What is exported is what the API keeps of a job, while it runs and after its end. Neither tool is
imported before its command runs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.output import say, write
from services.cli.session import JobArgument, connect, hint
from services.client import Client
from shared.errors import InvalidInput, Unavailable
from shared.schemas.events import Event
from shared.schemas.jobs import FINAL_STATES, Job, JobState

NO_SCALARS = frozenset({"kimg", "of", "step", "eta_s"})
MLFLOW_BATCH = 1000  # values that its API takes at a time
MLFLOW_PARAM_CHARS = 500
MLFLOW_ENDS = {
    JobState.SUCCEEDED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELED: "KILLED",
}


def tensorboard(
    context: typer.Context,
    job_id: JobArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="TensorBoard's log folder.")],
) -> None:
    """Write a job's metrics and grids as TensorBoard event files, into FOLDER/JOB.

    The step is the number of real images seen. An export that is repeated replaces the first.

    Example: elmyr jobs tensorboard JOB runs && tensorboard --logdir runs
    """
    with connect(context) as client:
        job = client.job(job_id)
        num_scalars, num_grids = _write_events(client, job, folder / job.id)
    write(str(folder / job.id))
    say(f"{num_scalars} scalars and {num_grids} grids of job {job.id}")
    hint(f"tensorboard --logdir {folder}")


def mlflow(
    context: typer.Context,
    job_id: JobArgument,
    experiment: Annotated[str, typer.Option(help="The experiment that the run is part of.")] = (
        "elmyr"
    ),
) -> None:
    """Write a job's spec, metrics and grids as a run of MLflow, at MLFLOW_TRACKING_URI.

    Prints the run's id. Each export makes a run of its own.

    Example: MLFLOW_TRACKING_URI=http://mlflow:5000 elmyr jobs mlflow JOB
    """
    try:
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise _not_installed(error, "mlflow") from error
    with connect(context) as client:
        job = client.job(job_id)
        try:
            run_id = _log_run(client, job, experiment)
        except MlflowException as error:
            raise Unavailable(f"MLflow: {error}") from error
    write(run_id)
    say(f"job {job.id} is run {run_id} of experiment {experiment}")


def _write_events(client: Client, job: Job, folder: Path) -> tuple[int, int]:
    """How many scalars and grids were written."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise _not_installed(error, "tensorboard") from error

    def entry(kimg: float, at_s: float, value: Any) -> Any:
        step = round(kimg * 1000)
        return TensorBoardEvent(wall_time=at_s, step=step, summary=Summary(value=[value]))

    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    num_scalars = num_grids = 0
    writer = EventFileWriter(str(folder))
    try:
        for event in client.metrics(job.id):
            for name, number in _scalars(event):
                value = Summary.Value(tag=name, simple_value=number)
                writer.add_event(entry(_kimg(event), event.at.timestamp(), value))
                num_scalars += 1
        for kimg, at_s, file in _grids(client, job):
            width, height, png = _png(file)
            image = Summary.Image(
                width=width, height=height, colorspace=3, encoded_image_string=png
            )
            writer.add_event(entry(kimg, at_s, Summary.Value(tag="grid", image=image)))
            num_grids += 1
    finally:
        writer.close()
    return num_scalars, num_grids


def _log_run(client: Client, job: Job, experiment: str) -> str:
    """The id of the new run. Raises MlflowException."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    tracking = MlflowClient()
    found = tracking.get_experiment_by_name(experiment)
    run = tracking.create_run(
        found.experiment_id if found else tracking.create_experiment(experiment),
        start_time=_ms(job.created_at.timestamp()),
        run_name=job.name or job.id,
        tags={"elmyr.job_id": job.id, "elmyr.kind": job.kind, "elmyr.owner": job.owner},
    )
    run_id = str(run.info.run_id)
    for name, text in _params(job.spec):
        tracking.log_batch(run_id, params=[Param(name, text[:MLFLOW_PARAM_CHARS])])
    values = [
        Metric(name, number, _ms(event.at.timestamp()), round(_kimg(event) * 1000))
        for event in client.metrics(job.id)
        for name, number in _scalars(event)
    ]
    for start in range(0, len(values), MLFLOW_BATCH):
        tracking.log_batch(run_id, metrics=values[start : start + MLFLOW_BATCH])
    for _, _, file in _grids(client, job):
        tracking.log_artifact(run_id, str(file), "grids")
    if job.state in FINAL_STATES:
        ended_at = job.ended_at or job.updated_at
        tracking.set_terminated(run_id, MLFLOW_ENDS[job.state], _ms(ended_at.timestamp()))
    return run_id


def _scalars(event: Event) -> Iterator[tuple[str, float]]:
    """What is worth a curve; a loss that was not finite came as null."""
    for name, value in event.data.items():
        if name not in NO_SCALARS and isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value)


def _kimg(event: Event) -> float:
    """How far the job was; jobs that are no trainings count things in thousands as well."""
    data = event.data
    return float(data["kimg"] if "kimg" in data else data.get("done", 0) / 1000)


def _grids(client: Client, job: Job) -> Iterator[tuple[float, float, Path]]:
    """The kimg, the Unix time and the file of each grid; the file is gone at the next."""
    with tempfile.TemporaryDirectory(prefix="elmyr-") as folder:
        for sample in client.samples(job.id) if job.kind == "train" else ():
            if sample.kimg is not None and sample.at is not None:
                file = Path(folder) / f"{sample.kimg:010.3f}{Path(sample.url).suffix}"
                client.download(sample.url, file)
                yield sample.kimg, sample.at.timestamp(), file
                file.unlink()


def _png(file: Path) -> tuple[int, int, bytes]:
    """Width, height and the picture as PNG: TensorBoard shows no WebP."""
    import io

    from PIL import Image

    with Image.open(file) as picture:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "PNG")
        return picture.width, picture.height, buffer.getvalue()


def _params(spec: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A spec as names and texts: `config.optimizer_g.lr`."""
    for name, value in spec.items():
        if isinstance(value, dict):
            yield from _params(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _not_installed(error: ImportError, extra: str) -> InvalidInput:
    return InvalidInput(f"{error.name} is not installed: pip install 'elmyr[{extra}]'")
