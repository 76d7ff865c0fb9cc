"""One hostile image file -> pixels of the wanted size. Knows nothing of datasets.

PNG, JPEG and WebP only, one frame, and never more pixels than `MAX_PIXELS`: the header is read
before a pixel is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from shared.errors import UnsafeImage
from shared.images import Pixels

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 36_000_000  # 6,000 x 6,000: a camera's; decoded it takes 144 MB, and up to three times
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"})
DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L"})  # 16 bits of grey

Fit = Literal["crop", "pad"]


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the start of a file says."""

    width: int
    height: int
    has_colour: bool


def read_header(data: bytes) -> ImageHeader:
    """Size and colour of an image file, without decoding it. Raises UnsafeImage."""
    with _decoding(), _opened(data) as image:
        return ImageHeader(image.width, image.height, image.mode not in GREY_MODES)


def decode(data: bytes, *, size: int, channels: int, fit: Fit) -> Pixels:
    """An image file as uint8 [size, size, channels].

    Turned as its EXIF orientation says, laid over white where it is transparent, 16 bits cut to 8.

    Raises UnsafeImage: the file breaks a limit, is damaged, or is of another format.
    """
    with _decoding(), _opened(data) as image:
        # A JPEG is decoded at a half, a quarter or an eighth if that still is twice what we need.
        image.draft(None, (2 * size, 2 * size))
        image.load()
        return _fitted(ImageOps.exif_transpose(image), size, channels, fit)


def resize(pixels: Pixels, *, size: int, channels: int, fit: Fit) -> Pixels:
    """Raw pixels [H, W] or [H, W, C] as uint8 [size, size, channels]. Raises UnsafeImage."""
    raw = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    with _decoding():
        return _fitted(Image.fromarray(raw), size, channels, fit)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except UnsafeImage:
        raise
    # A decoder that is fed garbage raises whatever it stumbles over (OSError, ValueError,
    # SyntaxError, struct.error, IndexError ...). One bad file must not end the job.
    except Exception as error:
        raise UnsafeImage(f"cannot be decoded: {error or type(error).__name__}"[:200]) from error


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise UnsafeImage(
            f"{image.width} x {image.height} pixels: at most {MAX_PIXELS:,} are decoded"
        )
    # MPO is a JPEG with a preview or a depth map behind it (most phones): the first is the picture.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UnsafeImage(f"{frames} frames: only still images are taken")
    return image


def _fitted(image: Image.Image, size: int, channels: int, fit: Fit) -> Pixels:
    image = _eight_bits(image)
    square = (size, size)
    if fit == "crop":
        image = ImageOps.fit(image, square, Image.Resampling.BICUBIC)
    elif max(image.size) > size:
        image = ImageOps.contain(image, square, Image.Resampling.BICUBIC)
    if "A" in image.getbands():
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != square:
        canvas = Image.new(image.mode, square)
        canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        image = canvas
    return np.asarray(image).reshape(size, size, channels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in a mode that can be resized: 8 bits a channel, no palette."""
    if image.mode in DEEP_MODES:
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data and image.mode not in ("LA", "RGBA"):
        return image.convert("RGBA")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        return image.convert("L" if image.mode == "1" else "RGB")
    return image
