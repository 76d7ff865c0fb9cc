"""A job's history over HTTP: archived parts first, then Redis, then what is still to come."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import httpx2
import pytest

from shared.schemas.events import Event, EventType
from shared.schemas.jobs import Job, JobKind, JobSubmission, Outcome
from shared.storage import keys
from tests.live import Live
from tests.problems import problem

SPEC = {"dataset": "garments", "model": "tailor"}


@pytest.fixture
def job(live: Live) -> Job:
    """A running job, whose first events are its two states."""
    submission = JobSubmission(kind=JobKind.TRAIN, spec=SPEC)
    job, _ = live.queue.submit("job-1", submission, owner="tester")
    return live.start(job.id)


def stream(
    http: httpx2.Client, job: Job, *, after: str | None = None
) -> Iterator[tuple[str, str, dict[str, object]]]:
    """(id, type, data) of each event until the server ends the stream."""
    headers = {"Last-Event-ID": after} if after else {}
    with http.stream("GET", f"/v1/jobs/{job.id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = value
            elif event:
                yield event["id"], event["event"], json.loads(event["data"])
                event = {}


def archive(live: Live, job: Job, index: int, events: list[Event], *, trim: bool) -> None:
    """What the dispatcher does: write a part, then trim Redis up to it."""
    body = "".join(event.model_dump_json() + "\n" for event in events).encode()
    live.store.put(keys.events_part(job.id, index), body)
    if trim:
        milliseconds, number = events[-1].id.split("-")
        live.events.trim(job.id, f"{milliseconds}-{int(number) + 1}")


def metrics(live: Live, job: Job, first: int, n: int) -> None:
    events = [(EventType.METRIC, {"kimg": first + i}) for i in range(n)]
    live.events.append_many(job.id, events, token=job.token)


def kimgs(found: list[tuple[str, str, dict[str, object]]]) -> list[object]:
    return [data["kimg"] for _, type_, data in found if type_ == "metric"]


def test_a_stream_brings_what_was_and_what_comes_and_ends(
    live: Live, http: httpx2.Client, job: Job
) -> None:
    metrics(live, job, 0, 3)
    found = []
    for event in stream(http, job):
        found.append(event)
        if event[2] == {"kimg": 2}:  # all that was has come: now the rest happens
            metrics(live, job, 3, 2)
            live.end(job, Outcome.SUCCEEDED, model="tailor", version=1)
    assert kimgs(found) == [0, 1, 2, 3, 4]
    assert (found[0][1], found[0][2]["state"]) == ("state", "queued")
    assert found[-1][1:] == (
        "done",
        {"state": "succeeded", "result": {"model": "tailor", "version": 1}},
    )


def test_it_resumes_in_the_middle_and_after_the_end(
    live: Live, http: httpx2.Client, job: Job
) -> None:
    metrics(live, job, 0, 6)
    live.end(job, Outcome.SUCCEEDED)
    whole = list(stream(http, job))
    for start in range(len(whole)):
        assert list(stream(http, job, after=whole[start][0])) == whole[start + 1 :]


def test_parts_in_the_store_come_first(live: Live, http: httpx2.Client, job: Job) -> None:
    metrics(live, job, 0, 10)
    events = live.events.read(job.id)
    archive(live, job, 0, events[:4], trim=True)
    archive(live, job, 1, events[4:7], trim=True)
    archive(live, job, 2, events[7:9], trim=False)  # written, not trimmed yet: told once only
    live.end(job, Outcome.SUCCEEDED)
    whole = list(stream(http, job))
    assert kimgs(whole) == list(range(10))
    for start in range(len(whole)):
        assert list(stream(http, job, after=whole[start][0])) == whole[start + 1 :]


def test_when_redis_has_forgotten_the_store_has_all(
    live: Live, http: httpx2.Client, job: Job
) -> None:
    metrics(live, job, 0, 5)
    live.end(job, Outcome.SUCCEEDED)
    archive(live, job, 0, live.events.read(job.id), trim=True)
    assert live.events.read(job.id) == []
    whole = list(stream(http, job))
    assert (kimgs(whole), whole[-1][1]) == (list(range(5)), "done")
    assert list(stream(http, job, after=whole[-1][0])) == []


def test_last_words_behind_the_end_are_no_part_of_a_stream(
    live: Live, http: httpx2.Client, job: Job
) -> None:
    """The dispatcher relays what an attempt said until it left, when the job has ended long ago."""
    live.end(job, Outcome.SUCCEEDED)
    last_words = live.events.append(job.id, EventType.LOG, {"line": "bye", "stream": "driver"})
    for trim in (False, True):
        archive(live, job, 0, live.events.read(job.id), trim=trim)
        whole = list(stream(http, job))
        assert whole[-1][1] == "done"
        for after in (whole[-1][0], last_words):
            assert list(stream(http, job, after=after)) == []
        logs = http.get(f"/v1/jobs/{job.id}/logs").json()["items"]
        assert [event["data"]["line"] for event in logs] == ["bye"]


def test_what_is_archived_while_a_slow_reader_reads_is_not_missed(
    live: Live, http: httpx2.Client, job: Job
) -> None:
    """The dispatcher archives and trims all the time; the reader comes to each state of it."""
    part = 1500
    told = threading.Event()

    def work() -> None:
        for index in range(4):
            metrics(live, job, index * part, part)
            archive(live, job, index, live.events.read(job.id, limit=10**6), trim=True)
            told.set()
        live.end(job, Outcome.SUCCEEDED)

    worker = threading.Thread(target=work)
    worker.start()
    told.wait()
    found = kimgs(list(stream(http, job)))
    worker.join()
    assert found == list(range(4 * part))


def test_a_job_tried_again_goes_on_behind_its_done(
    live: Live, http: httpx2.Client, job: Job
) -> None:
    live.end(job, Outcome.FAILED, error="no luck")
    live.queue.retry(job.id)
    again = live.start(job.id)
    found = []
    for event in stream(http, job):
        found.append(event[1])
        if event[1] == "state" and event[2]["state"] == "running" and "done" in found:
            live.end(again, Outcome.SUCCEEDED)
    assert found.count("done") == 2
    assert found[-1] == "done"


def test_metrics_and_logs_are_paged(live: Live, http: httpx2.Client, job: Job) -> None:
    metrics(live, job, 0, 5)
    live.report(job, EventType.LOG, line="hello", stream="stdout")
    archive(live, job, 0, live.events.read(job.id, limit=4), trim=True)
    first = http.get(f"/v1/jobs/{job.id}/metrics?limit=3").json()
    rest = http.get(f"/v1/jobs/{job.id}/metrics", params={"cursor": first["next_cursor"]}).json()
    assert [item["data"]["kimg"] for item in first["items"] + rest["items"]] == list(range(5))
    assert (len(first["items"]), rest["next_cursor"]) == (3, None)
    (log,) = http.get(f"/v1/jobs/{job.id}/logs").json()["items"]
    assert log["data"] == {"line": "hello", "stream": "stdout"}


def test_refusals(http: httpx2.Client, job: Job) -> None:
    problem(http.get("/v1/jobs/job-none/events"), 404, "NOT_FOUND")
    url = f"/v1/jobs/{job.id}/events"
    problem(http.get(url, headers={"Last-Event-ID": "x"}), 422, "INVALID_INPUT")
    problem(http.get(f"/v1/jobs/{job.id}/metrics?limit=0"), 422, "INVALID_INPUT")
