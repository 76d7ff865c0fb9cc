"""Pictures over HTTP, in plain Starlette: what is asked, what is answered, nothing about how.

    POST /v1/models/{model}/generate   {n, seed?, label?, prompt?, truncation?, format}
    GET  /v1/models/{model}/image      one picture; a new one each time without a seed
         ?seed=&index=&label=&prompt=&truncation=&format=
    GET  /v1/models/{model}/ready      loads the model
    POST /v1/models/{model}/encode, /interpolate: see latent.py
    GET  /v1/models, /v1/models/{model}; /healthz, /readyz
    POST /v1/images/generations: see images_api.py
    /v2: see open_inference.py

`{model}` is `name`, `name@version` or `name@alias`.
"""

from __future__ import annotations

import re

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.serving import answers, images_api, open_inference, problems
from services.serving.answers import Origin
from services.serving.drawing import Draw
from services.serving.images_api import ImagesRoutes
from services.serving.latent import LatentRoutes
from services.serving.models import Models
from services.serving.open_inference import OpenInferenceRoutes
from services.serving.requests import GenerateRequest, ImageRequest, PictureRequest
from services.serving.studio import Studio
from shared.images import Pixels
from shared.settings import Settings


class Routes:
    """The endpoints of the interactive deployment."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._settings = settings
        self._studio = Studio(models, settings)
        self._latent = LatentRoutes(models, settings)
        self._images = ImagesRoutes(self._studio, settings)
        self._open_inference = OpenInferenceRoutes(self._studio, settings)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                # The most asked for first: they are tried in this order.
                Route("/v1/models/{model}/image", self.image),
                Route("/v1/models/{model}/generate", self.generate, methods=["POST"]),
                *self._latent.routes(),
                *self._images.routes(),
                *self._open_inference.routes(),
                Route("/v1/models/{model}/ready", self.ready_model),
                Route("/v1/models/{model}", self.get_model),
                Route("/v1/models", self.list_models),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
            ],
            exception_handlers=problems.handlers(
                {"/v1/images/generations": images_api.error, "/v2": open_inference.error}
            ),
        )

    async def generate(self, request: Request) -> Response:
        """n pictures: png or webp (one: the file; several: a zip), grid (one PNG), npy (uint8
        [n, H, W, C]) or json (PNGs in base64)."""
        asked = await problems.read_body(
            request, GenerateRequest, max_bytes=self._settings.max_json_bytes
        )
        self._studio.check_num(asked.n, pointer="/n")
        return await self._draw(request, asked, range(asked.n), root="")

    async def image(self, request: Request) -> Response:
        """One picture of a seed."""
        asked = problems.read_query(request, ImageRequest)
        indices = range(asked.index, asked.index + 1)
        return await self._draw(request, asked, indices, root="/query")

    async def _draw(
        self, request: Request, asked: PictureRequest, indices: range, *, root: str
    ) -> Response:
        ref = request.path_params["model"]
        seed = self._studio.seed(asked.seed)
        async with self._studio.place(ref, len(indices)) as model:
            card = model.card

            def render(pixels: Pixels, seed: int) -> bytes:
                return answers.body(asked.format, pixels, Origin.of(card, seed))

            if asked.model_fields_set <= {"format"}:
                seed, body = await model.draw_any(seed, render)
            else:
                label, text = await self._studio.condition(
                    model, asked.label, asked.prompt, root=root
                )
                draw = Draw(seed, indices, label, asked.truncation, text)
                body = await model.draw(draw, lambda pixels: render(pixels, seed))
        # Only a picture whose version and seed are named stays the same.
        named = asked.seed is not None and re.search(r"@\d+$", ref)
        cache = "public, max-age=31536000, immutable" if named else "no-store"
        return Response(
            body,
            headers=Origin.of(card, seed).headers() | {"Cache-Control": cache},
            media_type=answers.media_type(asked.format, len(indices)),
        )

    async def list_models(self, request: Request) -> Response:
        """Every model of the registry, and which of its versions this replica has in memory; the
        same once more as `data`, in the words of OpenAI's clients."""
        del request
        found = await self._models.in_thread(self._models.registry.models)
        items = [
            model.model_dump(mode="json") | {"loaded": self._models.loaded(model.name)}
            for model in found
        ]
        data = [images_api.model(model.name, model.latest) for model in found if model.latest]
        return JSONResponse({"items": items, "next_cursor": None, "object": "list", "data": data})

    async def get_model(self, request: Request) -> Response:
        """The card of a version, and whether this replica has it in memory; with what OpenAI's
        clients look for."""
        ref = request.path_params["model"]
        card = await self._models.card(ref)
        loaded = self._models.is_loaded((card.model, card.version))
        content = card.model_dump(mode="json") | {"loaded": loaded}
        return JSONResponse(content | images_api.model(ref, card))

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
