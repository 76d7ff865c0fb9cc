"""The yardstick of each dataset's version: trained once, kept in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

import safetensors.torch
from safetensors import SafetensorError

from shared.errors import CorruptObject, NotFound, PreconditionFailed
from shared.networks import snapshot
from shared.schemas.datasets import DatasetManifest
from shared.storage import keys
from shared.storage.objects import ObjectStore
from workers.evaluation.yardstick import VERSION, Yardstick, build_yardstick, train_yardstick
from workers.training.data import TrainingData

YARDSTICK_SEED = 0


def find_yardstick(
    store: ObjectStore, of: DatasetManifest, images: TrainingData, on_step: Callable[[], None]
) -> tuple[Yardstick, str]:
    """The yardstick of a dataset's version and the digest of its weights (hex); trained on its
    first use, then kept in the store, so that all scores on the version compare.

    Raises CorruptObject: what is kept is no yardstick of this form.
    """
    key = keys.dataset_yardstick(of.name, of.version, f"v{VERSION}-s{YARDSTICK_SEED}")
    try:
        weights = store.get(key)
    except NotFound:
        trained = train_yardstick(images, of.num_classes, seed=YARDSTICK_SEED, on_step=on_step)
        with suppress(PreconditionFailed):  # another job was faster: its weights hold
            store.put_if_absent(key, snapshot.to_bytes(trained))
        weights = store.get(key)
    yardstick = build_yardstick(size=of.size, channels=of.channels, num_classes=of.num_classes)
    try:
        yardstick.load_state_dict(safetensors.torch.load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise CorruptObject(f"{key} is no yardstick: delete it and ask again ({error})") from error
    yardstick.eval().requires_grad_(False)
    return yardstick, hashlib.sha256(weights).hexdigest()
