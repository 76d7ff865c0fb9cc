"""The replay repository of a training: what is in it now, and at each checkpoint before."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Response
from pydantic import BaseModel

from services.api.auth import needs_key
from services.api.content import PICTURE, object_response
from services.api.deps import Elmyr, ExistingJob, Parts
from services.api.events import history
from services.api.pages import Limit, Page, page
from services.api.problems import declared
from services.api.routes.events import EventCursor
from services.api.urls import artifact_url
from shared.errors import InvalidInput, NotFound, Unauthorized, Unavailable
from shared.schemas.events import EventType
from shared.schemas.replays import ReplayManifest
from shared.storage import documents

router = APIRouter(
    prefix="/v1/replays/{job_id}",
    tags=["replays"],
    dependencies=[needs_key],
    responses=declared(Unauthorized, NotFound, InvalidInput, Unavailable),
)


class Replay(BaseModel):
    """The repository as one checkpoint holds it."""

    checkpoint_key: str
    picture_url: str
    manifest: ReplayManifest


class ReplayEntry(Replay):
    """One point of the timeline. `event_id` is the id of the checkpoint's event."""

    event_id: str


class CheckpointManifest(BaseModel):
    """What is read here of a checkpoint's manifest.json."""

    replay: ReplayManifest | None = None


@router.get("")
def get_replay(job: ExistingJob, parts: Elmyr) -> Replay:
    """What is in the repository at the newest checkpoint: size, ages in rounds, shards, a picture.

    404: the job has no checkpoint yet, or trains without replay.
    """
    return _newest(parts, job.id)


@router.get("/picture", response_class=Response, responses=PICTURE)
def get_picture(job: ExistingJob, parts: Elmyr) -> Response:
    """All images of the repository at the newest checkpoint, as one picture."""
    return object_response(parts.store, _newest(parts, job.id).manifest.picture_key)


@router.get("/timeline")
def get_timeline(
    job: ExistingJob, parts: Elmyr, cursor: EventCursor = None, limit: Limit = 50
) -> Page[ReplayEntry]:
    """The repository at each checkpoint that is still there, oldest first."""
    return page(_timeline(parts, job.id, cursor), limit, cursor=lambda entry: entry.event_id)


def _timeline(parts: Parts, job_id: str, cursor: str | None) -> Iterator[ReplayEntry]:
    for event in history(parts, job_id, after=cursor):
        if event.type is EventType.CHECKPOINT:
            try:
                replay = _replay(parts, event.data["key"])
            except NotFound:  # no replay, or collected as garbage
                continue
            yield ReplayEntry(event_id=event.id, **replay.model_dump())


def _newest(parts: Parts, job_id: str) -> Replay:
    head = parts.runs.head(job_id)
    if head is None or head.checkpoint_key is None:
        raise NotFound(f"job {job_id} has no checkpoint yet")
    return _replay(parts, head.checkpoint_key)


def _replay(parts: Parts, checkpoint_key: str) -> Replay:
    manifest = documents.read(parts.store, CheckpointManifest, checkpoint_key).replay
    if manifest is None:
        raise NotFound("this job trains without replay")
    return Replay(
        checkpoint_key=checkpoint_key,
        picture_url=artifact_url(manifest.picture_key),
        manifest=manifest,
    )
