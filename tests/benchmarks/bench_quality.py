"""How good `modern-conditional` is after so many seconds on two cores, against test pictures.

    .venv/bin/python -m tests.benchmarks.bench_quality [SEED ...]

Fashion-MNIST at 32 px; two workers of one thread. The seconds are those of the training alone. Each
score stands between that of real training pictures (floor) and of noise (ceiling), in the features
of the yardstick. The worst of the seeds counts. `lecture` runs beside it for the same time.
"""

from __future__ import annotations

import sys

from shared.schemas.presets import resolve_preset
from shared.schemas.scores import Score
from tests.benchmarks.table import print_table
from tests.benchmarks.trainings import NUM_CLASSES, SIZE, fetched, train_whole
from workers.evaluation.scoring import classification_accuracy, scores_of
from workers.evaluation.yardstick import train_yardstick
from workers.jobs.evaluate import draw
from workers.training.data import TrainingData
from workers.training.loop import deterministic_cpu

SEEDS = (31, 32, 33)
N = 10_000
RUNS = (("modern-conditional", 250.0), ("modern-conditional", 520.0), ("lecture", 800.0))
"""Presets, and kimg that take about 150 s and 300 s."""
SHOWN = (
    *("frechet_distance", "kernel_distance", "recall", "coverage", "precision", "density"),
    *("label_agreement", "class_entropy", "nearest_ratio", "classification_accuracy"),
)


def main() -> None:
    """Print a line for each run, then floor and ceiling."""
    deterministic_cpu()
    seen, reference = fetched()
    yardstick = train_yardstick(seen, NUM_CLASSES, seed=0, on_step=lambda: None)
    rows: list[list[str]] = []
    between: dict[str, Score] = {}
    for preset, kimg in RUNS:
        for seed in map(int, sys.argv[1:] or SEEDS):
            config = resolve_preset(
                preset,
                size=SIZE,
                channels=1,
                num_classes=NUM_CLASSES,
                overrides={"seed": seed, "kimg": kimg},
                workers=2,
            )
            run = train_whole(config, seen, workers=2)
            learns = kimg == RUNS[1][1]
            n = len(seen.images) if learns else N
            pictures, labels = draw(run.generator, n, seed, lambda: None)
            scores = scores_of(
                pictures[:N], None if labels is None else labels[:N],
                seen=seen, reference=reference, yardstick=yardstick, seed=seed,
            )  # fmt: skip
            if learns and labels is not None:
                learned = train_yardstick(
                    TrainingData(pictures, labels, None), NUM_CLASSES, seed=0, on_step=lambda: None
                )
                scores["classification_accuracy"] = classification_accuracy(
                    learned, yardstick=yardstick, reference=reference
                )
            between |= scores
            rows.append(_row(preset, f"{kimg:g}", str(seed), f"{run.seconds:.0f}", scores, "value"))
            sys.stderr.write(f"{rows[-1]}\n")
    for which in ("floor", "ceiling"):
        rows.append(_row(which, "", "", "", between, which))
    print_table(["preset", "kimg", "seed", "s", *SHOWN], rows)


def _row(
    preset: str, kimg: str, seed: str, seconds: str, scores: dict[str, Score], which: str
) -> list[str]:
    values = (f"{getattr(scores[name], which):.3f}" if name in scores else "" for name in SHOWN)
    return [preset, kimg, seed, seconds, *values]


if __name__ == "__main__":
    main()
