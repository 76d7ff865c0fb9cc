"""Answers of the API that are no part of the shared language; read tolerantly, as answers grow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from shared.schemas.jobs import JobSubmission
from shared.schemas.replays import ReplayManifest


class ValidatedJob(BaseModel):
    """What a submit would make: names pinned, and the full configuration of a training (None while
    its dataset is still to be made)."""

    job: JobSubmission
    config: dict[str, Any] | None


class Sample(BaseModel):
    """One picture of a job: a training's grid (`kimg`, `at`) or a drawn picture (`index`)."""

    name: str
    url: str
    """A path of the API: `Client.download` takes it."""
    kimg: float | None = None
    at: datetime | None = None
    index: int | None = None


class Artifact(BaseModel):
    """One file of a run."""

    path: str
    bytes: int
    modified_at: datetime
    url: str


class Replay(BaseModel):
    """The replay repository as one checkpoint holds it."""

    checkpoint_key: str
    picture_url: str
    manifest: ReplayManifest
