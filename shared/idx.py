"""The IDX format of MNIST and its children: a header, then an array of bytes.

Only unsigned bytes are known here (type 0x08): pictures [N, H, W] or [N, H, W, C], labels [N].
Source: the description beside MNIST (LeCun, Cortes, Burges). A big-endian header: two zero bytes,
the type, the number of dimensions, then each dimension as 32 bits.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInput

MAGIC = b"\x00\x00\x08"  # then one byte: the number of dimensions
MAX_DIMENSIONS = 4
MAX_HEADER_BYTES = 4 + 4 * MAX_DIMENSIONS


@dataclass(frozen=True, slots=True)
class IdxHeader:
    """`shape` of the array, whose bytes start at `offset` of the file."""

    shape: tuple[int, ...]
    offset: int

    @property
    def item_bytes(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def file_bytes(self) -> int:
        return self.offset + math.prod(self.shape)


def is_idx(head: bytes) -> bool:
    """Do these first bytes start an IDX file that this module can read?"""
    return head[:3] == MAGIC and len(head) > 3 and 1 <= head[3] <= MAX_DIMENSIONS


def read_header(head: bytes) -> IdxHeader:
    """The header at the start of a file (24 bytes are enough).

    Raises InvalidInput: these are not unsigned bytes in IDX, or the header is cut short.
    """
    if not is_idx(head):
        raise InvalidInput(
            f"not an IDX file of bytes: it starts with {head[:4].hex() or 'nothing'}"
        )
    offset = 4 + 4 * head[3]
    if len(head) < offset:
        raise InvalidInput("the IDX header is cut short")
    return IdxHeader(shape=struct.unpack(f">{head[3]}I", head[4:offset]), offset=offset)


def encode(array: NDArray[np.uint8]) -> bytes:
    """An array of 1 to 4 dimensions as an IDX file."""
    header = MAGIC + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape)
    return header + array.tobytes()


def decode(data: bytes) -> NDArray[np.uint8]:
    """The array of an IDX file, read-only.

    Raises InvalidInput: see `read_header`; or the file is longer or shorter than its header says.
    """
    header = read_header(data[:MAX_HEADER_BYTES])
    if len(data) != header.file_bytes:
        raise InvalidInput(
            f"the IDX file has {len(data)} bytes, its header says {header.file_bytes}"
        )
    return np.frombuffer(data, np.uint8, offset=header.offset).reshape(header.shape)
