"""Pictures: uint8 arrays [H, W, C] to and from PNG and WebP, and grids of them."""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
ImageFormat = Literal["png", "webp"]

MEDIA_TYPES: dict[ImageFormat, str] = {"png": "image/png", "webp": "image/webp"}


def encode(pixels: Pixels, format: ImageFormat = "png") -> bytes:
    """One picture [H, W, C] (C = 1 or 3) as a file, without loss.

    The same pixels give the same bytes. PNG at level 1: 32 px pictures compress to within 5 % of
    level 6 in a third of the time.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    if format == "png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def grid(images: Pixels, *, columns: int | None = None, gap: int = 2) -> Pixels:
    """Pictures [N, H, W, C] side by side, row by row, on mid grey, `gap` pixels apart.

    Without `columns` the grid is as square as it can be. Returns [H', W', C].
    """
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 128, np.uint8
    )
    for i, image in enumerate(images):
        top = gap + (i // columns) * (height + gap)
        left = gap + (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet
