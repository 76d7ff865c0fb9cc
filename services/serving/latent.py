"""A generator asked the other way round: which z draws this picture, and what lies between two.

    POST /v1/models/{model}/encode       {image, seed?, label?, fit?, format}
    POST /v1/models/{model}/interpolate  {a, b, num?, seed?, label?, fit?, format}

A picture takes about a second's work, in a thread of its own; more than a few at a time get 503.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from services.serving import answers, uploads
from services.serving.answers import Format, Origin
from services.serving.bench import Bench
from services.serving.drawing import Draw
from services.serving.models import LoadedModel, Models
from services.serving.requests import MAX_SEED, MAX_Z, Label
from services.serving.uploads import Picture
from shared.decoding import Fit
from shared.errors import FieldError, InvalidInput
from shared.networks.interpolation import interpolate
from shared.networks.projection import Projection, check_projectable, project
from shared.networks.sampling import latents
from shared.schemas.networks import Frozen
from shared.settings import Settings

Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]
Latent = Annotated[
    list[Annotated[float, Field(ge=-MAX_Z, le=MAX_Z)]], Field(min_length=1, max_length=1024)
]
Point = Seed | Latent | Picture
"""Where an interpolation starts or ends: the first picture of a seed, a z, or a picture."""


class ProjectRequest(Frozen):
    """What the answers to pictures have in common. Without a label every class is tried."""

    seed: Seed = 0
    """Of the random z that the search starts from: the same gives the same answer."""
    label: Label | None = None
    fit: Fit = "crop"
    """How a picture of another form is made to fit, by the words of an upload of a dataset."""


class EncodeRequest(ProjectRequest):
    """One picture. `json` answers z, label and error; `png` and `webp` the picture that z draws."""

    image: Picture
    format: Literal["json", "png", "webp"] = "json"


class InterpolateRequest(ProjectRequest):
    """Two points. All pictures are of the class of `label`, without it of that of `a`."""

    a: Point
    b: Point
    num: int = Field(8, ge=2, le=64)
    format: Format = "grid"


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a point means to one generator: z [z_dim] and its class, where it has one of its own."""

    z: Tensor
    label: int | None


class LatentRoutes:
    """The endpoints that look for a z."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._max_bytes = settings.serve_max_picture_bytes
        self._bench = Bench(settings.serve_max_projections)

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models/{model}/encode", self.encode, methods=["POST"]),
            Route("/v1/models/{model}/interpolate", self.interpolate, methods=["POST"]),
        ]

    async def encode(self, request: Request) -> Response:
        """The z that draws a picture most like this one, or that picture."""
        with self._bench.place():
            asked = await uploads.read(
                request, EncodeRequest, pictures=["image"], max_bytes=self._max_bytes
            )
            async with self._models.use(request.path_params["model"]) as model:
                check_projectable(model.generator)
                label = model.label_number(asked.label, pointer="/label")
                origin = Origin.of(model.card, asked.seed)
                found = await self._bench.run(
                    partial(_projected, model, asked.image, asked, label, "/image")
                )
        label, error = _label(found), found.errors.item()
        headers = origin.headers() | {"Cache-Control": "no-store"}
        if asked.format == "json":
            content = {
                "model": origin.model,
                "version": origin.version,
                "job_id": origin.job_id,
                "seed": origin.seed,
                "z": found.z[0].tolist(),
                "label": label,
                "error": error,
            }
            return JSONResponse(content, headers=headers)
        return Response(
            answers.body(asked.format, found.pictures, origin),
            headers=headers | {"X-Elmyr-Error": f"{error:.6g}"},
            media_type=answers.media_type(asked.format, 1),
        )

    async def interpolate(self, request: Request) -> Response:
        """`num` pictures from a to b, in the formats of `generate`."""
        with self._bench.place():
            asked = await uploads.read(
                request, InterpolateRequest, pictures=["a", "b"], max_bytes=self._max_bytes
            )
            async with self._models.use(request.path_params["model"]) as model:
                check_projectable(model.generator)
                label = model.label_number(asked.label, pointer="/label")
                origin = Origin.of(model.card, asked.seed)
                body = await self._bench.run(partial(_between, model, asked, label, origin))
        return Response(
            body,
            headers=origin.headers() | {"Cache-Control": "no-store"},
            media_type=answers.media_type(asked.format, asked.num),
        )


def _projected(
    model: LoadedModel,
    file: bytes,
    asked: ProjectRequest,
    label: int | None,
    pointer: str,
    check: Callable[[], None],
) -> Projection:
    config = model.generator.config
    picture = uploads.decoded(file, config, asked.fit, pointer=pointer)
    return project(
        model.generator,
        torch.tensor(picture).permute(2, 0, 1)[None],
        seed=asked.seed,
        labels=None if label is None else [label],
        on_step=check,
    )


def _between(
    model: LoadedModel,
    asked: InterpolateRequest,
    label: int | None,
    origin: Origin,
    check: Callable[[], None],
) -> bytes:
    a = _anchor(model, asked.a, asked, label, "/a", check)
    if label is None:
        label = a.label
    if label is None and model.generator.config.num_classes:
        raise _wrong("/label", "a is a z, which has no class of its own: give a label")
    b = _anchor(model, asked.b, asked, label, "/b", check)
    pixels = interpolate(model.generator, a.z, b.z, label=label or 0, num=asked.num)
    return answers.body(asked.format, pixels, origin)


def _anchor(
    model: LoadedModel,
    point: int | list[float] | bytes,
    asked: ProjectRequest,
    label: int | None,
    pointer: str,
    check: Callable[[], None],
) -> Anchor:
    config = model.generator.config
    match point:
        case bytes():
            found = _projected(model, point, asked, label, pointer, check)
            return Anchor(found.z[0], _label(found))
        case int():
            turn = Draw(point, range(1)).conditions(model.generator)
            own = int(turn[0]) if config.num_classes else None
            return Anchor(latents(point, [0], config.z_dim)[0], own)
        case list():
            if len(point) != config.z_dim:
                raise _wrong(pointer, f"a z of this model has {config.z_dim} numbers")
            return Anchor(torch.tensor(point), None)


def _label(found: Projection) -> int | None:
    return None if found.labels is None else int(found.labels[0])


def _wrong(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput(detail, errors=[FieldError(pointer=pointer, detail=detail)])
