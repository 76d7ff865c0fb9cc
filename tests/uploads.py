"""Uploads for the tests of the ingest: well-formed ones, and hostile ones."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Files = Mapping[str, bytes]


def picture(seed: int, *, size: int = 16, channels: int = 3) -> NDArray[np.uint8]:
    """Noise [size, size, channels], another one for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, channels))
    return pixels.astype(np.uint8)


def png(seed: int, *, size: int = 16, channels: int = 3) -> bytes:
    return saved(picture(seed, size=size, channels=channels), "PNG")


def saved(pixels: NDArray[Any], format: str, **options: Any) -> bytes:
    """An array as an image file."""
    grey = pixels.ndim == 3 and pixels.shape[2] == 1
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if grey else pixels).save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, with next to nothing behind its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + crc

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def zip_of(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(files: Files, packing: str = "", extra: list[tarfile.TarInfo] | None = None) -> bytes:
    """A tar; `packing` is gz, bz2, xz or nothing; `extra` are members without content."""
    buffer = io.BytesIO()
    mode: Any = f"w:{packing}"
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra or []:
            archive.addfile(member)
    return buffer.getvalue()
