"""The chunks of sampling jobs: POST /chunks draws one and writes it to object storage itself.

A chunk is a pure function of (model version, seed, range of indices, label or prompt, truncation,
format), so any replica may make it, again if need be; one that exists is not made again. What a
sampling job is, and which chunk comes next, is not known here.
"""

from __future__ import annotations

from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.serving import answers, problems
from services.serving.drawing import Draw
from services.serving.models import Models
from services.serving.requests import MAX_INDEX, MAX_SEED, Label
from services.serving.studio import Studio
from shared.errors import NotFound, PreconditionFailed
from shared.ids import JobId, Name
from shared.images import ImageFormat
from shared.schemas.networks import Frozen
from shared.schemas.specs import Prompt
from shared.settings import Settings
from shared.storage import keys
from shared.storage.objects import ObjectStore

MAX_CHUNK = 1024


class ChunkRequest(Frozen):
    """Pictures `start` to `start + count - 1` of a seed, as chunk `index` of a job."""

    job_id: JobId
    index: int = Field(ge=0, lt=MAX_INDEX)
    model: Name
    version: int = Field(ge=1)
    seed: int = Field(ge=0, lt=MAX_SEED)
    start: int = Field(ge=0, lt=MAX_INDEX)
    count: int = Field(ge=1, le=MAX_CHUNK)
    label: Label | None = None
    prompt: Prompt | None = None
    truncation: float = Field(1.0, gt=0, le=1)
    format: ImageFormat = "png"


class BulkRoutes:
    """The endpoint of the bulk deployment."""

    def __init__(self, models: Models, store: ObjectStore, settings: Settings) -> None:
        self._models = models
        self._store = store
        self._settings = settings
        self._studio = Studio(models, settings)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/chunks", self.make_chunk, methods=["POST"]),
                Route("/readyz", self.readyz),
            ],
            exception_handlers=problems.handlers({}),
        )

    async def make_chunk(self, request: Request) -> Response:
        """Make a chunk unless it exists; answers {key, bytes}."""
        asked = await problems.read_body(
            request, ChunkRequest, max_bytes=self._settings.max_json_bytes
        )
        key = keys.sampled_chunk(asked.job_id, asked.index)
        try:
            there = await self._models.in_thread(self._store.stat, key)
        except NotFound:
            body = await self._drawn(asked)
            num_bytes = await self._models.in_thread(self._written, key, body)
        else:
            num_bytes = there.bytes
        return JSONResponse({"key": key, "bytes": num_bytes})

    async def _drawn(self, asked: ChunkRequest) -> bytes:
        async with self._studio.place(f"{asked.model}@{asked.version}", asked.count) as model:
            label, text = await self._studio.condition(model, asked.label, asked.prompt, root="")
            indices = range(asked.start, asked.start + asked.count)
            return await model.draw(
                Draw(asked.seed, indices, label, asked.truncation, text),
                lambda pixels: answers.zipped(pixels, asked.format, start=asked.start),
            )

    async def readyz(self, request: Request) -> Response:
        """A model is in memory, or the store answers."""
        del request
        await self._models.check_ready()
        return JSONResponse({"status": "ok"})

    def _written(self, key: str, body: bytes) -> int:
        """The size of the chunk that holds: ours, or that of somebody who was faster."""
        try:
            self._store.put_if_absent(key, body)
        except PreconditionFailed:  # drawn on another kind of processor: other roundings
            return self._store.stat(key).bytes
        return len(body)
