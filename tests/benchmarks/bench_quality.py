"""How good `modern-conditional` is after so many seconds on two cores, against test pictures.

    .venv/bin/python -m tests.benchmarks.bench_quality [RUN ...] [SEED ...]

Fashion-MNIST at 32 px; two workers of one thread. The seconds are those of the training alone. Each
score stands between that of real training pictures (floor) and of noise (ceiling), in the features
of the yardstick. The worst of the seeds counts. `lecture` runs beside it for about as long; its
remedies run only by name (RUNS).
"""

from __future__ import annotations

import sys
from typing import Any

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
RUNS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "modern-conditional-250": ("modern-conditional", 250.0, {}),
    "modern-conditional-520": ("modern-conditional", 520.0, {}),
    "lecture": ("lecture", 800.0, {}),
    "lecture-dropout": ("lecture", 800.0, {"discriminator": {"dropout": 0.3}}),
    "lecture-dropout-536": ("lecture", 536.0, {"discriminator": {"dropout": 0.3}}),
    "lecture-flips": ("lecture", 800.0, {"label_flip": 0.1}),
    "lecture-variance": ("lecture", 800.0, {"discriminator": {"variance_input": True}}),
    "lecture-all-three": (
        "lecture",
        800.0,
        {"discriminator": {"dropout": 0.3, "variance_input": True}, "label_flip": 0.1},
    ),
}
"""Preset, kimg, and what is overridden: about 150 s, 300 s, and for `lecture` 250 s, which with
dropout are 536 kimg."""
UNNAMED = ("modern-conditional-250", "modern-conditional-520", "lecture")
"""The runs that are made where none is named."""
CLASSIFIED = "modern-conditional-520"
"""From whose pictures a classifier learns."""
SHOWN = (
    *("frechet_distance", "kernel_distance", "recall", "coverage", "precision", "density"),
    *("label_agreement", "class_entropy", "nearest_ratio", "classification_accuracy"),
)


def main() -> None:
    """Print a line for each run, then floor and ceiling."""
    seeds = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
    names = [argument for argument in sys.argv[1:] if not argument.isdecimal()]
    if unknown := set(names) - set(RUNS):
        sys.exit(f"no such run: {', '.join(unknown)}; there are: {', '.join(RUNS)}")
    deterministic_cpu()
    seen, reference = fetched()
    yardstick = train_yardstick(seen, NUM_CLASSES, seed=0, on_step=lambda: None)
    rows: list[list[str]] = []
    between: dict[str, Score] = {}
    for name in names or UNNAMED:
        preset, kimg, overrides = RUNS[name]
        for seed in seeds or SEEDS:
            config = resolve_preset(
                preset,
                size=SIZE,
                channels=1,
                num_classes=NUM_CLASSES,
                overrides=overrides | {"seed": seed, "kimg": kimg},
                workers=2,
            )
            run = train_whole(config, seen, workers=2)
            n = len(seen.images) if name == CLASSIFIED else N
            pictures, labels = draw(run.generator, n, seed, lambda: None)
            scores = scores_of(
                pictures[:N], None if labels is None else labels[:N],
                seen=seen, reference=reference, yardstick=yardstick, seed=seed,
            )  # fmt: skip
            if name == CLASSIFIED:
                learned = train_yardstick(
                    TrainingData(pictures, labels, None), NUM_CLASSES, seed=0, on_step=lambda: None
                )
                scores["classification_accuracy"] = classification_accuracy(
                    learned, yardstick=yardstick, reference=reference
                )
            between |= scores
            rows.append(_row(name, f"{kimg:g}", str(seed), f"{run.seconds:.0f}", scores, "value"))
            sys.stderr.write(f"{rows[-1]}\n")
    for which in ("floor", "ceiling"):
        rows.append(_row(which, "", "", "", between, which))
    print_table(["run", "kimg", "seed", "s", *SHOWN], rows)


def _row(
    name: str, kimg: str, seed: str, seconds: str, scores: dict[str, Score], which: str
) -> list[str]:
    values = (f"{getattr(scores[name], which):.3f}" if name in scores else "" for name in SHOWN)
    return [name, kimg, seed, seconds, *values]


if __name__ == "__main__":
    main()
