"""Where D forgets, and what the repository does about it: the lecture's A, B, A cycle.

    .venv/bin/python -m tests.benchmarks.bench_forgetting [SEED ...]

The lecture's D on Fashion-MNIST at 32 px sees fakes of a G that draws perfect trousers and nothing
else (A: real ones) for some rounds, then perfect ankle boots (B) for as many, then A again, 256
rounds in all: a G that hops from mode to mode. With the repository (100 kept, 100 new), without it
(200 new), and with one that changes slowly (190 kept, 10 new): 200 fakes a round each. Columns are
rounds from hop to hop. A cell is how well D tells the kind that it has *not* seen as fakes since
from real pictures of the other kinds, at the end of each stretch of the second half: the share of
pairs whose logits are in the right order. Below 0.5 it takes the old fakes for more real than
reals, and G may hop back.
"""

from __future__ import annotations

import statistics
import sys

import torch
from torch import Tensor

from shared.schemas.presets import resolve_preset
from shared.schemas.recipes import GanConfig
from tests.benchmarks.bench_replay import WAYS as TWO_WAYS
from tests.benchmarks.bench_replay import ordered
from tests.benchmarks.table import print_table
from tests.benchmarks.trainings import NUM_CLASSES, SIZE, fetched
from workers.recipes.gan import Gan
from workers.training.data import TrainingData
from workers.training.loop import deterministic_cpu
from workers.training.ranks import Ranks
from workers.training.reals import to_float
from workers.training.replay import Fakes

SEEDS = (41, 42, 43)
STRETCHES = (4, 16, 32)
ROUNDS = 256
KINDS = (1, 9)
WAYS = {**TWO_WAYS, "slow": {"replay": {"num_new": 10}}}
HELD_OUT = 500


def known(config: GanConfig, stretch: int, seen: TrainingData, reference: TrainingData) -> float:
    """What D still knows of the kind that it has not been shown for `stretch` rounds."""
    recipe = Gan(config, seen, Ranks())
    for _ in recipe.bootstrap():
        pass
    pools = [of_kind(seen, kind) for kind in KINDS]
    shown = [to_float(of_kind(reference, kind)[:HELD_OUT]) for kind in range(NUM_CLASSES)]
    others = torch.cat([shown[kind] for kind in range(NUM_CLASSES) if kind not in KINDS])
    choice = torch.Generator().manual_seed(config.seed)
    n, answers = config.num_generated, []
    for step in range(ROUNDS):
        now = step // stretch % 2
        pixels = pools[now][torch.randint(len(pools[now]), (n,), generator=choice)]
        zeros = torch.zeros(n, dtype=torch.int64)
        fakes = Fakes(pixels, zeros, torch.full_like(zeros, step), torch.zeros(n))
        if recipe.replay:
            new = Fakes(*(tensor[: config.replay.num_new] for tensor in vars(fakes).values()))
            fakes = recipe.replay.add(new, step)
        recipe._train_d(*recipe._reals.of(step), fakes, step=step, progress=0.0)
        if (step + 1) % stretch == 0 and step >= ROUNDS // 2:
            with torch.no_grad():
                absent = recipe.D(shown[KINDS[1 - now]])
                answers.append(ordered(recipe.D(others), absent))
    return statistics.mean(answers)


def of_kind(data: TrainingData, kind: int) -> Tensor:
    assert data.labels is not None
    return data.images[data.labels == kind]


def main() -> None:
    """Print a line for each run, then the means of each way."""
    deterministic_cpu()
    seen, reference = fetched()
    rows = []
    for seed in map(int, sys.argv[1:] or SEEDS):
        for way, overrides in WAYS.items():
            config = resolve_preset(
                "lecture", size=SIZE, channels=1, num_classes=NUM_CLASSES,
                overrides={"seed": seed, **overrides},
            )  # fmt: skip
            shares = [known(config, stretch, seen, reference) for stretch in STRETCHES]
            rows.append([way, str(seed), *(f"{share:.3f}" for share in shares)])
            sys.stderr.write(f"{rows[-1]}\n")
    for way in WAYS:
        columns = zip(*(row[2:] for row in rows if row[0] == way), strict=True)
        rows.append([way, "mean", *(f"{statistics.mean(map(float, c)):.3f}" for c in columns)])
    print_table(["repository", "seed", *map(str, STRETCHES)], rows)


if __name__ == "__main__":
    main()
