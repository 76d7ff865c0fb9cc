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
    """One picture of a job: a grid (`at`, of a training `kimg`) or a drawn one (`index`)."""

    name: str
    url: str
    """A path of the API: `Client.download` takes it."""
    kimg: float | None = None
    at: datetime | None = None
    index: int | None = None


class Encoding(BaseModel):
    """What serving found for a picture: the z of which the model draws it best."""

    model: str
    version: int
    job_id: str
    seed: int
    z: list[float]
    label: int | None
    """The class that it is drawn of; None from a model without classes."""
    error: float
    """The mean squared error, in [0, 1]: white counts as 1."""


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
