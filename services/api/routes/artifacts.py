"""The files of a run: checkpoints, grids, replay pictures, the job as accepted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from services.api.auth import needs_key
from services.api.content import ANY_FILE, object_response
from services.api.deps import Elmyr, ExistingJob
from services.api.pages import Cursor, Limit, Page, page
from services.api.problems import declared
from services.api.urls import artifact_url
from shared.errors import InvalidInput, NotFound, Unauthorized, Unavailable
from shared.storage import keys

router = APIRouter(
    prefix="/v1/jobs/{job_id}/artifacts",
    tags=["artifacts"],
    dependencies=[needs_key],
    responses=declared(Unauthorized, NotFound, InvalidInput, Unavailable),
)


class Artifact(BaseModel):
    """One file of a run."""

    path: str
    bytes: int
    modified_at: datetime
    url: str


@router.get("")
def list_artifacts(
    job: ExistingJob, parts: Elmyr, cursor: Cursor = None, limit: Limit = 100
) -> Page[Artifact]:
    """List the run's files by path."""
    prefix = keys.run_prefix(job.id)
    start_after = None if cursor is None else keys.checked(prefix + cursor)
    found = (
        Artifact(
            path=info.key.removeprefix(prefix),
            bytes=info.bytes,
            modified_at=info.modified_at,
            url=artifact_url(info.key),
        )
        for info in parts.store.list(prefix, start_after=start_after)
    )
    return page(found, limit, cursor=lambda artifact: artifact.path)


@router.get("/{path:path}", response_class=Response, responses=ANY_FILE)
def get_artifact(
    job: ExistingJob, parts: Elmyr, path: Annotated[str, Path(min_length=1, max_length=900)]
) -> Response:
    """One file, streamed. 404: there is none of this path. 422: the path leaves the run."""
    return object_response(parts.store, keys.checked(keys.run_prefix(job.id) + path))
