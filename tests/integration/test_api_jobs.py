"""Jobs over HTTP: submit, idempotency, lists, verbs, and every way to be refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shared.schemas.jobs import Job, JobKind, JobState, JobSubmission, Outcome
from shared.settings import Settings
from shared.storage import keys
from shared.storage.registry import Registry
from tests.forgers import publish_forger
from tests.live import KEY, Live, live_api
from tests.problems import problem

SPEC = {"dataset": "garments", "model": "tailor", "preset": "lecture"}
BODY = {"kind": "train", "spec": SPEC}


@pytest.fixture(autouse=True)
def garments(live: Live) -> None:
    live.add_dataset("garments")


def pointers(answer: httpx2.Response) -> list[str]:
    return [error["pointer"] for error in problem(answer, 422, "INVALID_INPUT")["errors"]]


def test_a_submit_is_recorded_then_queued(live: Live, http: httpx2.Client) -> None:
    answer = http.post("/v1/jobs", json=BODY | {"name": "first", "labels": {"who": "me"}})
    assert answer.status_code == 202
    job = Job.model_validate_json(answer.content)
    assert answer.headers["Location"] == job.urls["self"] == f"/v1/jobs/{job.id}"
    assert (job.state, job.owner, job.labels) == (JobState.QUEUED, "tester", {"who": "me"})
    assert job.spec["dataset_version"] == "d1"
    recorded = json.loads(live.store.get(keys.job(job.id)))
    assert recorded["submission"]["spec"] == job.spec
    for url in {job.urls[view] for view in ("self", "metrics", "logs", "samples", "artifacts")}:
        assert http.get(url).status_code == 200
    assert http.get(job.urls["self"]).json()["jobs_ahead"] == 0


def test_validate_only_makes_nothing(live: Live, http: httpx2.Client) -> None:
    body = BODY | {"spec": SPEC | {"kimg": 5, "config": {"replay": {"capacity": 150}}}}
    answer = http.post("/v1/jobs?validate_only=true", json=body)
    assert answer.status_code == 200
    validated = answer.json()
    assert validated["job"]["spec"]["dataset_version"] == "d1"
    assert validated["config"]["replay"]["capacity"] == 150
    assert (validated["config"]["kimg"], validated["config"]["generator"]["size"]) == (5, 32)
    assert live.queue.list() == ([], None)


def test_fifty_posts_with_one_key_make_one_job(live: Live, http: httpx2.Client) -> None:
    def post(_: int) -> str:
        answer = http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "once"})
        assert answer.status_code == 202
        return str(answer.json()["id"])

    with ThreadPoolExecutor(50) as threads:
        ids = set(threads.map(post, range(50)))
    assert [job.id for job in live.queue.list()[0]] == list(ids)
    other = http.post("/v1/jobs", json=BODY | {"priority": 1}, headers={"Idempotency-Key": "once"})
    problem(other, 422, "IDEMPOTENCY_CLASH")


def test_a_repeat_gets_its_job_although_the_dataset_has_gone(
    live: Live, http: httpx2.Client
) -> None:
    headers = {"Idempotency-Key": "k"}
    first = http.post("/v1/jobs", json=BODY, headers=headers).json()
    live.queue.cancel(first["id"])
    assert http.delete("/v1/datasets/garments").status_code == 204
    assert http.post("/v1/jobs", json=BODY, headers=headers).json()["id"] == first["id"]
    problem(http.post("/v1/jobs", json=BODY), 404, "NOT_FOUND")


def test_a_repeated_verb_is_answered_with_what_it_did(http: httpx2.Client) -> None:
    job_id = http.post("/v1/jobs", json=BODY).json()["id"]
    for _ in range(2):
        answer = http.post(f"/v1/jobs/{job_id}/cancel", headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["state"]) == (200, "canceled")
    problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "CONFLICT")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"kind": "bake"}, "/kind"),
        ({"kind": "ingest", "spec": {"dataset": "d"}}, "/kind"),
        ({"priority": 101}, "/priority"),
        ({"owner": "root"}, "/owner"),
        ({"spec": None}, "/spec"),
        ({"spec": SPEC | {"lr": 1}}, "/spec/lr"),
        ({"spec": SPEC | {"dataset": "../x"}}, "/spec/dataset"),
        ({"spec": SPEC | {"preset": "magic"}}, "/spec/preset"),
        ({"spec": SPEC | {"workers": 3}}, "/spec/workers"),
        ({"spec": SPEC | {"config": {"replay": {"size": 1}}}}, "/spec/config/replay/size"),
        ({"spec": SPEC | {"config": {"replay": {"capacity": 1}}}}, "/spec/config/replay/capacity"),
        ({"spec": SPEC | {"config": {"generator": {"size": 50}}}}, "/spec/config/generator/size"),
        ({"after": ["job-none"]}, "/after/0"),
        ({"labels": {"a b": "c"}}, "/labels/a b/[key]"),
    ],
)
def test_what_is_wrong_is_pointed_at(
    http: httpx2.Client, change: dict[str, Any], where: str
) -> None:
    assert where in pointers(http.post("/v1/jobs", json=BODY | change))


def test_an_unknown_dataset_is_answered_with_those_there_are(http: httpx2.Client) -> None:
    answer = http.post("/v1/jobs", json=BODY | {"spec": SPEC | {"dataset": "shoes"}})
    found = problem(answer, 404, "NOT_FOUND")
    assert "garments" in found["detail"]
    assert found["errors"][0]["pointer"] == "/spec/dataset"


def test_a_dataset_or_model_may_be_made_by_a_job_before(live: Live, http: httpx2.Client) -> None:
    ingest, _ = live.queue.submit(
        "job-ingest",
        JobSubmission(kind=JobKind.INGEST, spec={"dataset": "shoes"}),
        owner="tester",
    )
    train = BODY | {"spec": SPEC | {"dataset": "shoes"}}
    too_soon = problem(http.post("/v1/jobs", json=train), 404, "NOT_FOUND")
    assert f"{ingest.id} is to make it" in too_soon["detail"]
    train["after"] = [ingest.id]
    assert http.post("/v1/jobs?validate_only=true", json=train).json()["config"] is None
    made = http.post("/v1/jobs", json=train).json()
    assert ingest.id in made["reason"]
    sample = {"kind": "sample", "spec": {"model": "tailor", "n": 3}, "after": [made["id"]]}
    assert http.post("/v1/jobs", json=sample).status_code == 202
    too_soon = problem(
        http.post("/v1/jobs", json=sample | {"after": [ingest.id]}), 404, "NOT_FOUND"
    )
    assert f"{made['id']} is to make it" in too_soon["detail"]
    for kind in ("evaluate", "encode"):
        both = sample | {"kind": kind, "spec": {"model": "tailor", "dataset": "garments"}}
        spec = http.post("/v1/jobs", json=both).json()["spec"]
        assert spec["model"] == "tailor"  # its version is still to come
        assert spec["dataset_version"]
        found = problem(http.post("/v1/jobs", json=both | {"after": []}), 404, "NOT_FOUND")
        assert found["errors"][0]["pointer"] == "/spec/model"


def test_inception_is_refused_where_its_weights_are_not_set(
    live: Live, http: httpx2.Client, tmp_path: Path
) -> None:
    publish_forger(Registry(live.store), "tailor")
    spec = {"model": "tailor", "dataset": "garments", "features": "inception"}
    refused = http.post("/v1/jobs", json={"kind": "evaluate", "spec": spec})
    assert pointers(refused) == ["/spec/features"]
    assert "ELMYR_INCEPTION_WEIGHTS" in refused.json()["detail"]
    unknown = {"kind": "evaluate", "spec": spec | {"features": "vgg"}}
    assert pointers(http.post("/v1/jobs", json=unknown)) == ["/spec/features"]
    # The file may lie on the workers' machines alone: they look into it.
    with live_api(live.settings.model_copy(update={"inception_weights": tmp_path / "w"})) as set_:
        taken = http.post(f"{set_.url}/v1/jobs", json={"kind": "evaluate", "spec": spec})
    assert taken.json()["spec"]["features"] == "inception"


def test_lists_are_filtered_and_paged(live: Live, http: httpx2.Client) -> None:
    ids = [
        http.post("/v1/jobs", json=BODY | {"labels": {"n": str(n % 2)}}).json()["id"]
        for n in range(5)
    ]
    live.queue.cancel(ids[0])
    first = http.get("/v1/jobs?limit=3").json()
    second = http.get("/v1/jobs", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None
    assert [job["id"] for job in http.get("/v1/jobs?state=canceled").json()["items"]] == ids[:1]
    assert len(http.get("/v1/jobs?label=n=1&kind=train").json()["items"]) == 2
    assert len(http.get("/v1/jobs?label=n").json()["items"]) == 5
    assert http.get("/v1/jobs?kind=sample").json()["items"] == []
    assert pointers(http.get("/v1/jobs?limit=101")) == ["/query/limit"]
    problem(http.get("/v1/jobs?cursor=x"), 422, "INVALID_INPUT")


def test_the_verbs_and_what_forbids_them(live: Live, http: httpx2.Client) -> None:
    url = http.post("/v1/jobs", json=BODY).headers["Location"]

    def state(verb: str) -> str:
        return str(http.post(f"{url}/{verb}").json()["state"])

    problem(http.post(f"{url}/resume"), 409, "CONFLICT")
    assert [state("pause"), state("resume")] == ["paused", "queued"]
    job = live.start(url.rpartition("/")[2])
    assert http.post(f"{url}/cancel").json()["stop_requested"] == "cancel"
    live.end(job, Outcome.CANCELED)
    problem(http.post(f"{url}/cancel"), 409, "CONFLICT")
    assert state("retry") == "queued"
    problem(http.post("/v1/jobs/job-none/cancel"), 404, "NOT_FOUND")


def test_a_full_queue_says_when_to_come_again(settings: Settings) -> None:
    with live_api(settings.model_copy(update={"max_queued_jobs": 0})) as live:
        live.add_dataset("garments")
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx2.post(f"{live.url}/v1/jobs", json=BODY, headers=headers, timeout=60)
        problem(answer, 503, "UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) >= 1
