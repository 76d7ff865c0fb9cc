"""Where things of the API are: paths, as answers name them. Clients put the host in front."""

from __future__ import annotations

from urllib.parse import quote

from shared.schemas.jobs import Job

VERBS = ("cancel", "pause", "resume", "retry")
VIEWS = ("events", "metrics", "logs", "samples", "artifacts")


def job_url(job_id: str) -> str:
    return f"/v1/jobs/{job_id}"


def artifact_url(key: str) -> str:
    """Where the object `runs/{job}/{path}` is read."""
    _, job_id, path = key.split("/", 2)
    return f"{job_url(job_id)}/artifacts/{quote(path)}"


def picture_url(job_id: str, index: int) -> str:
    return f"{job_url(job_id)}/samples/{index}"


def with_urls(job: Job) -> Job:
    """The job as answers show it."""
    base = job_url(job.id)
    urls = {"self": base} | {name: f"{base}/{name}" for name in (*VERBS, *VIEWS)}
    return job.model_copy(update={"urls": urls})
