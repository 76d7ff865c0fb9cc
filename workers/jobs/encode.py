"""An encode job: for each of a dataset's pictures the z of which a published model draws it best.

Which pictures, and what the search starts from, is drawn from the spec's seed: the same job finds
the same z.
"""

from __future__ import annotations

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from shared.images import Pixels, encode, grid
from shared.networks import snapshot
from shared.networks.generators import Generator
from shared.networks.projection import Projection, check_projectable, project
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
NUM_SHOWN = 4 * AT_ONCE
COLUMNS = 8
"""Of the grid, whose pictures stand in pairs."""


def run(context: AttemptContext) -> End:
    """Project the pictures of the job's spec; the result says where they lie and how near they are.

    `latents.safetensors` of the attempt holds, in the order of the search, `rows` int64 [n] (of the
    dataset), `z` [n, z_dim], `errors` [n] (see `Projection`) and, with classes, `labels` int64 [n].

    Raises:
        NotFound: the model or the dataset is gone.
        InvalidInput: the model draws from text, or the dataset's pictures have another form.
    """
    deterministic_cpu()
    yield_to_requests()
    spec = EncodeSpec.model_validate(context.job.spec)

    # Read the model and the pictures.
    registry = Registry(context.store)
    name, version = registry.resolve(spec.model)
    card = registry.card(name, version)
    generator = snapshot.load(*registry.snapshot(name, version))
    check_projectable(generator)
    manifest = datasets.manifest(context.store, spec.dataset, spec.dataset_version)
    everything = load_fitting(context.store, manifest, like=card)
    rows = order(everything, spec.seed)[: spec.n]
    pictures = taken(everything, rows)
    known = _classes(generator, pictures)

    # Look for each picture's z.
    found, drawn = [], []
    for start in range(0, len(rows), AT_ONCE):
        here = slice(start, start + AT_ONCE)
        part = project(
            generator,
            pictures.images[here],
            seed=spec.seed,
            labels=None if known is None else known[here],
            on_step=context.check_stop,
        )
        found.append(_tensors(part))
        if start < NUM_SHOWN:
            drawn.append(part.pictures)
        context.progress(Progress(done=min(here.stop, len(rows)), of=len(rows)))

    # Keep them, and show the first beside what they were to be.
    latents = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    latents["rows"] = rows
    key = keys.latents(context.job.id, context.token)
    context.store.put(key, safetensors.torch.save(latents))
    _show(context, pictures.images[:NUM_SHOWN], np.concatenate(drawn))
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


def _tensors(part: Projection) -> dict[str, Tensor]:
    """What is kept, by the names of the file."""
    known = {} if part.labels is None else {"labels": part.labels}
    return {"z": part.z, "errors": part.errors} | known


def _show(context: AttemptContext, targets: Tensor, drawn: Pixels) -> None:
    """A grid of pictures, uint8 [n, C, H, W], each left of what the model draws for it (uint8
    [n, H, W, C]), as a sample."""
    pairs = np.stack([targets.permute(0, 2, 3, 1).numpy(), drawn], axis=1)
    picture = encode(grid(pairs.reshape(-1, *drawn.shape[1:]), columns=COLUMNS), "webp")
    key = keys.latents_grid(context.job.id, context.token)
    context.store.put(key, picture, content_type="image/webp")
    path = key.removeprefix(keys.run_prefix(context.job.id))
    context.report(EventType.SAMPLE, {"key": key, "path": path})
