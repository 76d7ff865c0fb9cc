"""Items -> pixels, by Ray Data, in order.

The tasks read the spool, so they run on this node; they ask Ray for no CPU, because the job's
lease already holds one (a task that asked for another would wait for ever on a full cluster). Only
`NUM_DECODERS` run at a time, and only a few blocks wait in the object store.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.data

from shared import decoding
from shared.errors import UnsafeImage
from shared.niceness import yield_to_requests
from workers.jobs.ingest.spool import Item

NUM_DECODERS = 2  # one decodes while the other's block is moved
BLOCK_BYTES = 8 * 2**20  # of pixels
MAX_BLOCK_ITEMS = 1024
MAX_STORE_BYTES = 256 * 2**20  # of Ray's object store


def decoded(
    items: list[Item], spool: Path, *, size: int, channels: int, fit: decoding.Fit
) -> Iterator[pa.Table]:
    """Blocks in the items' order, with columns `path`, `label`, `text`, `image` (raw pixels; null
    where it was refused), `digest` (sha256 of the pixels) and `reason` (why it was refused)."""
    if not items:
        return
    rows = min(MAX_BLOCK_ITEMS, max(1, BLOCK_BYTES // (size * size * channels)))
    blocks = [_table(items[start : start + rows]) for start in range(0, len(items), rows)]
    _set_up_ray()
    # Not from_arrow: to look at the blocks, it runs a task that asks for a CPU.
    dataset = ray.data.from_blocks(blocks).map_batches(
        decode_block,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"spool": str(spool), "size": size, "channels": channels, "fit": fit},
        num_cpus=0,
        compute=ray.data.TaskPoolStrategy(size=min(NUM_DECODERS, len(blocks))),
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def decode_block(
    block: pa.Table, *, spool: str, size: int, channels: int, fit: decoding.Fit
) -> pa.Table:
    """One block of items, decoded: what a task of Ray Data does."""
    yield_to_requests()
    images: list[bytes | None] = []
    digests: list[bytes | None] = []
    reasons: list[str | None] = []
    with Path(spool).open("rb") as file:
        for row in block.select(["offset", "length", "shape"]).to_pylist():
            file.seek(row["offset"])
            data = file.read(row["length"])
            try:
                if row["shape"]:
                    raw = np.frombuffer(data, np.uint8).reshape(row["shape"])
                    pixels = decoding.resize(raw, size=size, channels=channels, fit=fit)
                else:
                    pixels = decoding.decode(data, size=size, channels=channels, fit=fit)
            except UnsafeImage as error:
                images.append(None)
                digests.append(None)
                reasons.append(error.detail)
                continue
            image = pixels.tobytes()
            images.append(image)
            digests.append(hashlib.sha256(image).digest())
            reasons.append(None)
    return (
        block.select(["path", "label", "text"])
        .append_column("image", pa.array(images, pa.binary()))
        .append_column("digest", pa.array(digests, pa.binary()))
        .append_column("reason", pa.array(reasons, pa.string()))
    )


def _table(items: list[Item]) -> pa.Table:
    return pa.table(
        {
            "path": pa.array([item.path for item in items], pa.string()),
            "offset": pa.array([item.extent.offset for item in items], pa.int64()),
            "length": pa.array([item.extent.length for item in items], pa.int64()),
            "shape": pa.array([item.shape for item in items], pa.list_(pa.int32())),
            "label": pa.array([item.label for item in items], pa.int32()),
            "text": pa.array([item.text for item in items], pa.string()),
        }
    )


def _set_up_ray() -> None:
    """Connect this process, and set Ray Data up: in order, within a bounded store, in silence."""
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=MAX_STORE_BYTES
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
