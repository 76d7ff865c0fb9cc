"""The registry over HTTP, and sampling jobs that name its models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from shared.schemas.models import ModelCard, SnapshotConfig, Task
from shared.schemas.networks import GeneratorConfig
from shared.storage.registry import Registry
from tests.live import Live
from tests.problems import problem


def publish(live: Live, name: str, *, by: str, class_names: list[str] | None = None) -> ModelCard:
    """A version whose weights are no weights."""
    classes = class_names or []
    generator = GeneratorConfig(num_classes=len(classes))
    return Registry(live.store).publish(
        ModelCard(
            model=name,
            version=0,
            job_id=by,
            attempt=1,
            recipe="gan",
            preset="modern",
            dataset="garments",
            dataset_version="d1",
            kimg=1,
            seed=0,
            tasks=[Task.GENERATE],
            class_names=classes,
            size=32,
            channels=1,
            num_parameters=1,
            weights_sha256="",
            weights_bytes=0,
            config_sha256="",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        b"weights",
        SnapshotConfig(generator=generator, class_names=classes, tasks=[Task.GENERATE]),
    )


def test_models_are_listed_promoted_and_rolled_back(live: Live, http: httpx2.Client) -> None:
    for number in range(2):
        publish(live, "tailor", by=f"job-{number}")
    publish(live, "baker", by="job-9")
    first = http.get("/v1/models?limit=1").json()
    rest = http.get("/v1/models", params={"cursor": first["next_cursor"]}).json()
    assert [model["name"] for model in first["items"] + rest["items"]] == ["baker", "tailor"]
    assert http.get("/v1/models/tailor").json()["versions"] == [1, 2]
    assert http.get("/v1/models/tailor/versions/1").json()["job_id"] == "job-0"

    url = "/v1/models/tailor/aliases/production"
    for version in (2, 1):
        assert http.put(url, json={"version": version}).json()["version"] == version
    history = http.get(url).json()["history"]
    assert [(move["version"], move["by"]) for move in history] == [(2, "tester"), (1, "tester")]

    problem(http.delete("/v1/models/tailor/versions/1"), 409, "CONFLICT")
    http.put(url, json={"version": 2})
    assert http.delete("/v1/models/tailor/versions/1").status_code == 204
    problem(http.get("/v1/models/tailor/versions/1"), 404, "NOT_FOUND")


def test_models_and_aliases_are_deleted(live: Live, http: httpx2.Client) -> None:
    publish(live, "tailor", by="job-1")
    http.put("/v1/models/tailor/aliases/production", json={"version": 1})
    for _ in range(2):
        gone = http.delete("/v1/models/tailor/aliases/production")
    problem(gone, 404, "NOT_FOUND")
    problem(http.delete("/v1/models/tailor/aliases/latest"), 409, "CONFLICT")

    publish(live, "tailor", by="job-2")
    body = {"kind": "sample", "spec": {"model": "tailor@1", "n": 3}}
    job = http.post("/v1/jobs", json=body).json()
    for url in ("/v1/models/tailor", "/v1/models/tailor/versions/1"):
        refused = problem(http.delete(url), 409, "CONFLICT")
        assert f"job {job['id']} is queued" in refused["detail"]
    http.post(f"/v1/jobs/{job['id']}/cancel")
    assert http.delete("/v1/models/tailor/versions/1").status_code == 204
    assert http.delete("/v1/models/tailor").status_code == 204
    problem(http.delete("/v1/models/tailor"), 404, "NOT_FOUND")
    assert http.get("/v1/models").json()["items"] == []


def test_refusals(live: Live, http: httpx2.Client) -> None:
    publish(live, "tailor", by="job-1")
    alias = "/v1/models/tailor/aliases"
    assert "tailor" in problem(http.get("/v1/models/baker"), 404, "NOT_FOUND")["detail"]
    problem(http.put(f"{alias}/production", json={"version": 7}), 404, "NOT_FOUND")
    problem(http.put(f"{alias}/production", json={"version": 1, "by": "x"}), 422, "INVALID_INPUT")
    problem(http.put(f"{alias}/7", json={"version": 1}), 422, "INVALID_INPUT")
    problem(http.get(f"{alias}/staging"), 404, "NOT_FOUND")
    problem(http.get("/v1/models/tailor/versions/0"), 422, "INVALID_INPUT")
    problem(http.delete("/v1/models/tailor/versions/7"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("spec", "status", "pointer"),
    [
        ({"model": "baker"}, 404, "/spec/model"),
        ({"model": "tailor@7"}, 404, "/spec/model"),
        ({"model": "tailor@production"}, 404, "/spec/model"),
        ({"model": "Tailor"}, 422, "/spec/model"),
        ({"label": "car"}, 422, "/spec/label"),
        ({"label": 2}, 422, "/spec/label"),
        ({"label": -1}, 422, "/spec/label"),
        ({"n": 0}, 422, "/spec/n"),
        ({"prompt": "a shoe"}, 422, "/spec/prompt"),
    ],
)
def test_what_a_sampling_job_may_not_name(
    live: Live, http: httpx2.Client, spec: dict[str, Any], status: int, pointer: str
) -> None:
    publish(live, "tailor", by="job-1", class_names=["shoe", "shirt"])
    body = {"kind": "sample", "spec": {"model": "tailor", "n": 3} | spec}
    code = "NOT_FOUND" if status == 404 else "INVALID_INPUT"
    errors = problem(http.post("/v1/jobs", json=body), status, code)["errors"]
    assert [error["pointer"] for error in errors] == [pointer]


@pytest.mark.parametrize("label", [None, "shirt", 1])
def test_a_sampling_job_keeps_the_version_that_its_model_meant(
    live: Live, http: httpx2.Client, label: str | int | None
) -> None:
    publish(live, "tailor", by="job-1", class_names=["shoe", "shirt"])
    body = {"kind": "sample", "spec": {"model": "tailor", "n": 3, "label": label}}
    job = http.post("/v1/jobs", json=body).json()
    publish(live, "tailor", by="job-2", class_names=["shoe", "shirt"])
    assert http.get(job["urls"]["self"]).json()["spec"]["model"] == "tailor@1"
