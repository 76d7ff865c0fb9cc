"""Decoded blocks -> shards on disk, the digest that names the version, and its manifest.

Duplicates (the same pixels) are dropped here: the first stays. Shards wait on disk, because their
keys hold the version, and that is known only at the end.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shared.clock import now
from shared.errors import NotFound
from shared.schemas.datasets import DatasetManifest, Shard
from shared.schemas.specs import IngestSpec
from shared.storage import datasets, keys
from shared.storage.objects import ObjectStore
from workers.jobs.ingest.spool import Refusals
from workers.training import shards
from workers.training.shards import ShardData

SHARD_IMAGES = 65_536
SHARD_BYTES = 32 * 2**20  # of pixels and captions; object storage hands out at most 64 MiB at once


class VersionBuilder:
    """One dataset version in the making: blocks are added in order."""

    def __init__(self, folder: Path, *, size: int, channels: int, class_names: list[str]) -> None:
        self.size = size
        self.channels = channels
        self.class_names = class_names
        self.num_images = 0
        self.num_duplicates = 0
        self.has_captions = False
        self._folder = folder
        self._files: list[tuple[Path, int]] = []
        self._seen: set[bytes] = set()
        self._counts: Counter[int] = Counter()
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        layout = {"size": size, "channels": channels, "class_names": class_names}
        self._digest = hashlib.sha256(json.dumps(layout, sort_keys=True).encode())

    def add(self, block: pa.Table, refusals: Refusals) -> None:
        """Take the images of one decoded block (see pipeline.decoded)."""
        for row in block.to_pylist():
            if row["image"] is None:
                refusals.add(row["path"], row["reason"])
            elif row["digest"] in self._seen:
                self.num_duplicates += 1
            else:
                self._take(row)

    def _take(self, row: dict[str, Any]) -> None:
        text = None if row["text"] is None else row["text"].encode()
        self._seen.add(row["digest"])
        # The length keeps two captions from reading as one; -1 is no caption.
        self._digest.update(row["digest"])
        self._digest.update(struct.pack("<iq", row["label"], -1 if text is None else len(text)))
        self._digest.update(text or b"")
        self._counts[row["label"]] += 1
        self.num_images += 1
        self.has_captions |= text is not None
        self._pending.append(row)
        self._pending_bytes += len(row["image"]) + len(text or b"")
        if self._pending_bytes >= SHARD_BYTES or len(self._pending) == SHARD_IMAGES:
            self._write_shard()

    def publish(self, store: ObjectStore, spec: IngestSpec, refusals: Refusals) -> DatasetManifest:
        """Put the shards and the manifest into the store and make the version the newest.

        The same content gives the same version: if it exists, it only becomes the newest again.
        """
        if self._pending:
            self._write_shard()
        version = self._digest.hexdigest()
        try:
            manifest = datasets.manifest(store, spec.dataset, version)
        except NotFound:
            manifest = DatasetManifest(
                name=spec.dataset,
                version=version,
                size=self.size,
                channels=self.channels,
                num_images=self.num_images,
                num_classes=len(self.class_names),
                class_names=self.class_names,
                class_counts=[self._counts[i] for i in range(len(self.class_names))],
                has_captions=self.has_captions,
                shards=self._upload(store, spec.dataset, version),
                num_duplicates=self.num_duplicates,
                num_refused=refusals.count,
                refused=refusals.listed,
                source=spec.source or spec.filename,
                created_at=now(),
            )
        datasets.publish(store, manifest)
        return manifest

    def _write_shard(self) -> None:
        rows, self._pending, self._pending_bytes = self._pending, [], 0
        pixels = np.frombuffer(b"".join(row["image"] for row in rows), np.uint8)
        data = shards.encode(
            ShardData(
                images=pixels.reshape(len(rows), self.size, self.size, self.channels),
                labels=np.array([row["label"] for row in rows], np.int32),
                texts=[row["text"] for row in rows],
            )
        )
        path = self._folder / f"part-{len(self._files):05d}.parquet"
        path.write_bytes(data)
        self._files.append((path, len(rows)))

    def _upload(self, store: ObjectStore, name: str, version: str) -> list[Shard]:
        uploaded = []
        for index, (path, num_images) in enumerate(self._files):
            data = path.read_bytes()
            key = keys.dataset_shard(name, version, index)
            store.put(key, data)
            uploaded.append(
                Shard(
                    key=key,
                    bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    num_images=num_images,
                )
            )
        return uploaded
