"""The typed Python client: what the API and serving can do, as methods.

It knows routes and answers. How requests are repeated is told in transport.py, where Elmyr is in
connection.py, how a stream goes on after a cut in events.py.

    with Client() as client:
        job = client.submit("train", {"dataset": "garments", "model": "tailor"})
        client.wait(job.id)
        picture = client.generate("tailor", n=64, format="grid")
"""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from pydantic import BaseModel

from services.client import connection, events
from services.client.answers import Artifact, Encoding, Replay, Sample, ValidatedJob
from services.client.errors import JobCanceled, JobFailed, NoStack, WaitTimedOut
from services.client.routes import route
from services.client.transport import Params, Transport
from services.client.uploads import upload_of
from shared.schemas.datasets import DatasetManifest
from shared.schemas.events import Event
from shared.schemas.jobs import FINAL_STATES, Job, JobKind, JobState
from shared.schemas.models import Alias, ModelCard, ModelSummary
from shared.schemas.scores import Evaluation

LOG_TAIL = 20
"""Lines of a failed job's log that its error carries."""
MIN_POLL_S = 0.2
MAX_POLL_S = 2.0

ImageFormat = Literal["png", "webp", "grid", "npy", "json"]
Fit = Literal["crop", "pad"]
Point = int | Sequence[float] | bytes
"""Where an interpolation starts or ends: a seed's first picture, a z, or an image file."""
M = TypeVar("M", bound=BaseModel)


class SubmitOptions(TypedDict, total=False):
    """What a submit may say beside kind and spec: the fields of `JobSubmission`."""

    name: str | None
    priority: int
    labels: dict[str, str]
    max_attempts: int
    deadline_s: float | None
    after: list[str]


class Client:
    """A connection to one Elmyr. Close it, or use it as a context manager.

    Every method raises the errors of shared/errors.py that the server names (with `request_id`),
    and Unreachable when nobody answers for 30 s.
    """

    def __init__(
        self,
        api_url: str | None = None,
        serve_url: str | None = None,
        api_key: str | None = None,
        *,
        data_dir: Path | None = None,
    ) -> None:
        """What is not given comes from the environment or from the stack of `data_dir`.

        Raises NoStack when there is no address to be found.
        """
        self.connection = connection.find(api_url, serve_url, api_key, data_dir=data_dir)
        self._api = Transport(self.connection.api_url, self.connection.api_key)
        # Serving asks for no key, so it is not told one.
        self._serving = (
            Transport(self.connection.serve_url, None) if self.connection.serve_url else None
        )

    def close(self) -> None:
        """Close the connections."""
        self._api.close()
        if self._serving is not None:
            self._serving.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Jobs

    def submit(
        self, kind: JobKind | str, spec: Mapping[str, Any], **options: Unpack[SubmitOptions]
    ) -> Job:
        """Submit a job; it is one job however often the request had to be repeated."""
        body = {"kind": kind, "spec": dict(spec), **options}
        return Job.model_validate_json(self._api.send("POST", "/v1/jobs", json=body).content)

    def validate(
        self, kind: JobKind | str, spec: Mapping[str, Any], **options: Unpack[SubmitOptions]
    ) -> ValidatedJob:
        """What a submit of this would make; nothing is made."""
        body = {"kind": kind, "spec": dict(spec), **options}
        answer = self._api.send("POST", "/v1/jobs", params={"validate_only": True}, json=body)
        return ValidatedJob.model_validate_json(answer.content)

    def job(self, job_id: str) -> Job:
        """One job."""
        return self._get(Job, route("jobs", job_id))

    def jobs(
        self,
        *,
        state: JobState | None = None,
        kind: JobKind | None = None,
        label: str | None = None,
    ) -> Iterator[Job]:
        """Jobs, newest first, fetched as they are asked for. `label` is `key=value` or `key`."""
        return self._pages(Job, "/v1/jobs", {"state": state, "kind": kind, "label": label})

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; one that runs has `stop_requested` until it has ended."""
        return self._verb(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        """Pause a job; one that runs writes a checkpoint first."""
        return self._verb(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        """Queue a paused job again; it goes on from its checkpoint."""
        return self._verb(job_id, "resume")

    def retry(self, job_id: str) -> Job:
        """Queue a failed or canceled job again; it goes on from its newest checkpoint."""
        return self._verb(job_id, "retry")

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[Event]:
        """What happens to a job, from its beginning or behind the event `after`, until it has
        ended; survives cut connections and 5 minutes without the API."""
        return events.follow(self._api, job_id, after=after)

    def poll(self, job_id: str, *, timeout_s: float | None = None) -> Iterator[Job]:
        """The job as it is now, and again every 0.2 to 2 s until it has ended.

        Raises WaitTimedOut when it has not ended after `timeout_s`.
        """
        began = time.monotonic()
        poll_s = MIN_POLL_S
        while True:
            job = self.job(job_id)
            yield job
            if job.state in FINAL_STATES:
                return
            left_s = poll_s if timeout_s is None else began + timeout_s - time.monotonic()
            if timeout_s is not None and left_s <= 0:
                raise WaitTimedOut(job, timeout_s)
            time.sleep(min(poll_s, left_s))
            poll_s = min(poll_s * 1.5, MAX_POLL_S)

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job has succeeded, and return it.

        Raises JobFailed (with its error and the end of its log), JobCanceled, or WaitTimedOut.
        """
        (ended,) = deque(self.poll(job_id, timeout_s=timeout_s), maxlen=1)
        return self.succeeded(ended)

    def succeeded(self, job: Job) -> Job:
        """The ended job itself. Raises JobFailed or JobCanceled if it did not succeed."""
        if job.state is JobState.FAILED:
            lines = (str(event.data["line"]) for event in self.logs(job.id))
            raise JobFailed(job, deque(lines, maxlen=LOG_TAIL))
        if job.state is JobState.CANCELED:
            raise JobCanceled(job)
        return job

    def metrics(self, job_id: str) -> Iterator[Event]:
        """A job's metrics so far, oldest first."""
        return self._pages(Event, route("jobs", job_id, "metrics"))

    def logs(self, job_id: str) -> Iterator[Event]:
        """A job's log lines so far (`data["line"]`), oldest first."""
        return self._pages(Event, route("jobs", job_id, "logs"))

    def samples(self, job_id: str) -> Iterator[Sample]:
        """The pictures of a job so far: a training's grids, or what a sampling job has drawn."""
        return self._pages(Sample, route("jobs", job_id, "samples"))

    def artifacts(self, job_id: str) -> Iterator[Artifact]:
        """The files of a run, by path."""
        return self._pages(Artifact, route("jobs", job_id, "artifacts"))

    def download(self, url: str, into: Path) -> int:
        """Write what lies under a path of the API (the `url` of a sample or an artifact) into a
        file, which appears whole or not at all; returns its number of bytes."""
        return self._api.download(url, into)

    def archive(self, job_id: str, into: Path) -> int:
        """Write all pictures of a sampling job as one zip; returns its number of bytes."""
        return self._api.download(route("jobs", job_id, "samples", "archive"), into)

    def replays(self, job_id: str) -> Replay:
        """What is in a training's replay repository at its newest checkpoint."""
        return self._get(Replay, route("replays", job_id))

    # Datasets

    def push_dataset(
        self,
        name: str,
        path: Path,
        *,
        size: int | None = None,
        channels: int | None = None,
        fit: Fit = "crop",
        source: str = "",
        on_progress: Callable[[int], None] | None = None,
    ) -> Job:
        """Upload a file (zip, tar, Parquet, IDX) or a folder; returns the job that ingests it.

        `on_progress` hears how many bytes are sent. Raises InvalidInput when there is nothing.
        """
        upload = upload_of(path, on_progress=on_progress)
        answer = self._api.send(
            "PUT",
            route("datasets", name),
            params={
                "filename": upload.filename,
                "size": size,
                "channels": channels,
                "fit": fit,
                "source": source,
            },
            body=upload.body,
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(upload.num_bytes),
            },
        )
        return Job.model_validate_json(answer.content)

    def datasets(self) -> Iterator[DatasetManifest]:
        """The newest version of each dataset, by name."""
        return self._pages(DatasetManifest, "/v1/datasets")

    def dataset(self, name: str) -> DatasetManifest:
        """One dataset, with what was refused and why."""
        return self._get(DatasetManifest, route("datasets", name))

    def delete_dataset(self, name: str) -> None:
        """Delete every version of a dataset."""
        self._api.send("DELETE", route("datasets", name))

    # Models

    def models(self) -> Iterator[ModelSummary]:
        """The models, by name."""
        return self._pages(ModelSummary, "/v1/models")

    def model(self, name: str) -> ModelSummary:
        """One model: versions, aliases, the card of the latest."""
        return self._get(ModelSummary, route("models", name))

    def card(self, name: str, version: int) -> ModelCard:
        """Where a version comes from."""
        return self._get(ModelCard, route("models", name, "versions", version))

    def scores(self, name: str, version: int) -> list[Evaluation]:
        """What evaluations said of a version, newest first."""
        answer = self._api.send("GET", route("models", name, "versions", version, "scores"))
        return [Evaluation.model_validate(item) for item in answer.json()]

    def delete_model(self, name: str) -> None:
        """Delete a model with every version and alias. Raises Conflict while a job needs it."""
        self._api.send("DELETE", route("models", name))

    def delete_version(self, name: str, version: int) -> None:
        """Delete a version; its number is never given again. Raises Conflict while an alias names
        it or a job draws from it by its number."""
        self._api.send("DELETE", route("models", name, "versions", version))

    def alias(self, name: str, alias: str) -> Alias:
        """What an alias names now, and named before."""
        return self._get(Alias, route("models", name, "aliases", alias))

    def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias; what it names stays. Raises Conflict for `latest`."""
        self._api.send("DELETE", route("models", name, "aliases", alias))

    def promote(self, name: str, alias: str, version: int) -> Alias:
        """Point an alias at a version; serving follows within 2 s."""
        answer = self._api.send(
            "PUT", route("models", name, "aliases", alias), json={"version": version}
        )
        return Alias.model_validate_json(answer.content)

    def generate(
        self,
        model: str,
        *,
        n: int = 1,
        seed: int | None = None,
        label: int | str | None = None,
        prompt: str | None = None,
        truncation: float = 1.0,
        format: ImageFormat = "png",
    ) -> bytes:
        """Pictures of a served model, encoded as `format`; the same seed gives the same bytes.

        Raises NoStack when the address of serving is not known.
        """
        body = {
            "n": n, "seed": seed, "label": label, "prompt": prompt, "truncation": truncation,
            "format": format,
        }  # fmt: skip
        return self._ask_serving(model, "generate", body)

    def encode(
        self,
        model: str,
        image: bytes,
        *,
        seed: int = 0,
        label: int | str | None = None,
        fit: Fit = "crop",
    ) -> Encoding:
        """The z of which a served model draws an image file (PNG, JPEG, WebP) best; `seed` is that
        of the search, and without a label every class is tried. Raises as `generate`."""
        body = {"image": _base64(image), "seed": seed, "label": label, "fit": fit}
        return Encoding.model_validate_json(self._ask_serving(model, "encode", body))

    def reconstruct(
        self,
        model: str,
        image: bytes,
        *,
        seed: int = 0,
        label: int | str | None = None,
        fit: Fit = "crop",
        format: Literal["png", "webp"] = "png",
    ) -> bytes:
        """The picture that the model draws of what `encode` finds, as a file."""
        body = {"image": _base64(image), "seed": seed, "label": label, "fit": fit, "format": format}
        return self._ask_serving(model, "encode", body)

    def interpolate(
        self,
        model: str,
        a: Point,
        b: Point,
        *,
        num: int = 8,
        seed: int = 0,
        label: int | str | None = None,
        fit: Fit = "crop",
        format: ImageFormat = "grid",
    ) -> bytes:
        """`num` pictures from one point to another, encoded as `format`, of one class: that of
        `label`, else that of `a`. Raises as `generate`."""
        body = {
            "a": _point(a),
            "b": _point(b),
            "num": num,
            "seed": seed,
            "label": label,
            "fit": fit,
            "format": format,
        }
        return self._ask_serving(model, "interpolate", body)

    # How routes are asked

    def _ask_serving(self, model: str, verb: str, body: Mapping[str, Any]) -> bytes:
        if self._serving is None:
            raise NoStack("the address of serving is not known: set ELMYR_SERVE_URL")
        given = {name: value for name, value in body.items() if value is not None}
        return self._serving.send("POST", route("models", model, verb), json=given).content

    def _get(self, kind: type[M], path: str) -> M:
        return kind.model_validate_json(self._api.send("GET", path).content)

    def _verb(self, job_id: str, verb: str) -> Job:
        return Job.model_validate_json(self._api.send("POST", route("jobs", job_id, verb)).content)

    def _pages(self, kind: type[M], path: str, params: Params | None = None) -> Iterator[M]:
        cursor: str | None = None
        while True:
            answer = self._api.send("GET", path, params={**(params or {}), "cursor": cursor}).json()
            for item in answer["items"]:
                yield kind.model_validate(item)
            cursor = answer["next_cursor"]
            if cursor is None:
                return


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()


def _point(point: Point) -> int | list[float] | str:
    if isinstance(point, bytes):
        return _base64(point)
    return point if isinstance(point, int) else list(point)
