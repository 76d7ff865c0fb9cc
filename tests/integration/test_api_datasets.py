"""Uploads, and what is there of datasets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx2
import pytest

from shared.schemas.jobs import JobKind, JobState
from shared.settings import Settings
from shared.storage import keys
from tests.live import KEY, Live, live_api
from tests.problems import problem

MAX_BYTES = 20 * 2**20


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    with live_api(settings.model_copy(update={"max_upload_bytes": MAX_BYTES})) as live:
        yield live


def left(live: Live) -> list[str]:
    """The keys of what uploads have left, their jobs included."""
    return [info.key for prefix in ("uploads/", "runs/") for info in live.store.list(prefix)]


def in_chunks(num_bytes: int) -> Iterator[bytes]:
    """A body of unknown length, so that the server has to count."""
    for _ in range(num_bytes // 2**20):
        yield b"x" * 2**20


def test_an_upload_is_streamed_and_makes_an_ingest_job(live: Live, http: httpx2.Client) -> None:
    answer = http.put(
        "/v1/datasets/shoes?size=32&channels=3&fit=pad&filename=shoes.zip&source=a%20shop",
        content=in_chunks(MAX_BYTES),
    )
    assert answer.status_code == 202
    job = answer.json()
    assert (job["kind"], job["state"]) == ("ingest", "queued")
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["spec"] == {
        "dataset": "shoes",
        "upload_key": keys.upload(job["id"]),
        "filename": "shoes.zip",
        "size": 32,
        "channels": 3,
        "fit": "pad",
        "source": "a shop",
    }
    assert live.store.stat(keys.upload(job["id"])).bytes == MAX_BYTES
    assert live.store.stat(keys.job(job["id"])).bytes > 0


@pytest.mark.parametrize("body", [b"x" * (MAX_BYTES + 1), in_chunks(MAX_BYTES + 2**20)])
def test_a_larger_one_is_refused_and_leaves_nothing(
    live: Live, http: httpx2.Client, body: bytes | Iterator[bytes]
) -> None:
    problem(http.put("/v1/datasets/shoes", content=body), 413, "TOO_LARGE")
    assert left(live) == []
    assert live.queue.list() == ([], None)


def test_an_empty_one_is_refused_and_leaves_nothing(live: Live, http: httpx2.Client) -> None:
    problem(http.put("/v1/datasets/shoes"), 422, "INVALID_INPUT")
    assert left(live) == []


def test_one_that_breaks_off_leaves_nothing(live: Live, http: httpx2.Client) -> None:
    host, port = live.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"PUT /v1/datasets/shoes HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Authorization: Bearer " + KEY.encode() + b"\r\n\r\n" + b"x" * 500
        )
    while 'route="/v1/datasets/{name}",status="422"' not in http.get("/metrics").text:
        pass  # until the server has noticed
    assert left(live) == []
    assert live.queue.list() == ([], None)


@pytest.mark.parametrize(
    "url", ["/v1/datasets/Shoes", "/v1/datasets/shoes?size=7", "/v1/datasets/shoes?channels=2"]
)
def test_what_is_wrong_with_an_upload(http: httpx2.Client, url: str) -> None:
    problem(http.put(url, content=b"x"), 422, "INVALID_INPUT")


def test_datasets_are_listed_by_name_shown_and_deleted(live: Live, http: httpx2.Client) -> None:
    for name in ("garments", "emoji", "digits"):
        live.add_dataset(name, num_classes=3)
    first = http.get("/v1/datasets?limit=2").json()
    rest = http.get("/v1/datasets", params={"cursor": first["next_cursor"]}).json()
    names = [dataset["name"] for dataset in first["items"] + rest["items"]]
    assert names == ["digits", "emoji", "garments"]
    assert http.get("/v1/datasets/emoji").json()["num_classes"] == 3
    assert http.get("/v1/datasets/emoji?version=d1").json()["version"] == "d1"
    problem(http.get("/v1/datasets/emoji?version=d2"), 404, "NOT_FOUND")
    assert http.delete("/v1/datasets/emoji").status_code == 204
    problem(http.get("/v1/datasets/emoji"), 404, "NOT_FOUND")
    problem(http.delete("/v1/datasets/emoji"), 404, "NOT_FOUND")


def test_a_dataset_that_a_job_trains_on_stays(live: Live, http: httpx2.Client) -> None:
    live.add_dataset("garments")
    spec = {"dataset": "garments", "model": "tailor", "preset": "lecture"}
    url = http.post("/v1/jobs", json={"kind": "train", "spec": spec}).headers["Location"]
    problem(http.delete("/v1/datasets/garments"), 409, "CONFLICT")
    assert live.queue.list(kind=JobKind.TRAIN)[0][0].state is JobState.QUEUED
    http.post(f"{url}/cancel")
    assert http.delete("/v1/datasets/garments").status_code == 204
