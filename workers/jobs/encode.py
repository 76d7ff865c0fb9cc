"""An encode job: for each of a dataset's pictures the z of which a published model draws it best.

Which pictures, and what the search starts from, is drawn from the spec's seed: the same job finds
the same z.
"""

from __future__ import annotations

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from shared.images import encode, grid
from shared.networks import snapshot
from shared.networks.generators import Generator
from shared.networks.projection import Projection, project
from shared.niceness import yield_to_requests
from shared.schemas.events import EventType
from shared.schemas.jobs import Outcome, Progress
from shared.schemas.specs import EncodeSpec
from shared.storage import datasets, keys
from shared.storage.registry import Registry
from workers.jobs.context import AttemptContext, End
from workers.jobs.selection import load_fitting, order, taken
from workers.training.data import TrainingData
from workers.training.loop import deterministic_cpu

AT_ONCE = 8
"""Pictures that are projected together; the next event of progress is never far."""
NUM_SHOWN = 32
COLUMNS = 8
"""Of the grid, whose pictures stand in pairs."""


def run(context: AttemptContext) -> End:
    """Project the pictures of the job's spec; the result says where they lie and how near they are.

    `latents.safetensors` of the attempt holds, in the order of the search, `rows` int64 [n] (of the
    dataset), `z` [n, z_dim], `errors` [n] (see `Projection`) and, with classes, `labels` int64 [n].

    Raises:
        NotFound: the model or the dataset is gone.
        InvalidInput: the dataset's pictures have another form than the model's.
    """
    deterministic_cpu()
    yield_to_requests()
    spec = EncodeSpec.model_validate(context.job.spec)

    # Read the model and the pictures.
    registry = Registry(context.store)
    name, version = registry.resolve(spec.model)
    card = registry.card(name, version)
    generator = snapshot.load(*registry.snapshot(name, version))
    manifest = datasets.manifest(context.store, spec.dataset, spec.dataset_version)
    everything = load_fitting(context.store, manifest, like=card)
    rows = order(everything, spec.seed)[: spec.n]
    pictures = taken(everything, rows)
    known = _classes(generator, pictures)

    # Look for each picture's z.
    found = []
    for start in range(0, len(rows), AT_ONCE):
        here = slice(start, start + AT_ONCE)
        found.append(
            project(
                generator,
                pictures.images[here],
                seed=spec.seed,
                labels=None if known is None else known[here],
                on_step=context.check_stop,
            )
        )
        context.progress(Progress(done=min(start + AT_ONCE, len(rows)), of=len(rows)))

    # Keep them, and show the first beside what they were to be.
    latents = {"rows": rows, "z": torch.cat([part.z for part in found])}
    latents["errors"] = torch.cat([part.errors for part in found])
    labels = [part.labels for part in found if part.labels is not None]
    if labels:
        latents["labels"] = torch.cat(labels)
    key = keys.latents(context.job.id, context.token)
    context.store.put(key, safetensors.torch.save(latents))
    _show(context, pictures.images, found)
    return End(
        Outcome.SUCCEEDED,
        result={
            "model": name,
            "version": version,
            "dataset": manifest.name,
            "dataset_version": manifest.version,
            "n": len(rows),
            "mean_error": latents["errors"].double().mean().item(),
            "path": key.removeprefix(keys.run_prefix(context.job.id)),
        },
    )


def _classes(generator: Generator, pictures: TrainingData) -> list[int] | None:
    """The pictures' classes, if the generator has classes and every picture has one (not -1)."""
    if not generator.config.num_classes or pictures.labels is None or pictures.labels.min() < 0:
        return None
    labels: list[int] = pictures.labels.tolist()
    return labels


def _show(context: AttemptContext, targets: Tensor, found: list[Projection]) -> None:
    """A grid of the first pictures, each left of what the model draws for it, as a sample."""
    drawn = np.concatenate([part.pictures for part in found])[:NUM_SHOWN]
    asked = targets[:NUM_SHOWN].permute(0, 2, 3, 1).numpy()
    pairs = np.stack([asked, drawn], axis=1).reshape(-1, *drawn.shape[1:])
    key = keys.latents_grid(context.job.id, context.token)
    picture = encode(grid(pairs, columns=COLUMNS), "webp")
    context.store.put(key, picture, content_type="image/webp")
    path = key.removeprefix(keys.run_prefix(context.job.id))
    context.report(EventType.SAMPLE, {"key": key, "path": path})
