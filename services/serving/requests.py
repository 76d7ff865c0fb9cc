"""What several endpoints' requests are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from services.serving.answers import Format
from shared.schemas.networks import Frozen
from shared.schemas.specs import Prompt

MAX_SEED = 2**32
MAX_INDEX = 2**31
MAX_Z = 100.0
"""Of an entry of a given z, in size; a normal one hardly passes 5."""

Label = int | Annotated[str, StringConstraints(max_length=200)]
"""A class by number or by name."""


class PictureRequest(Frozen):
    """How a picture shall be. Without a label or a prompt the seed chooses the class or the
    caption."""

    seed: int | None = Field(None, ge=0, lt=MAX_SEED)
    label: Label | None = None
    prompt: Prompt | None = None
    truncation: float = Field(1.0, gt=0, le=1)
    format: Format = "png"


class ImageRequest(PictureRequest):
    """Picture `index` of a seed."""

    index: int = Field(0, ge=0, lt=MAX_INDEX)


class GenerateRequest(PictureRequest):
    """Pictures 0 to n - 1 of a seed. Without a label or a prompt the classes or the captions of
    the training take turns."""

    n: int = Field(1, ge=1)
