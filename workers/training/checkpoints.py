"""Checkpoints in object storage: written in the background, committed by HEAD, verified on load.

Order of a save: the blobs, then the manifest that names them with sizes and digests, then HEAD.
What HEAD does not name does not exist, and what does not match its digest is not loaded: then the
parent manifest is tried. Of a run's checkpoints the newest two and the best by score keep their
tensors, all keep their manifest and picture. Tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import safetensors.torch
import structlog
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from shared import clock
from shared.errors import CorruptObject, NotFound
from shared.images import encode, grid
from shared.schemas.recipes import Change
from shared.schemas.replays import ReplayManifest, ReplayShard
from shared.storage import documents, keys
from shared.storage.objects import ObjectStore
from shared.storage.runs import Best, Head, RunStore
from workers.training.loop import Checkpoint
from workers.training.replay import Fakes, ages

PICTURE_IMAGES = 400
"""Images of the repository that its picture shows: 20 x 20."""

log = structlog.get_logger()


class Blob(BaseModel):
    """One file of a checkpoint. `sha256` in hex."""

    key: str
    bytes: int
    sha256: str


class CheckpointManifest(BaseModel):
    """manifest.json of a checkpoint."""

    schema_version: int = 1
    job_id: str
    attempt: int
    step: int
    kimg: float
    networks: Blob
    optimizers: Blob
    replay: ReplayManifest | None
    changes: list[Change] = Field(default_factory=list)
    """What recoveries from a collapse had changed in the configuration by then."""
    lowest: dict[str, float] = Field(default_factory=dict)
    """What the watch for collapse remembered."""
    score: float | None = None
    """Frechet distance from the training pictures, where it was measured."""
    parent: str | None
    """Key of the manifest of the checkpoint before this one."""
    created_at: datetime


class CheckpointStore:
    """The checkpoints of one attempt of one job."""

    def __init__(self, store: ObjectStore, job_id: str, attempt: int) -> None:
        self._store = store
        self._runs = RunStore(store)
        self.job_id = job_id
        self._attempt = attempt

    def save(self, checkpoint: Checkpoint) -> CheckpointManifest:
        """Write a checkpoint and make it the job's newest.

        Raises:
            StaleToken: a newer attempt owns the job; what was written is garbage under our prefix.
        """
        head = self._runs.head(self.job_id)
        parent = head.checkpoint_key if head else None
        recoveries = len(checkpoint.changes)
        prefix = keys.checkpoint_prefix(self.job_id, self._attempt, checkpoint.kimg, recoveries)
        key = prefix + "manifest.json"
        if parent == key:
            # The loop stopped right behind this checkpoint, or the answer to its commit was lost.
            return documents.read(self._store, CheckpointManifest, key)
        manifest = CheckpointManifest(
            job_id=self.job_id,
            attempt=self._attempt,
            step=checkpoint.step,
            kimg=checkpoint.kimg,
            networks=self._put_tensors(prefix + "networks.safetensors", checkpoint.networks),
            optimizers=self._put_tensors(prefix + "optimizers.safetensors", checkpoint.optimizers),
            replay=self._put_replay(checkpoint) if checkpoint.replay else None,
            changes=checkpoint.changes,
            lowest=checkpoint.lowest,
            score=checkpoint.score,
            parent=parent,
            created_at=clock.now(),
        )
        body = documents.dump(manifest)
        self._store.put(key, body, content_type="application/json")
        digest = hashlib.sha256(body).hexdigest()
        was_best = head.best if head else None
        best = was_best
        if manifest.score is not None and (best is None or manifest.score < best.score):
            best = Best(checkpoint_key=key, manifest_sha256=digest, score=manifest.score)
        self._runs.commit_head(
            self.job_id,
            Head(
                token=self._attempt,
                checkpoint_key=key,
                manifest_sha256=digest,
                kimg=checkpoint.kimg,
                best=best,
            ),
        )
        if parent:
            self._free(parent, best, was_best)
        return manifest

    def _free(self, parent: str, best: Best | None, was_best: Best | None) -> None:
        """Delete the tensors that a commit has left behind: of the checkpoint before the parent,
        and of the one that was best before, unless they are the best."""
        try:
            old = {documents.read(self._store, CheckpointManifest, parent).parent}
            old |= {was_best.checkpoint_key} if was_best else set()
            for key in old - {None, parent, best.checkpoint_key if best else None}:
                assert key is not None
                self._delete_tensors(documents.read(self._store, CheckpointManifest, key))
        except (CorruptObject, NotFound) as error:  # damaged: nothing is freed
            log.warning("an old checkpoint cannot be freed", error=str(error))

    def _delete_tensors(self, manifest: CheckpointManifest) -> None:
        blobs: list[Blob | ReplayShard] = [manifest.networks, manifest.optimizers]
        for blob in blobs + list(manifest.replay.shards if manifest.replay else []):
            self._store.delete(blob.key)

    def manifest_key(self, manifest: CheckpointManifest) -> str:
        """Where a manifest lies."""
        prefix = keys.checkpoint_prefix(
            manifest.job_id, manifest.attempt, manifest.kimg, len(manifest.changes)
        )
        return prefix + "manifest.json"

    def load_newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None if there is none yet.

        Raises:
            CorruptObject: checkpoints were made, but none is whole any more.
        """
        head = self._runs.head(self.job_id)
        if head is None or head.checkpoint_key is None:
            return None
        assert head.manifest_sha256 is not None
        body = self._store.get_verified(head.checkpoint_key, sha256=head.manifest_sha256)
        manifest = documents.parse(CheckpointManifest, body, head.checkpoint_key)
        while True:
            try:
                return self._load(manifest)
            except (CorruptObject, NotFound) as error:
                if manifest.parent is None:
                    raise CorruptObject("no checkpoint of this job is whole") from error
                log.error("a checkpoint is damaged: taking the one before", error=str(error))
                manifest = documents.read(self._store, CheckpointManifest, manifest.parent)

    def load_best(self) -> Checkpoint | None:
        """The checkpoint with the lowest score; None where none was scored.

        Raises CorruptObject.
        """
        head = self._runs.head(self.job_id)
        if head is None or head.best is None:
            return None
        key = head.best.checkpoint_key
        body = self._store.get_verified(key, sha256=head.best.manifest_sha256)
        return self._load(documents.parse(CheckpointManifest, body, key))

    def _load(self, manifest: CheckpointManifest) -> Checkpoint:
        return Checkpoint(
            step=manifest.step,
            kimg=manifest.kimg,
            networks=self._get_tensors(manifest.networks),
            optimizers=self._get_tensors(manifest.optimizers),
            replay=self._get_replay(manifest.replay) if manifest.replay else None,
            changes=manifest.changes,
            lowest=manifest.lowest,
            score=manifest.score,
            final=False,
        )

    def _put_tensors(self, key: str, tensors: dict[str, Tensor]) -> Blob:
        data = safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()})
        self._store.put(key, data)
        return Blob(key=key, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _get_tensors(self, blob: Blob | ReplayShard) -> dict[str, Tensor]:
        return safetensors.torch.load(
            self._store.get_verified(blob.key, sha256=blob.sha256, num_bytes=blob.bytes)
        )

    def _put_replay(self, checkpoint: Checkpoint) -> ReplayManifest:
        fakes = checkpoint.replay
        assert fakes is not None
        round_, recoveries = checkpoint.step - 1, len(checkpoint.changes)
        where = self.job_id, self._attempt, max(round_, 0)
        key = keys.replay_shard(*where, rank=0, recoveries=recoveries)
        blob = self._put_tensors(key, vars(fakes))
        picture_key = keys.replay_picture(*where, recoveries=recoveries)
        oldest_first = torch.argsort(fakes.born, stable=True)[:PICTURE_IMAGES]
        pixels = fakes.images[oldest_first].permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self._store.put(picture_key, encode(grid(pixels), "webp"), content_type="image/webp")
        return ReplayManifest(
            round=round_,
            kimg=checkpoint.kimg,
            capacity=len(fakes.images),
            num_images=len(fakes.images),
            ages=ages(fakes.born, round_),
            shards=[ReplayShard(**blob.model_dump(), num_images=len(fakes.images))],
            picture_key=picture_key,
        )

    def _get_replay(self, manifest: ReplayManifest) -> Fakes:
        shards = [self._get_tensors(shard) for shard in manifest.shards]
        return Fakes(
            **{
                name: torch.cat([shard[name] for shard in shards])
                for name in ("images", "labels", "born", "variance")
            }
        )
