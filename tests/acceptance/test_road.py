"""The road over HTTP: from an upload to pixels, with two ranks."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx2
import numpy as np
import pytest
from PIL import Image

from services.client import Client
from services.local.state import StackState
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobState
from tests.problems import problem
from tests.roads import CLASSES, DATASET, NUM_IMAGES, kimg_of, spec, wait_for

SAMPLED = 130
"""Two whole chunks and a rest."""
ORIGIN = ("model", "version", "seed", "job")
ALIAS_S = 2.0
"""Promised: how long after its move an alias is served."""


def test_an_upload_becomes_a_dataset(client: Client, ingested: Job) -> None:
    assert ingested.result is not None
    assert ingested.result["num_images"] == ingested.result["num_duplicates"] == NUM_IMAGES
    dataset = client.dataset(DATASET)
    assert (dataset.size, dataset.channels, dataset.num_images) == (16, 1, NUM_IMAGES)
    assert dataset.class_names == list(CLASSES)
    assert dataset.version == ingested.result["version"]


def test_it_trains_on_two_ranks_and_publishes(client: Client, trained: Job) -> None:
    assert trained.state is JobState.SUCCEEDED
    assert trained.result == {"model": "shapes", "version": 1}
    assert [attempt.outcome for attempt in trained.attempts] == ["succeeded"]
    assert trained.progress.kimg == pytest.approx(10, abs=0.1)
    card = client.card("shapes", 1)
    assert (card.job_id, card.attempt, card.dataset) == (trained.id, 1, DATASET)


def test_its_events_tell_the_run_in_order(client: Client, trained: Job) -> None:
    events = list(client.events(trained.id))
    states = [event.data["state"] for event in events if event.type is EventType.STATE]
    assert list(dict.fromkeys(states)) == ["queued", "starting", "running", "succeeded"]
    assert events[0].type is EventType.STATE
    assert events[-1].type is EventType.DONE
    assert events[-1].data["state"] == JobState.SUCCEEDED
    metrics = kimg_of(events, EventType.METRIC)
    assert metrics == sorted(metrics)
    assert 0 < metrics[0] < metrics[-1] == pytest.approx(10, abs=0.1)
    assert [round(kimg) for kimg in kimg_of(events, EventType.SAMPLE)] == [0, 5, 10]
    # One that comes due while another is being written is left out, unless it is the last.
    checkpoints = [round(kimg) for kimg in kimg_of(events, EventType.CHECKPOINT)]
    assert checkpoints == sorted(set(checkpoints) & {2, 4, 6, 8, 10})
    assert checkpoints[-1] == 10


def test_its_events_go_on_behind_any_one(client: Client, trained: Job) -> None:
    ids = [event.id for event in client.events(trained.id)]
    assert len(set(ids)) == len(ids)
    for seen in (1, len(ids) // 2, len(ids)):
        behind = client.events(trained.id, after=ids[seen - 1])
        assert [event.id for event in behind] == ids[seen:]


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
    assert replay.manifest.ages[0] == 48  # the new ones of the last round
    assert len(replay.manifest.ages) > 2
    client.download(replay.picture_url, tmp_path / "replay.webp")
    assert Image.open(tmp_path / "replay.webp").format == "WEBP"


def test_what_it_published_is_served(client: Client, stack: StackState, trained: Job) -> None:
    url = f"{stack.serve_url}/v1/models/shapes@1/image"
    answer = httpx2.get(url, params={"seed": 7, "label": CLASSES[2]}, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (16, 16)
    origin = {name: answer.headers[f"x-elmyr-{name}"] for name in ORIGIN}
    assert origin == {"model": "shapes", "version": "1", "seed": "7", "job": trained.id}
    again = httpx2.get(url, params={"seed": 7, "label": 2}, timeout=30)
    assert again.content == answer.content
    other = httpx2.get(url, params={"seed": 8, "label": 2}, timeout=30)
    assert other.content != answer.content
    assert client.generate("shapes@1", seed=7, label=2) == answer.content


@pytest.mark.parametrize(
    ("model", "params", "status"),
    [("nobody", {}, 404), ("shapes@9", {}, 404), ("shapes@1", {"label": "north"}, 422)],
)
def test_what_is_not_there_is_not_served(
    stack: StackState, trained: Job, model: str, params: dict[str, str], status: int
) -> None:
    del trained
    url = f"{stack.serve_url}/v1/models/{model}/image"
    answer = httpx2.get(url, params=params, timeout=30)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_sampling_job_draws_what_serving_would(
    client: Client, trained: Job, tmp_path: Path
) -> None:
    del trained
    job = client.submit("sample", {"model": "shapes@1", "n": SAMPLED, "seed": 7})
    ended = client.wait(job.id, timeout_s=120)
    assert ended.result == {"model": "shapes", "version": 1, "n": SAMPLED, "num_chunks": 3}
    assert (ended.progress.done, ended.progress.of) == (SAMPLED, SAMPLED)
    samples = list(client.samples(job.id))
    assert [sample.index for sample in samples] == list(range(SAMPLED))

    # The archive holds what is listed, and each is what serving draws of this seed and index.
    client.archive(job.id, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == [sample.name for sample in samples]
        pictures = [archive.read(sample.name) for sample in samples]
    served = np.load(io.BytesIO(client.generate("shapes@1", n=SAMPLED, seed=7, format="npy")))
    drawn = [np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures]
    assert np.array_equal(np.stack(drawn), served[..., 0])

    # One by one they are the same bytes.
    for index in (0, 64, SAMPLED - 1):
        client.download(samples[index].url, tmp_path / "one.png")
        assert (tmp_path / "one.png").read_bytes() == pictures[index]
    assert client.generate("shapes@1", seed=7) == pictures[0]


class Answer(NamedTuple):
    asked_at: float
    status: int
    version: str


def test_what_it_published_is_scored(client: Client, trained: Job) -> None:
    assert trained.result is not None
    spec = {"model": "shapes", "dataset": DATASET, "n": 200}
    job = client.wait(client.submit("evaluate", spec).id, timeout_s=240)
    assert job.result is not None
    (evaluation,) = client.scores("shapes", trained.result["version"])
    assert evaluation.job_id == job.id
    assert not evaluation.held_out
    distance = evaluation.scores["frechet_distance"]
    assert job.result["scores"]["frechet_distance"] == distance.model_dump()
    assert distance.floor < distance.value


def test_an_alias_moves_without_a_dropped_request(
    client: Client, stack: StackState, trained: Job
) -> None:
    del trained
    second = client.submit("train", spec("lecture", workers=1, kimg=4.0))
    assert client.wait(second.id, timeout_s=240).result == {"model": "shapes", "version": 2}
    client.promote("shapes", "production", 1)
    url = f"{stack.serve_url}/v1/models/shapes@production/image"
    answers: list[Answer] = []
    done = threading.Event()

    def ask() -> None:
        with httpx2.Client(timeout=30) as http:
            while not done.is_set():
                asked_at = time.monotonic()
                got = http.get(url)
                version = got.headers.get("x-elmyr-version", "none")
                answers.append(Answer(asked_at, got.status_code, version))

    def promoted(version: int) -> None:
        client.promote("shapes", "production", version)
        due = time.monotonic() + ALIAS_S
        wait_for(lambda: answers[-1].asked_at > due, within_s=30, what="answers go on")
        assert {a.version for a in answers if a.asked_at > due} == {str(version)}

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_for(lambda: len(answers) > 10, within_s=60, what="version 1 is served")
        promoted(2)
        promoted(1)
    finally:
        done.set()
        asking.join()
    assert {(answer.status, answer.version) for answer in answers} == {(200, "1"), (200, "2")}
    assert client.model("shapes").aliases == {"latest": 2, "production": 1}


def test_a_double_submit_makes_one_job(stack: StackState, client: Client, trained: Job) -> None:
    del trained
    headers = {"Authorization": f"Bearer {stack.api_key}", "Idempotency-Key": "twice"}
    spec_ = {"model": "shapes", "n": 1}
    body = {"kind": "sample", "spec": spec_, "labels": {"of": "twice"}}
    url = f"{stack.api_url}/v1/jobs"
    with ThreadPoolExecutor(4) as pool:
        posts = [
            pool.submit(httpx2.post, url, json=body, headers=headers, timeout=30) for _ in range(4)
        ]
        answers = [post.result() for post in posts]
    assert {answer.status_code for answer in answers} == {202}
    (job,) = client.jobs(label="of=twice")
    assert {answer.json()["id"] for answer in answers} == {job.id}
    other = httpx2.post(url, json=body | {"spec": spec_ | {"n": 2}}, headers=headers, timeout=30)
    problem(other, 422, "IDEMPOTENCY_CLASH")
    assert client.wait(job.id, timeout_s=60).state is JobState.SUCCEEDED


WRONG = {
    "/spec/config/generator/widht": spec(generator={"widht": 8}),
    "/spec/preset": spec("renaissance"),
    "/spec/kimg": spec(kimg=-1),
    "/spec/workers": spec(workers=3),
    "/spec/colour": spec() | {"colour": "red"},
}


@pytest.mark.parametrize("pointer", WRONG)
def test_a_wrong_spec_is_explained(
    stack: StackState, client: Client, ingested: Job, pointer: str
) -> None:
    del ingested
    before = [job.id for job in client.jobs()]
    answer = httpx2.post(
        f"{stack.api_url}/v1/jobs",
        json={"kind": "train", "spec": WRONG[pointer]},
        headers={"Authorization": f"Bearer {stack.api_key}"},
        timeout=30,
    )
    errors = problem(answer, 422, "INVALID_INPUT")["errors"]
    assert [error["pointer"] for error in errors] == [pointer]
    assert [job.id for job in client.jobs()] == before


def test_a_spec_can_be_tried_without_making_a_job(client: Client, ingested: Job) -> None:
    assert ingested.result is not None
    before = [job.id for job in client.jobs()]
    tried = client.validate("train", spec())
    assert tried.job.spec["dataset_version"] == ingested.result["version"]
    assert tried.config is not None
    assert tried.config["generator"]["width"] == 8
    assert tried.config["generator"]["num_classes"] == len(CLASSES)
    assert [job.id for job in client.jobs()] == before
