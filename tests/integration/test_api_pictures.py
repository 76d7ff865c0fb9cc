"""Files and pictures over HTTP: artifacts, grids, drawn pictures, replays."""

from __future__ import annotations

import io
import json
import zipfile

import httpx2
import pytest

from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobKind, JobSubmission
from shared.schemas.replays import ReplayManifest
from shared.schemas.specs import SAMPLE_CHUNK
from shared.storage import keys
from shared.storage.runs import Head, RunStore
from tests.live import Live
from tests.problems import problem

N = SAMPLE_CHUNK + 10


def submitted(live: Live, kind: JobKind, **spec: object) -> Job:
    submission = JobSubmission(kind=kind, spec=spec)
    return live.queue.submit(f"job-{kind}", submission, owner="tester")[0]


@pytest.fixture
def train(live: Live) -> Job:
    return live.start(submitted(live, JobKind.TRAIN, dataset="garments", model="tailor").id)


@pytest.fixture
def sample(live: Live) -> Job:
    return submitted(live, JobKind.SAMPLE, model="tailor@1", n=N)


def draw(live: Live, job: Job, chunk: int) -> dict[str, bytes]:
    """Put a chunk there as the bulk deployment does; the pictures are no pictures."""
    first = chunk * SAMPLE_CHUNK
    pictures = {
        f"{i:07d}.png": f"picture {i}".encode() for i in range(first, min(first + SAMPLE_CHUNK, N))
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in pictures.items():
            archive.writestr(name, content)
    live.store.put(keys.sampled_chunk(job.id, chunk), buffer.getvalue())
    return pictures


def checkpoint(live: Live, job: Job, kimg: float, replay: ReplayManifest | None) -> str:
    key = keys.checkpoint_prefix(job.id, job.token, kimg) + "manifest.json"
    body = {"kimg": kimg, "replay": replay.model_dump() if replay else None, "parent": None}
    live.store.put(key, json.dumps(body).encode())
    live.report(job, EventType.CHECKPOINT, kimg=kimg, key=key, bytes=1, seconds=0.1)
    runs = RunStore(live.store)
    runs.take_head(job.id, job.token)
    runs.commit_head(job.id, Head(token=job.token, checkpoint_key=key, kimg=kimg))
    return key


def replay_of(job: Job, round_: int) -> ReplayManifest:
    return ReplayManifest(
        round=round_,
        kimg=round_ / 10,
        capacity=200,
        num_images=200,
        ages={0: 100, 1: 100},
        shards=[],
        picture_key=keys.replay_picture(job.id, job.token, round_),
    )


def test_pictures_of_a_sampling_job_are_listed_while_it_draws(
    live: Live, http: httpx2.Client, sample: Job
) -> None:
    url = f"/v1/jobs/{sample.id}/samples"
    assert http.get(url).json() == {"items": [], "next_cursor": None}
    pictures = draw(live, sample, 0) | draw(live, sample, 1)
    first = http.get(url, params={"limit": 50}).json()
    rest = http.get(url, params={"cursor": first["next_cursor"]}).json()
    items = first["items"] + rest["items"]
    assert [item["index"] for item in items] == list(range(N))
    for item in (items[0], items[SAMPLE_CHUNK], items[-1]):
        answer = http.get(item["url"])
        assert answer.content == pictures[item["name"]]
        assert answer.headers["Content-Type"] == "image/png"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert "private" in answer.headers["Cache-Control"]
    problem(http.get(f"{url}/{N}"), 404, "NOT_FOUND")


def test_the_archive_holds_what_is_there(live: Live, http: httpx2.Client, sample: Job) -> None:
    pictures: dict[str, bytes] = {}
    for chunk in (None, 1, 0):
        if chunk is not None:
            pictures |= draw(live, sample, chunk)
        answer = http.get(f"/v1/jobs/{sample.id}/samples/archive")
        assert answer.headers["Content-Type"] == "application/zip"
        assert "attachment" in answer.headers["Content-Disposition"]
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.namelist() == sorted(pictures)
            assert {name: archive.read(name) for name in pictures} == pictures


def test_a_training_has_grids_and_draws_nothing(
    live: Live, http: httpx2.Client, train: Job
) -> None:
    for attempt, kimg in ((9, 1.5), (10, 3.0)):
        key = keys.sample_grid(train.id, attempt, kimg)
        live.store.put(key, f"grid {kimg}".encode())
        live.report(train, EventType.SAMPLE, kimg=kimg, key=key, path="")
    items = http.get(f"/v1/jobs/{train.id}/samples").json()["items"]
    assert [item["kimg"] for item in items] == [1.5, 3.0]
    first = http.get(f"/v1/jobs/{train.id}/samples?limit=1").json()
    rest = http.get(f"/v1/jobs/{train.id}/samples?cursor={first['next_cursor']}").json()
    assert first["items"] + rest["items"] == items
    answer = http.get(items[1]["url"])
    assert (answer.content, answer.headers["Content-Type"]) == (b"grid 3.0", "image/webp")
    problem(http.get(f"/v1/jobs/{train.id}/samples/0"), 404, "NOT_FOUND")
    problem(http.get(f"/v1/jobs/{train.id}/samples/archive"), 404, "NOT_FOUND")


def test_artifacts_are_listed_and_streamed(live: Live, http: httpx2.Client, train: Job) -> None:
    large = bytes(range(256)) * 4096
    for path, content in (("a/1.bin", large), ("a/2.json", b"{}"), ("a/x.html", b"<script>")):
        live.store.put(keys.run_prefix(train.id) + path, content)
    url = f"/v1/jobs/{train.id}/artifacts"
    first = http.get(url, params={"limit": 1}).json()
    rest = http.get(url, params={"cursor": first["next_cursor"]}).json()
    items = first["items"] + rest["items"]
    assert [item["path"] for item in items] == ["a/1.bin", "a/2.json", "a/x.html"]
    assert items[0]["bytes"] == len(large)
    types = []
    for item in items:
        answer = http.get(item["url"])
        types.append(answer.headers["Content-Type"])
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert int(answer.headers["Content-Length"]) == item["bytes"]
    assert types == ["application/octet-stream", "application/json", "application/octet-stream"]
    assert http.get(items[0]["url"]).content == large


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing", 404),
        ("%2e%2e/job-other/job.json", 422),
        ("a/%2e%2e/%2e%2e/x", 422),
        ("..%2fx", 422),
        ("a%2f%2fb", 422),
        ("%00", 422),
        ("a%5cb", 422),
        ("%ff%fe", 404),
    ],
)
def test_no_path_leaves_the_run(
    live: Live, http: httpx2.Client, train: Job, path: str, status: int
) -> None:
    live.store.put("runs/job-other/job.json", b"secret")
    code = "NOT_FOUND" if status == 404 else "INVALID_INPUT"
    problem(http.get(f"/v1/jobs/{train.id}/artifacts/{path}"), status, code)


def test_the_replay_repository_and_its_timeline(
    live: Live, http: httpx2.Client, train: Job
) -> None:
    url = f"/v1/replays/{train.id}"
    problem(http.get(url), 404, "NOT_FOUND")
    for round_ in (10, 20, 30):
        replay = replay_of(train, round_)
        live.store.put(replay.picture_key, f"round {round_}".encode())
        newest = checkpoint(live, train, replay.kimg, replay)
    found = http.get(url).json()
    assert (found["checkpoint_key"], found["manifest"]["round"]) == (newest, 30)
    assert found["manifest"]["ages"] == {"0": 100, "1": 100}
    assert http.get(f"{url}/picture").content == b"round 30"

    first = http.get(f"{url}/timeline", params={"limit": 2}).json()
    rest = http.get(f"{url}/timeline", params={"cursor": first["next_cursor"]}).json()
    entries = first["items"] + rest["items"]
    assert [entry["manifest"]["round"] for entry in entries] == [10, 20, 30]
    assert http.get(entries[0]["picture_url"]).content == b"round 10"

    live.store.delete(entries[0]["checkpoint_key"])  # collected as garbage
    rounds = [e["manifest"]["round"] for e in http.get(f"{url}/timeline").json()["items"]]
    assert rounds == [20, 30]


def test_a_training_without_replay_has_none(live: Live, http: httpx2.Client, train: Job) -> None:
    checkpoint(live, train, 1.0, None)
    problem(http.get(f"/v1/replays/{train.id}"), 404, "NOT_FOUND")
    assert http.get(f"/v1/replays/{train.id}/timeline").json()["items"] == []
