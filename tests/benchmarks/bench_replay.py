"""Does the lecture's repository help, and does D forget without it?

    .venv/bin/python -m tests.benchmarks.bench_replay [SEED ...]

The lecture's GAN on Fashion-MNIST at 32 px, 300 kimg, with the repository of 200 (100 kept, 100
new), with one that changes slowly (190 kept, 10 of the 100 new), and without it (200 new fakes a
round): equally many reals, fakes and steps. One thread a run, two runs at a time. `known` is how
well the D of the end still tells reals from fakes that G made when the run was so many kimg old:
the share of pairs of a real and a fake whose logits are in the right order (0.5: it knows nothing
of them any more).
"""

from __future__ import annotations

import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shared.schemas.presets import resolve_preset
from tests.benchmarks.table import print_table
from tests.benchmarks.trainings import NUM_CLASSES, SIZE, fetched, load_yardstick, yardstick_arrays
from workers.evaluation.distances import frechet_distance, manifolds
from workers.evaluation.yardstick import train_yardstick
from workers.jobs.evaluate import draw
from workers.recipes.gan import Gan
from workers.training.data import TrainingData
from workers.training.loop import deterministic_cpu
from workers.training.ranks import Ranks
from workers.training.reals import to_float

SEEDS = (21, 22, 23, 24, 25)
KIMG = 300.0
AGES = (30, 75, 150, 225, 270)
N, NUM_OLD = 10_000, 500
WAYS: dict[str, dict[str, Any]] = {
    "with": {},
    "slow": {"replay": {"num_new": 10}},
    "without": {"replay": {"enabled": False}, "num_generated": 200},
}


def run(
    case: tuple[str, int], seen: TrainingData, reference: TrainingData, weights: dict[str, Any]
) -> list[str]:
    """One training, its distance and coverage, and how well D knows old fakes."""
    way, seed = case
    deterministic_cpu()
    config = resolve_preset(
        "lecture", size=SIZE, channels=1, num_classes=NUM_CLASSES,
        overrides={"seed": seed, "kimg": KIMG, **WAYS[way]},
    )  # fmt: skip
    recipe = Gan(config, seen, Ranks())
    for _ in recipe.bootstrap():
        pass
    old: dict[int, Tensor] = {}
    num_steps = round(KIMG * 1000 / recipe.images_per_step)
    for step in range(num_steps):
        recipe.step(step, step / num_steps)
        kimg = (step + 1) * recipe.images_per_step / 1000
        for age in AGES:
            if kimg >= age and age not in old:
                old[age] = draw(recipe.settled(), NUM_OLD, seed, lambda: None)[0]
    yardstick = load_yardstick(weights)
    pictures, _ = draw(recipe.settled(), N, seed, lambda: None)
    real, fake = yardstick.read(reference.images)[0], yardstick.read(pictures)[0]
    near = manifolds(real[:5000], fake[:5000])
    with torch.no_grad():
        on_reals = recipe.D(to_float(reference.images[:NUM_OLD]))
        known = [ordered(on_reals, recipe.D(to_float(old[age]))) for age in AGES]
    return [
        way, str(seed), f"{frechet_distance(real, fake):.1f}", f"{near.recall:.3f}",
        f"{near.coverage:.3f}", *(f"{share:.3f}" for share in known),
    ]  # fmt: skip


def ordered(reals: Tensor, fakes: Tensor) -> float:
    """The share of pairs of a real and a fake whose logits are in the right order."""
    return (reals[:, None] > fakes[None, :]).float().mean().item()


def main() -> None:
    """Print a line for each run, then the means of each way."""
    deterministic_cpu()
    seen, reference = fetched()
    weights = yardstick_arrays(train_yardstick(seen, NUM_CLASSES, seed=0, on_step=lambda: None))
    cases = [(way, seed) for seed in map(int, sys.argv[1:] or SEEDS) for way in WAYS]
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(partial(run, seen=seen, reference=reference, weights=weights), cases))
    for way in WAYS:
        columns = zip(*(row[2:] for row in rows if row[0] == way), strict=True)
        rows.append([way, "mean", *(f"{statistics.mean(map(float, c)):.3f}" for c in columns)])
    print_table(
        ["repository", "seed", "distance", "recall", "coverage", *(f"known {a}" for a in AGES)],
        rows,
    )


if __name__ == "__main__":
    main()
