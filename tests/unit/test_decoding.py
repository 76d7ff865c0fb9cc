"""One image file in, pixels out: every mode is handled, every limit holds."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.decoding import ImageHeader, decode, read_header, resize
from shared.errors import UnsafeImage
from tests.uploads import picture, png_header, saved


def frames(format: str, **options: Any) -> bytes:
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    buffer = io.BytesIO()
    first.save(buffer, format, save_all=True, append_images=[second], **options)
    return buffer.getvalue()


def of_mode(mode: str, colour: Any, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (16, 16), colour).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_pixels_of_the_right_size_stay_as_they_are(format: str, fit: Any, channels: int) -> None:
    pixels = picture(1, channels=channels)
    options = {"lossless": True} if format == "WEBP" else {}

    decoded = decode(saved(pixels, format, **options), size=16, channels=channels, fit=fit)

    assert (decoded == pixels).all()
    assert (resize(pixels, size=16, channels=channels, fit=fit) == pixels).all()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (of_mode("1", 1), [255, 255, 255]),
        (of_mode("L", 90), [90, 90, 90]),
        (of_mode("I;16", 0x5AFF), [0x5A, 0x5A, 0x5A]),
        (of_mode("RGB", (10, 20, 30)), [10, 20, 30]),
        (of_mode("P", 0), [0, 0, 0]),
        (of_mode("P", 0, transparency=0), [255, 255, 255]),
        (of_mode("L", 7, transparency=7), [255, 255, 255]),
        (of_mode("RGB", (1, 2, 3), transparency=(1, 2, 3)), [255, 255, 255]),
        (of_mode("LA", (0, 0)), [255, 255, 255]),
        (of_mode("RGBA", (0, 100, 200, 255)), [0, 100, 200]),
        (of_mode("RGBA", (0, 0, 0, 51)), [204, 204, 204]),
        (of_mode("RGBA", (9, 9, 9, 0), "WEBP", lossless=True), [255, 255, 255]),
        (of_mode("CMYK", (0, 255, 255, 0), "JPEG", quality=100), [255, 0, 0]),
    ],
)
def test_every_mode_becomes_colour(data: bytes, expected: list[int]) -> None:
    decoded = decode(data, size=8, channels=3, fit="crop")

    assert np.abs(decoded.astype(int) - expected).max() <= 2


def test_colour_becomes_grey() -> None:
    decoded = decode(of_mode("RGB", (255, 0, 0)), size=8, channels=1, fit="crop")

    assert decoded.shape == (8, 8, 1)
    assert decoded[0, 0, 0] == 76  # ITU-R 601: 0.299 of red


def test_crop_takes_the_middle_and_pad_keeps_all() -> None:
    wide = np.zeros((8, 24, 1), np.uint8)
    wide[:, 8:16] = 255

    assert (resize(wide, size=8, channels=1, fit="crop") == 255).all()
    padded = resize(wide, size=24, channels=1, fit="pad")
    assert padded[:, :, 0].astype(int).sum() == 64 * 255
    assert (padded[8:16, 8:16] == 255).all()


def test_a_small_image_is_padded_not_enlarged() -> None:
    padded = resize(np.full((28, 28), 9, np.uint8), size=32, channels=1, fit="pad")

    assert (padded[2:30, 2:30] == 9).all()
    assert padded.astype(int).sum() == 9 * 28 * 28


def test_the_exif_orientation_is_honoured() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down

    decoded = decode(saved(pixels, "JPEG", exif=exif), size=16, channels=3, fit="crop")

    assert decoded[:7].max() < 20
    assert decoded[9:].min() > 235


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        (saved(picture(1), "BMP"), "cannot be decoded"),
        (saved(picture(1), "TIFF"), "cannot be decoded"),
        (frames("GIF"), "cannot be decoded"),
        (frames("PNG"), "2 frames"),
        (frames("WEBP"), "2 frames"),
        (saved(picture(1, size=64), "PNG")[:3000], "cannot be decoded"),
        (saved(picture(1, size=64), "JPEG")[:1500], "cannot be decoded"),
        (saved(picture(1, size=64), "WEBP")[:800], "cannot be decoded"),
        (png_header(6001, 6001), "at most 36,000,000"),
        (png_header(60_000, 60_000), "cannot be decoded"),  # Pillow's own limit comes first
        (png_header(2**31 - 1, 2**31 - 1), "cannot be decoded"),
        (png_header(0, 8), "cannot be decoded"),
        (png_header(5000, 5000), "cannot be decoded"),  # allowed, but there is nothing behind it
    ],
)
def test_bad_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnsafeImage, match=reason):
        decode(data, size=16, channels=3, fit="crop")


def test_a_phone_picture_with_a_preview_behind_it_is_taken() -> None:
    decoded = decode(frames("MPO", quality=100), size=16, channels=3, fit="crop")

    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 2


def test_the_header_tells_size_and_colour() -> None:
    assert read_header(of_mode("L", 0)) == ImageHeader(16, 16, has_colour=False)
    assert read_header(of_mode("I;16", 0)) == ImageHeader(16, 16, has_colour=False)
    assert read_header(of_mode("RGB", 0, "JPEG")) == ImageHeader(16, 16, has_colour=True)
    with pytest.raises(UnsafeImage):
        read_header(png_header(6001, 6001))
