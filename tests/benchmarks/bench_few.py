"""Few pictures in colour: `modern-conditional` as it is, at other rates, not augmented, and with
G's side doubled in either way.

    .venv/bin/python -m tests.benchmarks.bench_few [RUN ...] [SEED ...]

3,000 drawn pictures of three classes (discs, triangles, rectangles; any colours, sizes and places),
one thread: 60 kimg at 64 px in about four minutes, 160 at 32 px in about two. Each score stands
between that of real pictures (floor) and of noise (ceiling), by a yardstick of 2,000 others.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

from shared.images import encode, grid
from shared.schemas.presets import resolve_preset
from tests.benchmarks.table import print_table
from tests.benchmarks.trainings import train_whole
from workers.evaluation.scoring import scores_of
from workers.evaluation.yardstick import train_yardstick
from workers.jobs.evaluate import draw
from workers.recipes.gan import GRID_COLUMNS
from workers.training.data import TrainingData
from workers.training.loop import Grid, deterministic_cpu

NUM_CLASSES = 3
KIMG = {64: 60.0, 32: 160.0}
"""Of a run, by the side in pixels."""
TRAINED, REFERENCE, JUDGED = (3000, 0), (1500, 1), (2000, 2)
"""How many pictures, drawn by which seed: to train on, to compare with, of the yardstick."""
CHANGES: dict[str, dict[str, Any]] = {
    "augmented": {},
    "plain": {"augment": {"p": 0.0, "target": None}},
    "transposed": {"generator": {"upsampling": "transposed"}},
    "nearest": {"generator": {"upsampling": "nearest"}},
}
RATES = (0.0015, 0.004)
RUNS = {
    f"{side}-{rate}-{what}": (side, rate, what)
    for side in KIMG
    for rate in RATES
    for what in CHANGES
}
"""The preset has 0.0015 and nearest at 64 px, 0.004 and transposed at 32, and is augmented."""
SHOWN = ("frechet_distance", "recall", "coverage", "label_agreement", "class_entropy")


def drawn(n: int, seed: int, side: int) -> TrainingData:
    """n pictures [3, side, side] with their classes, which take turns."""
    rng = np.random.default_rng(seed)
    images = np.stack([_picture(rng, i % NUM_CLASSES, side) for i in range(n)])
    labels = torch.arange(n) % NUM_CLASSES
    return TrainingData(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), labels, None)


def _picture(rng: np.random.Generator, kind: int, side: int) -> np.ndarray[Any, Any]:
    size = (80 + int(rng.integers(30)), 60 + int(rng.integers(40)))
    image = Image.new("RGB", size, _colour(rng, 180, 255))
    colour = _colour(rng, 0, 150)
    x, y = (int(place) for place in rng.integers(5, 25, 2))
    edge = int(rng.integers(20, 35))
    box = (x, y, x + edge, y + edge)
    pen = ImageDraw.Draw(image)
    if kind == 0:
        pen.ellipse(box, fill=colour)
    elif kind == 1:
        pen.polygon([(x, y + edge), (x + edge, y + edge), (x + edge // 2, y)], fill=colour)
    else:
        pen.rectangle(box, fill=colour)
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))


def _colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.integers(low, high, 3))


def main() -> None:
    """Print a line for each run, its floor and ceiling; write its last grid."""
    seeds = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()] or [1]
    names = [argument for argument in sys.argv[1:] if not argument.isdecimal()] or list(RUNS)
    deterministic_cpu()
    torch.set_num_threads(1)
    rows = []
    for name in names:
        side, rate, what = RUNS[name]
        seen, reference, judged = (drawn(n, seed, side) for n, seed in (TRAINED, REFERENCE, JUDGED))
        yardstick = train_yardstick(judged, NUM_CLASSES, seed=0, on_step=lambda: None)
        for seed in seeds:
            config = resolve_preset(
                "modern-conditional",
                size=side,
                channels=3,
                num_classes=NUM_CLASSES,
                num_images=len(seen.images),
                overrides=CHANGES[what]
                | {"optimizer_g": {"lr": rate}, "optimizer_d": {"lr": rate}}
                | {"seed": seed, "kimg": KIMG[side]},
            )
            run = train_whole(config, seen, workers=1)
            last = [report for report in run.reports if isinstance(report, Grid)][-1]
            Path(f"few-{name}-{seed}.png").write_bytes(
                encode(grid(last.images, columns=GRID_COLUMNS))
            )
            pictures, labels = draw(run.generator, len(reference.images), seed, lambda: None)
            scores = scores_of(
                pictures, labels, seen=seen, reference=reference, yardstick=yardstick, seed=seed
            )
            rows.append([name, str(seed), *(f"{scores[key].value:.3f}" for key in SHOWN)])
            sys.stderr.write(f"{rows[-1]}\n")
        for which in ("floor", "ceiling"):
            between = (f"{getattr(scores[key], which):.3f}" for key in SHOWN)
            rows.append([f"{name} {which}", "", *between])
    print_table(["run", "seed", *SHOWN], rows)


if __name__ == "__main__":
    main()
