"""Datasets: upload, list, look, delete."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import BeforeValidator
from starlette.requests import ClientDisconnect

from services.api.auth import Owner, needs_key
from services.api.deps import Elmyr, Parts
from services.api.pages import Cursor, Limit, Page, page
from services.api.problems import declared
from services.api.submission import submit_ingest
from services.api.uploads import UploadStream
from services.api.urls import job_url, with_urls
from shared.errors import Conflict, InvalidInput, NotFound, TooLarge, Unauthorized, Unavailable
from shared.ids import Name, new_job_id
from shared.schemas.datasets import DatasetManifest
from shared.schemas.jobs import Job, JobKind
from shared.schemas.networks import MAX_SIZE
from shared.schemas.specs import IngestSpec
from shared.storage import datasets, keys

router = APIRouter(
    prefix="/v1/datasets",
    tags=["datasets"],
    dependencies=[needs_key],
    responses=declared(Unauthorized, InvalidInput, Unavailable),
)

READERS = (JobKind.TRAIN, JobKind.ENCODE, JobKind.EVALUATE)
"""Kinds of jobs whose spec names a dataset that they read."""
UPLOAD_TYPES = (
    "application/zip",
    "application/x-tar",
    "application/vnd.apache.parquet",
    "application/octet-stream",
)
UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A zip, tar, Parquet or IDX file.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in UPLOAD_TYPES
        },
    }
}


@router.put(
    "/{name}",
    status_code=status.HTTP_202_ACCEPTED,
    responses=declared(TooLarge),
    openapi_extra=UPLOAD_BODY,
)
async def put_dataset(
    name: Name,
    request: Request,
    response: Response,
    parts: Elmyr,
    owner: Owner,
    size: Annotated[int | None, Query(ge=8, le=MAX_SIZE)] = None,
    # A query holds text, and pydantic does not take "3" for the literal 3.
    channels: Annotated[Literal[1, 3] | None, Query(), BeforeValidator(int)] = None,
    fit: Literal["crop", "pad"] = "crop",
    filename: Annotated[str, Query(max_length=255)] = "",
    source: Annotated[str, Query(max_length=500)] = "",
    content_length: Annotated[int | None, Header(ge=0, include_in_schema=False)] = None,
) -> Job:
    """Upload images; the answer is the job that makes a version of the dataset of them.

    The file is streamed to object storage. Without `size` and `channels` the images decide.
    Uploading the same file twice makes the same version twice, so a repeat does no harm.

    413: the file is larger than the server takes; nothing of it is kept. 422: the file is empty,
    or broke off.
    """
    max_bytes = parts.settings.max_upload_bytes
    if content_length is not None and content_length > max_bytes:
        raise TooLarge(f"an upload holds at most {max_bytes} bytes, not {content_length}")
    await to_thread.run_sync(parts.queue.ping)  # before gigabytes come that nobody can work on
    job_id = new_job_id()
    spec = IngestSpec(
        dataset=name,
        upload_key=keys.upload(job_id),
        filename=filename,
        size=size,
        channels=channels,
        fit=fit,
        source=source or filename,
    )
    await _store(parts, spec.upload_key, request, max_bytes)
    job = await to_thread.run_sync(partial(submit_ingest, parts, job_id, spec, owner=owner))
    response.headers["Location"] = job_url(job.id)
    return with_urls(job)


async def _store(parts: Parts, key: str, request: Request, max_bytes: int) -> None:
    """Write the body of the request under `key`, or nothing."""
    write = partial(parts.store.put_stream, key, UploadStream(request.stream()).buffered())
    try:
        num_bytes, _ = await to_thread.run_sync(
            partial(write, max_bytes=max_bytes), limiter=request.app.state.uploads
        )
    except (ClientDisconnect, TimeoutError) as error:
        raise InvalidInput("the upload broke off") from error
    if num_bytes == 0:
        await to_thread.run_sync(parts.store.delete, key)
        raise InvalidInput("the upload is empty: send the file as the body")


@router.get("")
def list_datasets(parts: Elmyr, cursor: Cursor = None, limit: Limit = 50) -> Page[DatasetManifest]:
    """List datasets by name, each by its newest version, without the list of what was refused."""
    found = (
        manifest.model_copy(update={"refused": []})
        for manifest in datasets.list_datasets(parts.store)
        if cursor is None or manifest.name > cursor
    )
    return page(found, limit, cursor=lambda manifest: manifest.name)


@router.get("/{name}", responses=declared(NotFound))
def get_dataset(
    name: Name,
    parts: Elmyr,
    version: Annotated[str | None, Query(pattern=r"^[0-9a-f]{1,128}$")] = None,
) -> DatasetManifest:
    """One dataset: sizes, classes, shards, and what was refused and why. The newest version, or
    the one asked for."""
    return datasets.manifest(parts.store, name, version)


@router.delete(
    "/{name}", status_code=status.HTTP_204_NO_CONTENT, responses=declared(NotFound, Conflict)
)
def delete_dataset(name: Name, parts: Elmyr) -> None:
    """Delete every version of a dataset. 409: a job that has not ended reads it."""
    for job in parts.unfinished(*READERS):
        if job.spec["dataset"] == name:
            raise Conflict(f"job {job.id} is {job.state} and reads dataset {name}")
    datasets.delete(parts.store, name)
