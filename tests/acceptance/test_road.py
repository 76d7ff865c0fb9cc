"""The road over HTTP: from an upload to pixels, with two ranks."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from services.client import Client
from services.local.state import StackState
from shared.errors import InvalidInput
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobState
from tests.roads import CLASSES, DATASET, push_squares, spec, until_checkpoint, wait_for


@pytest.fixture(scope="module")
def client(stack: StackState) -> Iterator[Client]:
    with Client(data_dir=stack.data_dir) as client:
        yield client


@pytest.fixture(scope="module")
def trained(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that trained on two ranks and published shapes@1."""
    ingested = push_squares(client, tmp_path_factory.mktemp("upload"))
    assert ingested.result is not None
    assert ingested.result["num_images"] == 512 - ingested.result["num_duplicates"]
    job = client.submit("train", spec())
    return client.wait(job.id, timeout_s=240)


def test_it_trains_on_two_ranks_and_tells_of_it(client: Client, trained: Job) -> None:
    assert trained.state is JobState.SUCCEEDED
    assert trained.result == {"model": "shapes", "version": 1}
    assert [attempt.number for attempt in trained.attempts] == [1]
    events = list(client.events(trained.id))
    types = [event.type for event in events]
    assert types[0] is EventType.STATE
    assert types[-1] is EventType.DONE
    assert {EventType.METRIC, EventType.SAMPLE, EventType.CHECKPOINT} <= set(types)
    metrics = [event.data["kimg"] for event in events if event.type is EventType.METRIC]
    assert metrics == sorted(metrics)
    assert metrics[-1] == pytest.approx(10, abs=0.1)
    middle = len(events) // 2
    again = list(client.events(trained.id, after=events[middle].id))
    assert [event.id for event in again] == [event.id for event in events[middle + 1 :]]


def test_its_grids_and_its_repository_can_be_looked_at(
    client: Client, trained: Job, tmp_path: Path
) -> None:
    grids = list(client.samples(trained.id))
    assert [round(grid.kimg or 0) for grid in grids] == [0, 5, 10]
    client.download(grids[-1].url, tmp_path / "grid.webp")
    assert Image.open(tmp_path / "grid.webp").size == (10 * 18 + 2, 8 * 18 + 2)
    replay = client.replays(trained.id)
    assert replay.manifest.capacity == replay.manifest.num_images == 64
    assert sum(replay.manifest.ages.values()) == 64
    client.download(replay.picture_url, tmp_path / "replay.webp")
    assert Image.open(tmp_path / "replay.webp").format == "WEBP"


def test_what_it_published_is_served(client: Client, stack: StackState, trained: Job) -> None:
    url = f"{stack.serve_url}/v1/models/shapes/image"
    answer = httpx2.get(url, params={"seed": 7, "label": CLASSES[2]}, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (16, 16)
    assert answer.headers["x-elmyr-model"] == "shapes"
    assert answer.headers["x-elmyr-version"] == "1"
    assert answer.headers["x-elmyr-seed"] == "7"
    assert answer.headers["x-elmyr-job"] == trained.id
    again = httpx2.get(url, params={"seed": 7, "label": 2}, timeout=30)
    assert again.content == answer.content
    missing = httpx2.get(f"{stack.serve_url}/v1/models/nobody/image", timeout=30)
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_a_sampling_job_draws_what_serving_would(
    client: Client, trained: Job, tmp_path: Path
) -> None:
    del trained
    job = client.submit("sample", {"model": "shapes", "n": 130, "seed": 7})
    assert client.wait(job.id, timeout_s=120).state is JobState.SUCCEEDED
    assert len(list(client.samples(job.id))) == 130
    client.archive(job.id, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        names = sorted(archive.namelist())
        assert len(names) == 130
        drawn = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names[:100]]
    served = np.load(io.BytesIO(client.generate("shapes", n=100, seed=7, format="npy")))
    assert np.array_equal(np.stack(drawn), served[..., 0])


def test_an_alias_moves_without_a_dropped_request(
    client: Client, stack: StackState, trained: Job
) -> None:
    del trained
    second = client.submit("train", spec("lecture", workers=1, kimg=4.0))
    assert client.wait(second.id, timeout_s=240).result == {"model": "shapes", "version": 2}
    client.promote("shapes", "production", 1)
    url = f"{stack.serve_url}/v1/models/shapes@production/image"
    statuses: list[int] = []
    versions: list[str] = []
    done = threading.Event()

    def ask() -> None:
        with httpx2.Client(timeout=30) as http:
            while not done.is_set():
                answer = http.get(url)
                statuses.append(answer.status_code)
                versions.append(answer.headers.get("x-elmyr-version", ""))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_for(lambda: "1" in versions, within_s=30, what="version 1 is served")
        client.promote("shapes", "production", 2)
        wait_for(lambda: versions[-1] == "2", within_s=2.5, what="version 2 is served")
        client.promote("shapes", "production", 1)
        wait_for(lambda: versions[-1] == "1", within_s=2.5, what="version 1 is served again")
    finally:
        done.set()
        asking.join()
    assert set(statuses) == {200}


def test_pause_and_resume_go_on_where_it_was(client: Client, trained: Job) -> None:
    del trained
    job = client.submit("train", spec(workers=1, kimg=400.0, model="paused"))
    saved_at = until_checkpoint(client, job.id).data["kimg"]
    client.pause(job.id)
    wait_for(lambda: client.job(job.id).state is JobState.PAUSED, within_s=30, what="it is paused")
    paused_at = client.job(job.id).progress.kimg or 0
    assert paused_at >= saved_at
    client.resume(job.id)
    resumed = [
        event.data["kimg"]
        for event in _until_two_attempts_report(client, job.id)
        if event.type is EventType.METRIC
    ]
    assert resumed == sorted(resumed)
    client.cancel(job.id)
    wait_for(
        lambda: client.job(job.id).state is JobState.CANCELED, within_s=30, what="it is canceled"
    )


def _until_two_attempts_report(client: Client, job_id: str) -> Iterator:
    second = False
    for event in client.events(job_id):
        yield event
        second = second or event.data.get("attempt") == 2
        if second and event.type is EventType.METRIC:
            return


def test_a_double_submit_makes_one_job(stack: StackState, client: Client, trained: Job) -> None:
    del trained
    headers = {"Authorization": f"Bearer {stack.api_key}", "Idempotency-Key": "twice"}
    body = {"kind": "train", "spec": spec(kimg=1.0, model="twice"), "priority": -100}
    url = f"{stack.api_url}/v1/jobs"
    answers = [httpx2.post(url, json=body, headers=headers, timeout=30) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    client.cancel(answers[0].json()["id"])


def test_a_wrong_spec_is_explained(client: Client, trained: Job) -> None:
    del trained
    wrong = spec() | {"config": {"generator": {"widht": 8}}}
    with pytest.raises(InvalidInput) as caught:
        client.validate("train", wrong)
    assert caught.value.errors[0].pointer == "/spec/config/generator/widht"
    assert client.validate("train", spec()).config["generator"]["width"] == 8
    assert client.dataset(DATASET).class_names == list(CLASSES)
