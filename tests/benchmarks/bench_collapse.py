"""Collapse: is it seen, is nothing else taken for it, and is it undone?

    .venv/bin/python -m tests.benchmarks.bench_collapse [starts] [healthy] [falls]

On the 10,000 pictures that come with the repository, one thread a run, two runs at a time.

- `starts`: the lecture's GAN with N(0, 0.02) weights and eight pairs of learning rates: does not
  start, or does and falls. It is watched, and then recovered.
- `healthy`: twenty runs without a fault. An alarm here is a false one.
- `falls`: `modern-conditional`, well until 60 kimg, then a fault that lasts until the run is taken
  back: G draws one picture, four classes are lost, D learns 30 times, or both ten times as fast, a
  weight becomes NaN. The distance at the end is held against that of the same seed without a fault.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from shared.networks.layers import BatchNorm
from shared.schemas.presets import resolve_preset
from shared.schemas.recipes import Change, GanConfig
from tests.benchmarks.table import print_table
from tests.benchmarks.trainings import (
    NUM_CLASSES,
    SIZE,
    load_yardstick,
    shipped,
    yardstick_arrays,
)
from workers.evaluation.distances import frechet_distance
from workers.evaluation.yardstick import train_yardstick
from workers.jobs.evaluate import draw
from workers.recipes.gan import Gan
from workers.training.loop import Checkpoint, Collapse, Grid, Metrics, deterministic_cpu
from workers.training.ranks import Ranks
from workers.training.recovery import Hopeless, train_and_recover

FAULT_KIMG = 60.0
FALL_KIMG, START_KIMG, HEALTHY_KIMG = 100.0, 60.0, 50.0
N = 5_000
NORMAL = {"generator": {"init": "normal"}, "discriminator": {"init": "normal"}}
RATES = (
    *((2e-4, 8e-4), (4e-4, 8e-4), (8e-4, 8e-4), (4e-4, 1e-4)),
    *((4e-4, 2e-4), (2e-4, 2e-4), (2e-4, 4e-4), (4e-4, 4e-4)),
)
"""Of D and of G."""

Fault = Callable[[Gan], None]
"""Done to the recipe before each step."""


def _one_picture(gan: Gan) -> None:
    gan.G.ups[-1].weight.data.zero_()


def _four_classes_lost(gan: Gan) -> None:
    for module in gan.G.modules():
        if isinstance(module, BatchNorm):
            module.scale.data[:4] = module.scale.data[4]
            module.shift.data[:4] = module.shift.data[4]


def _faster(networks: Sequence[str], times: float, gan: Gan) -> None:
    for name in networks:
        adam = {"d": gan._d_step.adam, "g": gan._g_step.adam}[name]
        lr = getattr(gan.config, f"optimizer_{name}").lr * times
        adam._config = adam._config.model_copy(update={"lr": lr})


def _not_a_number(gan: Gan) -> None:
    gan.G.linear.weight.data[0, 0] = torch.nan


FAULTS: dict[str, Fault | None] = {
    "none": None,
    "one picture": _one_picture,
    "four classes lost": _four_classes_lost,
    "D 30 times as fast": functools.partial(_faster, "d", 30),
    "both 10 times as fast": functools.partial(_faster, "dg", 10),
    "not a number": _not_a_number,
}


class Faulty(Gan):
    """A recipe to which something happens, until it is taken back for the first time."""

    fault: Fault | None = None

    def step(self, step: int, progress: float) -> None:
        due = (step + 1) * self.images_per_step / 1000 > FAULT_KIMG
        if self.fault is not None and due and not self.config.changes:
            with torch.no_grad():
                self.fault(self)
        super().step(step, progress)


@dataclass(frozen=True)
class Run:
    """What came of one run."""

    collapses: list[Collapse]
    distance: float
    """Of G_ema at the end; NaN where it ended without a healthy state."""


def run(preset: str, overrides: dict[str, Any], fault: str, weights: dict[str, Any]) -> Run:
    """Train to the end, whatever it takes, and measure by the yardstick of these weights."""
    deterministic_cpu()
    data = shipped()
    base = resolve_preset(
        preset, size=SIZE, channels=1, num_classes=NUM_CLASSES, overrides=overrides
    )
    reports: list[Collapse] = []

    def report(what: Metrics | Grid | Checkpoint | Collapse) -> None:
        if isinstance(what, Collapse):
            reports.append(what)

    def make(changes: Sequence[Change]) -> Faulty:
        recipe = Faulty(functools.reduce(GanConfig.changed, changes, base), data, Ranks())
        recipe.fault = FAULTS[fault]
        return recipe

    try:
        recipe, _ = train_and_recover(
            make, Ranks(), start=None, should_stop=lambda: False, report=report
        )
    except Hopeless:
        return Run(reports, float("nan"))
    yardstick = load_yardstick(weights)
    pictures, _ = draw(recipe.settled(), N, 1, lambda: None)
    real, _ = yardstick.read(data.images)
    drawn, _ = yardstick.read(pictures)
    return Run(reports, frechet_distance(real, drawn))


def main() -> None:
    """Print a table for each of the parts asked for, or for all."""
    deterministic_cpu()
    weights = yardstick_arrays(
        train_yardstick(shipped(), NUM_CLASSES, seed=0, on_step=lambda: None)
    )
    parts = sys.argv[1:] or ["starts", "healthy", "falls"]
    with ProcessPoolExecutor(2) as pool:
        for part in parts:
            rows = list(pool.map(functools.partial(_row, weights=weights), PARTS[part]()))
            sys.stdout.write(f"\n{part}\n")
            print_table(["run", "seed", "told at kimg: signs; what was done", "distance"], rows)
            sys.stdout.flush()


def _row(case: tuple[str, str, dict[str, Any], str], weights: dict[str, Any]) -> list[str]:
    name, preset, overrides, fault = case
    ended = run(preset, overrides, fault, weights)
    told = " | ".join(f"{c.kimg:.0f}: {', '.join(c.alarms)}; {c.action}" for c in ended.collapses)
    return [name, str(overrides["seed"]), told or "nothing", f"{ended.distance:.2f}"]


def _starts() -> list[tuple[str, str, dict[str, Any], str]]:
    return [
        (
            f"lr {lr_d:g} / {lr_g:g}",
            "lecture",
            NORMAL
            | {"optimizer_d": {"lr": lr_d, "beta1": 0.5}, "optimizer_g": {"lr": lr_g, "beta1": 0.5}}
            | {"seed": 0, "kimg": START_KIMG, "collapse": {"action": action}},
            "none",
        )
        for action in ("watch", "recover")
        for lr_d, lr_g in RATES
    ]


def _healthy() -> list[tuple[str, str, dict[str, Any], str]]:
    presets = ("lecture", "modern", "modern-conditional", "modern-conditional")
    return [
        (preset, preset, {"seed": 100 + i, "kimg": HEALTHY_KIMG}, "none")
        for i, preset in enumerate(presets * 5)
    ]


def _falls() -> list[tuple[str, str, dict[str, Any], str]]:
    return [
        (
            fault,
            "modern-conditional",
            {"seed": seed, "kimg": FALL_KIMG, "collapse": {"action": "recover"}},
            fault,
        )
        for fault in FAULTS
        for seed in (0, 1)
    ]


PARTS = {"starts": _starts, "healthy": _healthy, "falls": _falls}


if __name__ == "__main__":
    main()
