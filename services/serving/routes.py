"""Pictures over HTTP, in plain Starlette: what is asked, what is answered, nothing about how.

    POST /v1/models/{model}/generate   {n, seed?, label?, prompt?, truncation?, format}
    GET  /v1/models/{model}/image      one picture; a new one each time without a seed
    GET  /v1/models/{model}/ready      loads the model
    POST /v1/models/{model}/encode, /interpolate: see latent.py
    GET  /v1/models, /v1/models/{model}; /healthz, /readyz

`{model}` is `name`, `name@version` or `name@alias`.
"""

from __future__ import annotations

import re
from random import Random

from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.serving import answers, problems
from services.serving.answers import Format, Origin
from services.serving.batching import WaitingRoom
from services.serving.drawing import Draw
from services.serving.latent import LatentRoutes
from services.serving.models import Models
from services.serving.prompts import Prompts
from services.serving.requests import MAX_SEED, Label
from shared.errors import FieldError, InvalidInput
from shared.schemas.networks import Frozen
from shared.schemas.specs import Prompt
from shared.settings import Settings


class ImageRequest(Frozen):
    """One picture. Without a label or a prompt the seed chooses the class or the caption."""

    seed: int | None = Field(None, ge=0, lt=MAX_SEED)
    label: Label | None = None
    prompt: Prompt | None = None
    truncation: float = Field(1.0, gt=0, le=1)
    format: Format = "png"


class GenerateRequest(ImageRequest):
    """Pictures 0 to n - 1 of a seed. Without a label or a prompt the classes or the captions of
    the training take turns."""

    n: int = Field(1, ge=1)


class Routes:
    """The endpoints of the interactive deployment."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._settings = settings
        self._prompts = Prompts(settings.text_encoder)
        self._room = WaitingRoom(settings.serve_max_waiting_images)
        self._latent = LatentRoutes(models, settings)
        # No secrets; asking the system for each would let go of the interpreter's lock.
        self._seeds = Random()  # noqa: S311

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                # The most asked for first: they are tried in this order.
                Route("/v1/models/{model}/image", self.image),
                Route("/v1/models/{model}/generate", self.generate, methods=["POST"]),
                *self._latent.routes(),
                Route("/v1/models/{model}/ready", self.ready_model),
                Route("/v1/models/{model}", self.get_model),
                Route("/v1/models", self.list_models),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
            ],
            exception_handlers=problems.HANDLERS,
        )

    async def generate(self, request: Request) -> Response:
        """n pictures: png or webp (one: the file; several: a zip), grid (one PNG), npy (uint8
        [n, H, W, C]) or json (PNGs in base64)."""
        asked = await problems.read_body(
            request, GenerateRequest, max_bytes=self._settings.max_json_bytes
        )
        most = self._settings.serve_max_images
        if asked.n > most:
            raise InvalidInput(
                f"n is {asked.n}, and at most {most} pictures come in one answer: for more, submit "
                "a job of kind sample",
                errors=[FieldError(pointer="/n", detail=f"at most {most}")],
            )
        return await self._draw(request, asked, asked.n, root="")

    async def image(self, request: Request) -> Response:
        """Picture 0 of a seed."""
        asked = problems.read_query(request, ImageRequest)
        return await self._draw(request, asked, 1, root="/query")

    async def _draw(self, request: Request, asked: ImageRequest, n: int, *, root: str) -> Response:
        ref = request.path_params["model"]
        seed = self._seeds.randrange(MAX_SEED) if asked.seed is None else asked.seed
        with self._room.seat(n):
            async with self._models.use(ref) as model:
                label = model.label_number(asked.label, pointer=f"{root}/label")
                text = await self._prompts.condition(
                    asked.prompt, model.config, pointer=f"{root}/prompt"
                )
                card = model.card
                origin = Origin(card.model, card.version, card.job_id, seed)
                body = await model.draw(
                    Draw(seed, range(n), label, asked.truncation, text),
                    lambda pixels: answers.body(asked.format, pixels, origin),
                )
        # Only a picture whose version and seed are named stays the same.
        named = asked.seed is not None and re.search(r"@\d+$", ref)
        cache = "public, max-age=31536000, immutable" if named else "no-store"
        return Response(
            body,
            headers=origin.headers() | {"Cache-Control": cache},
            media_type=answers.media_type(asked.format, n),
        )

    async def list_models(self, request: Request) -> Response:
        """Every model of the registry, and which of its versions this replica has in memory."""
        del request
        found = await self._models.in_thread(self._models.registry.models)
        items = [
            model.model_dump(mode="json") | {"loaded": self._models.loaded(model.name)}
            for model in found
        ]
        return JSONResponse({"items": items, "next_cursor": None})

    async def get_model(self, request: Request) -> Response:
        """The card of a version, and whether this replica has it in memory."""
        card = await self._models.card(request.path_params["model"])
        loaded = self._models.is_loaded((card.model, card.version))
        return JSONResponse(card.model_dump(mode="json") | {"loaded": loaded})

    async def ready_model(self, request: Request) -> Response:
        """Load a model, so that the first picture need not wait for it."""
        async with self._models.use(request.path_params["model"]) as model:
            card = model.card
        return JSONResponse({"model": card.model, "version": card.version, "ready": True})

    async def healthz(self, request: Request) -> Response:
        """The process answers."""
        del request
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """A model is in memory, or the store answers."""
        del request
        await self._models.check_ready()
        return JSONResponse({"status": "ok"})
