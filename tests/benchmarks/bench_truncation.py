"""The truncation trick's curve of `biggan`: fidelity is bought with diversity (Brock 2018, 3.1).

    .venv/bin/python -m tests.benchmarks.bench_truncation [SEED KIMG [KEY=VALUE ...]]

Trains on Fashion-MNIST's training pictures at 32 px on one thread, then draws 10,000 pictures at
each truncation from the same seed and holds them against the test pictures, in the features of the
yardstick. Truncation 1.0 is none. Floor: real training pictures; ceiling: noise. KEY=VALUE as after
`--set`.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from services.cli.train import overrides
from shared.networks.generators import Generator
from shared.networks.sampling import sample
from shared.schemas.presets import resolve_preset
from tests.benchmarks.table import print_table
from tests.benchmarks.trainings import NUM_CLASSES, SIZE, fetched, train_whole
from workers.evaluation.measures import Read, measures
from workers.evaluation.scoring import scores_of
from workers.evaluation.yardstick import train_yardstick
from workers.training.loop import deterministic_cpu

SEED, KIMG = 0, 60
TRUNCATIONS = tuple(tenths / 10 for tenths in range(1, 11))
N, DRAWN_AT_ONCE = 10_000, 250
SHOWN = ("frechet_distance", "precision", "recall", "density", "coverage", "label_agreement")
LABELS = torch.arange(N) % NUM_CLASSES


def main() -> None:
    """Print a line for each truncation, then floor and ceiling."""
    seed, kimg = (int(value) for value in (sys.argv[1:3] or (SEED, KIMG)))
    deterministic_cpu()
    seen, reference = fetched()
    yardstick = train_yardstick(seen, NUM_CLASSES, seed=0, on_step=lambda: None)
    config = resolve_preset(
        "biggan",
        size=SIZE,
        channels=1,
        num_classes=NUM_CLASSES,
        overrides=overrides([f"seed={seed}", f"kimg={kimg}", *sys.argv[3:]]),
    )
    run = train_whole(config, seen)
    sys.stdout.write(f"biggan, seed {seed}, {kimg} kimg, {run.seconds:.0f} s\n")
    training, references = (Read.of(yardstick, data.images) for data in (seen, reference))
    rows = []
    for truncation in TRUNCATIONS:
        found = measures(
            Read.of(yardstick, _drawn(run.generator, seed, truncation)),
            LABELS,
            reference=references,
            training=training,
            num_classes=NUM_CLASSES,
        )
        rows.append([f"{truncation:g}", *(f"{found[name]:.3f}" for name in SHOWN)])
    between = scores_of(
        _drawn(run.generator, seed, 1.0), LABELS,
        seen=seen, reference=reference, yardstick=yardstick, seed=seed,
    )  # fmt: skip
    for which in ("floor", "ceiling"):
        rows.append([which, *(f"{getattr(between[name], which):.3f}" for name in SHOWN)])
    print_table(["truncation", *SHOWN], rows)


def _drawn(generator: Generator, seed: int, truncation: float) -> Tensor:
    """N pictures, uint8 [N, C, H, W], whose classes take turns."""
    batches = [
        sample(
            generator,
            seed=seed,
            indices=range(start, start + DRAWN_AT_ONCE),
            labels=LABELS[start : start + DRAWN_AT_ONCE].tolist(),
            truncation=truncation,
        )
        for start in range(0, N, DRAWN_AT_ONCE)
    ]
    return torch.from_numpy(np.concatenate(batches)).permute(0, 3, 1, 2).contiguous()


if __name__ == "__main__":
    main()
