"""The client against the real API, over real Redis and S3."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.client import Client, JobCanceled, JobFailed, WaitTimedOut
from shared.errors import Conflict, InvalidInput, NotFound, TooLarge, Unauthorized
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import JobState, Outcome, StopRequest
from shared.settings import Settings
from shared.storage import keys
from tests.live import KEY, Live, live_api

SPEC = {"dataset": "garments", "model": "tailor", "preset": "lecture"}


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    with live_api(settings.model_copy(update={"max_upload_bytes": 100_000})) as live:
        live.add_dataset("garments")
        yield live


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with Client(live.url, api_key=KEY) as client:
        yield client


def test_a_job_from_submit_to_success(live: Live, client: Client) -> None:
    job = client.submit(
        "train", SPEC, name="first", priority=5, labels={"who": "me"}, max_attempts=2
    )
    assert (job.state, job.name, job.priority) == (JobState.QUEUED, "first", 5)
    with pytest.raises(WaitTimedOut, match="still queued"):
        client.wait(job.id, timeout_s=0)
    started = live.start(job.id)
    live.report(started, EventType.METRIC, kimg=1.5, loss_d=0.5, loss_g=1.0)
    live.report(started, EventType.LOG, line="hello", stream="stdout")
    live.end(started, Outcome.SUCCEEDED, model="tailor", version=1)
    assert client.wait(job.id, timeout_s=60).result == {"model": "tailor", "version": 1}
    assert [event.data["kimg"] for event in client.metrics(job.id)] == [1.5]
    assert [event.data["line"] for event in client.logs(job.id)] == ["hello"]


def test_validate_makes_nothing(client: Client) -> None:
    validated = client.validate("train", SPEC | {"config": {"label_flip": 0.1}})
    assert validated.config is not None
    assert (validated.config["preset"], validated.config["label_flip"]) == ("lecture", 0.1)
    assert list(client.jobs()) == []


def test_lists_are_fetched_page_by_page(client: Client) -> None:
    made = [client.submit("train", SPEC, labels={"n": str(n)}).id for n in range(120)]
    assert [job.id for job in client.jobs()] == made[::-1]
    assert [job.id for job in client.jobs(label="n=7", state=JobState.QUEUED)] == [made[7]]


def test_a_failed_job_brings_its_error_and_the_end_of_its_log(live: Live, client: Client) -> None:
    job = live.start(client.submit("train", SPEC).id)
    for n in range(30):
        live.report(job, EventType.LOG, line=f"line {n}", stream="stdout")
    live.end(job, Outcome.FAILED, error="the loss is not finite")
    with pytest.raises(JobFailed, match="the loss is not finite") as caught:
        client.wait(job.id)
    assert caught.value.log_tail == [f"line {n}" for n in range(10, 30)]


def test_the_verbs(live: Live, client: Client) -> None:
    job = client.submit("train", SPEC)
    assert client.pause(job.id).state is JobState.PAUSED
    assert client.resume(job.id).state is JobState.QUEUED
    live.start(job.id)
    assert client.cancel(job.id).stop_requested is StopRequest.CANCEL
    live.end(client.job(job.id), Outcome.CANCELED)
    with pytest.raises(JobCanceled):
        client.wait(job.id)
    with pytest.raises(Conflict) as caught:
        client.pause(job.id)
    assert caught.value.request_id
    assert client.retry(job.id).state is JobState.QUEUED


def test_errors_are_typed_and_say_where(live: Live, client: Client) -> None:
    with pytest.raises(NotFound, match="job-of-nobody"):
        client.job("job-of-nobody")
    with pytest.raises(InvalidInput) as caught:
        client.submit("train", SPEC | {"kimgs": 3})
    assert [error.pointer for error in caught.value.errors] == ["/spec/kimgs"]
    with pytest.raises(NotFound, match="garments"):
        client.submit("train", SPEC | {"dataset": "garment"})
    with Client(live.url, api_key="elm_wrong") as stranger, pytest.raises(Unauthorized):
        stranger.job("job-1")


def test_events_are_followed_through_a_restart_of_the_api(settings: Settings) -> None:
    with live_api(settings) as live:
        live.add_dataset("garments")
        port = int(live.url.rpartition(":")[2])
        client = Client(live.url, api_key=KEY)
        job = live.start(client.submit("train", SPEC).id)
        events = client.events(job.id)
        seen: list[Event] = []
        while not seen or seen[-1].type is not EventType.METRIC:
            if seen and seen[-1].data.get("state") == "running":
                live.report(job, EventType.METRIC, kimg=1.0)
            seen.append(next(events))
    reader = threading.Thread(target=lambda: seen.extend(events))
    reader.start()  # the API is away
    with live_api(settings, port=port) as live:
        live.report(job, EventType.METRIC, kimg=2.0)
        live.end(job, Outcome.SUCCEEDED, model="tailor", version=1)
        reader.join()
        with client:
            whole = list(client.events(job.id))
            behind = list(client.events(job.id, after=seen[-2].id))
            nothing = list(client.events(job.id, after=seen[-1].id))
    assert seen == whole
    assert [event.data["kimg"] for event in seen if event.type is EventType.METRIC] == [1.0, 2.0]
    assert (behind, nothing) == ([seen[-1]], [])


def test_a_retried_job_is_followed_past_its_first_end(live: Live, client: Client) -> None:
    job = live.start(client.submit("train", SPEC).id)
    live.end(job, Outcome.FAILED, error="first")
    client.retry(job.id)
    live.end(live.start(job.id), Outcome.SUCCEEDED, model="tailor", version=1)
    done = [event for event in client.events(job.id) if event.type is EventType.DONE]
    assert [event.data["state"] for event in done] == ["failed", "succeeded"]


def test_a_folder_is_pushed_as_a_tar(live: Live, client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "garments"
    (folder / "coat").mkdir(parents=True)
    (folder / "coat" / "1.png").write_bytes(b"picture")
    told: list[int] = []
    job = client.push_dataset(
        "coats",
        folder,
        size=32,
        channels=3,
        fit="pad",
        source="my wardrobe",
        on_progress=told.append,
    )
    spec = job.spec
    assert [
        spec[name] for name in ("dataset", "filename", "size", "channels", "fit", "source")
    ] == [
        "coats",
        "garments.tar",
        32,
        3,
        "pad",
        "my wardrobe",
    ]
    content = live.store.get(spec["upload_key"])
    assert told[-1] == len(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["coat/1.png"]


def test_an_upload_that_is_too_large_is_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(bytes(2_000_000))
    with pytest.raises(TooLarge, match="at most 100000 bytes"):
        client.push_dataset("coats", tmp_path / "images.zip")


def test_datasets_are_listed_shown_and_deleted(client: Client) -> None:
    assert [dataset.name for dataset in client.datasets()] == ["garments"]
    assert client.dataset("garments").num_images == 100
    client.delete_dataset("garments")
    with pytest.raises(NotFound):
        client.dataset("garments")


def test_grids_and_artifacts_are_downloaded(live: Live, client: Client, tmp_path: Path) -> None:
    job = live.start(client.submit("train", SPEC).id)
    key = keys.sample_grid(job.id, job.token, 10.0)
    live.store.put(key, b"a grid")
    live.report(job, EventType.SAMPLE, kimg=10.0, key=key, path="")
    (sample,) = client.samples(job.id)
    assert (sample.kimg, client.download(sample.url, tmp_path / "grid.webp")) == (10.0, 6)
    assert (tmp_path / "grid.webp").read_bytes() == b"a grid"
    accepted = next(file for file in client.artifacts(job.id) if file.path == "job.json")
    client.download(accepted.url, tmp_path / "job.json")
    assert json.loads((tmp_path / "job.json").read_bytes())["id"] == job.id
    with pytest.raises(NotFound):
        client.download(sample.url + "x", tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
