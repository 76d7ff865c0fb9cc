"""Pictures as the body of an answer, in each format. Who asked, and over what, is not known here.

One picture as png or webp is the file itself; several are a zip of files, named by their index.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared.images import MEDIA_TYPES, ImageFormat, Pixels, encode, grid
from shared.schemas.models import ModelCard

Format = Literal["png", "webp", "grid", "npy", "json"]

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every file in a zip (the first that the format knows): same pictures, same bytes."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where pictures come from: with it anyone can make them again."""

    model: str
    version: int
    job_id: str
    seed: int | None
    """None: the caller brought z."""

    @classmethod
    def of(cls, card: ModelCard, seed: int | None) -> Origin:
        """That of pictures by this version of a model."""
        return cls(card.model, card.version, card.job_id, seed)

    def headers(self) -> dict[str, str]:
        seed = {} if self.seed is None else {"X-Elmyr-Seed": str(self.seed)}
        return {
            "X-Elmyr-Model": self.model,
            "X-Elmyr-Version": str(self.version),
            "X-Elmyr-Job": self.job_id,
        } | seed


def body(format: Format, pixels: Pixels, origin: Origin) -> bytes:
    """The pictures [n, H, W, C] in one body."""
    return _BODIES[format](pixels, origin)


def media_type(format: Format, num_images: int) -> str:
    """What `body` gives for so many pictures."""
    if format in MEDIA_TYPES and num_images > 1:
        return "application/zip"
    return _MEDIA_TYPES[format]


def zipped(pixels: Pixels, format: ImageFormat, *, start: int = 0) -> bytes:
    """A zip of files `0000000.png` and on, stored as they are: they are compressed already.

    `start` is the index of the first. The same pictures give the same bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index, picture in enumerate(pixels, start):
            entry = zipfile.ZipInfo(f"{index:07d}.{format}", ZIP_EPOCH)
            archive.writestr(entry, encode(picture, format))
    return buffer.getvalue()


def _files(format: ImageFormat) -> Callable[[Pixels, Origin], bytes]:
    def files(pixels: Pixels, origin: Origin) -> bytes:
        del origin
        return encode(pixels[0], format) if len(pixels) == 1 else zipped(pixels, format)

    return files


def _grid(pixels: Pixels, origin: Origin) -> bytes:
    del origin
    return encode(grid(pixels))


def _npy(pixels: Pixels, origin: Origin) -> bytes:
    """uint8 [n, H, W, C], for numpy.load."""
    del origin
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def _json(pixels: Pixels, origin: Origin) -> bytes:
    """The pictures as PNG in base64, and where they come from."""
    content = {
        "model": origin.model,
        "version": origin.version,
        "job_id": origin.job_id,
        "seed": origin.seed,
        "images": [base64.b64encode(encode(picture)).decode() for picture in pixels],
    }
    return json.dumps(content).encode()


_BODIES: Mapping[Format, Callable[[Pixels, Origin], bytes]] = {
    "png": _files("png"),
    "webp": _files("webp"),
    "grid": _grid,
    "npy": _npy,
    "json": _json,
}

_MEDIA_TYPES: Mapping[Format, str] = {
    "png": MEDIA_TYPES["png"],
    "webp": MEDIA_TYPES["webp"],
    "grid": "image/png",
    "npy": "application/x-npy",
    "json": "application/json",
}
