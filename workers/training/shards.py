"""One shard of a dataset: pictures, labels and captions to and from the bytes of a Parquet file.

Columns: `image` (raw uint8, HxWxC), `label` (int32, -1 = none), `text` (string or null). Where a
shard lies and whether its bytes are the right ones is not known here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shared.errors import CorruptObject
from shared.images import Pixels

NO_LABEL = -1

SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("text", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class ShardData:
    """`images` uint8 [n, H, W, C], `labels` int32 [n], `texts` [n] (None = no caption)."""

    images: Pixels
    labels: NDArray[np.int32]
    texts: list[str | None]


def encode(shard: ShardData) -> bytes:
    """The shard as a Parquet file. The same shard gives the same bytes."""
    n = len(shard.images)
    pixels = np.ascontiguousarray(shard.images).reshape(n, -1)
    offsets = np.arange(n + 1, dtype=np.int32) * pixels.shape[1]
    image = pa.Array.from_buffers(
        pa.binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(pixels)]
    )
    label = pa.array(shard.labels, pa.int32())
    table = pa.Table.from_arrays([image, label, pa.array(shard.texts, pa.string())], schema=SCHEMA)
    buffer = io.BytesIO()
    # No statistics and no dictionary: on raw pixels they cost time and space and find nothing.
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False, write_statistics=False)
    return buffer.getvalue()


def decode(data: bytes, *, size: int, channels: int) -> ShardData:
    """A shard of pictures of `size` x `size` x `channels`.

    Raises CorruptObject: the bytes are not such a shard.
    """
    try:
        table = pq.read_table(io.BytesIO(data)).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise CorruptObject(f"a shard is not a Parquet file: {error}") from error
    if not table.schema.equals(SCHEMA):
        raise CorruptObject(f"a shard has the columns {table.schema.to_string()!r}")
    image = table["image"].combine_chunks()
    if not len(image):
        raise CorruptObject("a shard is empty")
    _, offsets, pixels = image.buffers()
    starts = np.frombuffer(offsets, np.int32)[image.offset : image.offset + len(image) + 1]
    if (np.diff(starts) != size * size * channels).any():
        raise CorruptObject(f"a shard holds images that are not {size} x {size} x {channels}")
    flat = np.frombuffer(pixels, np.uint8)[starts[0] : starts[-1]]
    return ShardData(
        images=flat.reshape(len(image), size, size, channels),
        labels=table["label"].to_numpy(),
        texts=table["text"].to_pylist(),
    )
