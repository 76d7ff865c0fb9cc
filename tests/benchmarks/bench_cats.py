"""Few pictures: `modern` with adaptive augmentation on CIFAR-10's 5,000 cats, against 1,000 others.

    .venv/bin/python -m tests.benchmarks.bench_cats [SEED [KIMG [FILE]]]

32 px, two workers of one thread; 2,000 kimg take 20 minutes. The last grid goes to FILE. Each score
stands between that of real training pictures (floor) and of noise (ceiling), in the features of a
yardstick of all ten classes. `nearest_ratio` tells memorising: how near fakes are to the training
pictures, over how near other real ones are.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from services.local import sources
from shared import idx
from shared.images import encode, grid
from shared.schemas.presets import resolve_preset
from tests.benchmarks.table import print_table
from tests.benchmarks.trainings import NUM_CLASSES, SIZE, train_whole
from workers.evaluation.scoring import scores_of
from workers.evaluation.yardstick import train_yardstick
from workers.jobs.evaluate import draw
from workers.recipes.gan import GRID_COLUMNS
from workers.training.data import TrainingData
from workers.training.loop import Grid, deterministic_cpu

CAT = 3
SEED, KIMG, FILE = "0", "2000", "cats.png"
FEW_PICTURES = {"augment": {"p": 0.5, "target": 0.6, "flip": True}}
SHOWN = ("frechet_distance", "kernel_distance", "recall", "coverage", "nearest_ratio")


def main() -> None:
    """Train, write the grid, print the scores, floor and ceiling."""
    given = sys.argv[1:]
    seed, kimg, file = (*given, *(SEED, KIMG, FILE)[len(given) :])
    deterministic_cpu()
    with tempfile.TemporaryDirectory() as scratch:
        folder = sources.fetch("cifar10", Path(scratch)).path
        train, test = pictures(folder, "train"), pictures(folder, "test")
    yardstick = train_yardstick(train, NUM_CLASSES, seed=0, on_step=lambda: None)
    seen, reference = cats(train), cats(test)
    config = resolve_preset(
        "modern",
        size=SIZE,
        channels=3,
        num_classes=0,
        overrides={"seed": int(seed), "kimg": float(kimg), **FEW_PICTURES},
        workers=2,
    )
    run = train_whole(config, seen, workers=2)
    last = [report for report in run.reports if isinstance(report, Grid)][-1]
    Path(file).write_bytes(encode(grid(last.images, columns=GRID_COLUMNS)))
    drawn, _ = draw(run.generator, len(seen.images), int(seed), lambda: None)
    scores = scores_of(
        drawn, None, seen=seen, reference=reference, yardstick=yardstick, seed=int(seed)
    )
    sys.stdout.write(f"{kimg} kimg, seed {seed}, {run.seconds:.0f} s\n")
    rows = [
        [name, *(f"{getattr(scores[name], which):.3f}" for which in ("value", "floor", "ceiling"))]
        for name in SHOWN
    ]
    print_table(["score", "value", "floor", "ceiling"], rows)


def pictures(folder: Path, split: str) -> TrainingData:
    """CIFAR-10's pictures of a split, with their classes."""
    images, labels = (
        torch.from_numpy(idx.decode((folder / f"{split}-{what}-ubyte").read_bytes()).copy())
        for what in ("images-idx4", "labels-idx1")
    )
    return TrainingData(images.permute(0, 3, 1, 2).contiguous(), labels.long(), None)


def cats(data: TrainingData) -> TrainingData:
    assert data.labels is not None
    return TrainingData(data.images[data.labels == CAT], None, None)


if __name__ == "__main__":
    main()
