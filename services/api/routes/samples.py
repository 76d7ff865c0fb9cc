"""Pictures of a job: its grids, or what a sampling job has drawn so far."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import datetime
from itertools import dropwhile, islice
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from services.api import content, zips
from services.api.auth import needs_key
from services.api.deps import Elmyr, ExistingJob, Parts
from services.api.events import history
from services.api.pages import Cursor, Limit, Page, page
from services.api.problems import declared
from services.api.urls import artifact_url, picture_url
from shared.errors import InvalidInput, NotFound, Unauthorized, Unavailable
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobKind
from shared.schemas.specs import SAMPLE_CHUNK, SampleSpec
from shared.storage import keys

router = APIRouter(
    prefix="/v1/jobs/{job_id}/samples",
    tags=["samples"],
    dependencies=[needs_key],
    responses=declared(Unauthorized, NotFound, InvalidInput, Unavailable),
)


class Sample(BaseModel):
    """One picture. Grids have `at` and, of a training, `kimg`; a sampling job's have `index`."""

    name: str
    url: str
    kimg: float | None = None
    at: datetime | None = None
    index: int | None = None


@router.get("")
def list_samples(
    job: ExistingJob, parts: Elmyr, cursor: Cursor = None, limit: Limit = 100
) -> Page[Sample]:
    """List the pictures that are there by now, first ones first; other kinds of job have none."""
    found = _drawn(parts, job) if job.kind is JobKind.SAMPLE else _grids(parts, job)
    if cursor is not None:  # names of grids do not sort by time: attempt 10 comes behind attempt 9
        found = islice(dropwhile(lambda sample: sample.name != cursor, found), 1, None)
    return page(found, limit, cursor=lambda sample: sample.name)


@router.get("/archive", response_class=Response, responses=content.ARCHIVE)
def get_archive(job: ExistingJob, parts: Elmyr) -> Response:
    """All pictures of a sampling job that are there by now, as one zip archive, streamed.

    404: the job is not a sampling job.
    """
    _spec(job)
    headers = content.headers(f"{job.id}.zip")
    return StreamingResponse(zips.archive(_pictures(parts, job)), headers=headers)


@router.get("/{index}", response_class=Response, responses=content.PICTURE)
def get_picture(
    job: ExistingJob, parts: Elmyr, index: Annotated[int, Path(ge=0, lt=10_000_000)]
) -> Response:
    """One picture of a sampling job. 404: it is not drawn yet, or not a sampling job."""
    name = _name(index, _spec(job))
    try:
        with _chunk(parts, keys.sampled_chunk(job.id, index // SAMPLE_CHUNK)) as chunk:
            picture = chunk.read(name)
    except (NotFound, KeyError) as error:
        raise NotFound(f"picture {index} of job {job.id} is not there (yet)") from error
    return Response(picture, headers=content.headers(name))


def _grids(parts: Parts, job: Job) -> Iterator[Sample]:
    for event in history(parts, job.id):
        if event.type is EventType.SAMPLE:
            key = event.data["key"]
            yield Sample(
                name=key.removeprefix(keys.run_prefix(job.id)),
                url=artifact_url(key),
                kimg=event.data.get("kimg"),
                at=event.at,
            )


def _drawn(parts: Parts, job: Job) -> Iterator[Sample]:
    """What the chunks that exist hold, without opening them."""
    spec = _spec(job)
    for key in _chunks(parts, job):
        first = int(PurePosixPath(key).stem) * SAMPLE_CHUNK
        for index in range(first, min(first + SAMPLE_CHUNK, spec.n)):
            yield Sample(name=_name(index, spec), url=picture_url(job.id, index), index=index)


def _pictures(parts: Parts, job: Job) -> Iterator[tuple[str, bytes]]:
    for key in _chunks(parts, job):
        with _chunk(parts, key) as chunk:
            for name in chunk.namelist():
                yield name, chunk.read(name)


def _chunks(parts: Parts, job: Job) -> Iterator[str]:
    return (info.key for info in parts.store.list(keys.sampled_chunks(job.id)))


def _chunk(parts: Parts, key: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(parts.store.get(key)))


def _spec(job: Job) -> SampleSpec:
    if job.kind is not JobKind.SAMPLE:
        raise NotFound(f"job {job.id} is a {job.kind} job: it draws no pictures")
    return SampleSpec.model_validate(job.spec)


def _name(index: int, spec: SampleSpec) -> str:
    return f"{index:07d}.{spec.format}"
