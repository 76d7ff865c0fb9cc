"""THE loop: step, report, grid, checkpoint, stop.

It knows a recipe by its protocol and the world by two callables. It knows no queue, no Ray and no
HTTP, and runs as well in a plain Python process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from shared.errors import TrainingFailed
from shared.images import Pixels
from shared.schemas.recipes import Change, CollapseConfig
from shared.settings import default_variable
from workers.training.collapse import CollapseWatch
from workers.training.ranks import Ranks
from workers.training.replay import Fakes, ReplayRepository


class RecipeConfig(Protocol):
    """What the loop reads of a recipe's configuration."""

    @property
    def kimg(self) -> float: ...
    @property
    def report_every_s(self) -> float: ...
    @property
    def grid_every_kimg(self) -> float: ...
    @property
    def checkpoint_every_kimg(self) -> float: ...
    @property
    def collapse(self) -> CollapseConfig: ...
    @property
    def changes(self) -> list[Change]: ...


class Recipe(Protocol):
    """What the loop asks of a recipe. Every rank calls each method at the same step."""

    images_per_step: int
    replay: ReplayRepository | None

    @property
    def config(self) -> RecipeConfig: ...
    def load_state(
        self, networks: dict[str, Tensor], optimizers: dict[str, Tensor], replay: Fakes | None
    ) -> None: ...
    def bootstrap(self) -> Iterator[None]: ...
    def step(self, step: int, progress: float) -> None: ...
    def stats(self) -> dict[str, float]: ...
    def signs(self) -> dict[str, float]: ...
    def samples(self) -> Pixels: ...
    def networks(self) -> dict[str, Tensor]: ...
    def optimizers(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Metrics:
    """Where the run is, and the recipe's means since the last report."""

    step: int
    kimg: float
    img_per_s: float
    eta_s: float
    values: dict[str, float]


@dataclass(frozen=True)
class Grid:
    """Pictures from the fixed z, uint8 [n, H, W, C]."""

    kimg: float
    images: Pixels


@dataclass(frozen=True)
class Checkpoint:
    """A copy of everything needed to go on bit for bit. `final`: it must not be skipped."""

    step: int
    kimg: float
    networks: dict[str, Tensor]
    optimizers: dict[str, Tensor]
    replay: Fakes | None
    changes: list[Change]
    """What recoveries have changed in the configuration so far."""
    lowest: dict[str, float]
    """What the watch for collapse remembers (collapse.CollapseWatch)."""
    score: float | None
    """How far its pictures are from the real ones, where that is measured."""
    final: bool


@dataclass(frozen=True)
class Collapse:
    """The run has collapsed, by these of its signs; `action` says what is done about it."""

    kimg: float
    alarms: list[str]
    signs: dict[str, float]
    action: str


class Collapsed(Exception):
    """Leaves the loop on every rank: the run has to go back."""

    def __init__(self, kimg: float, alarms: list[str], signs: dict[str, float]) -> None:
        super().__init__(f"collapsed at {kimg:.1f} kimg: {', '.join(alarms)}")
        self.kimg = kimg
        self.alarms = alarms
        self.signs = signs


Report = Callable[[Metrics | Grid | Checkpoint | Collapse], None]

GO_ON, SEND_METRICS, STOP = 0, 1, 2
AGREE_EVERY = 4
"""Steps between two agreements: one costs about 0.5 ms between processes, a step 30 ms."""


def train(
    recipe: Recipe,
    config: RecipeConfig,
    ranks: Ranks,
    *,
    start_step: int,
    lowest: Mapping[str, float] = MappingProxyType({}),
    should_stop: Callable[[], bool],
    report: Report,
    keep: Callable[[Checkpoint], None] | None = None,
    score: Callable[[], float] | None = None,
) -> bool:
    """Train from `start_step` to the end of the run, or until asked to stop. `lowest` comes from
    the checkpoint that the run goes on from.

    `should_stop` and the clock are asked on the first rank only, and its answer holds for all.
    `report` is called on the first rank only and must return at once. `keep` gets, on every rank,
    each state to go back to. `score` measures a state before it is saved, on every rank.

    Returns True when the run is complete, False when it was stopped. In both cases a final
    checkpoint was reported, unless there was no step to save: a new start makes the same. With
    `keep`, a state that looks ill is neither kept nor reported.

    Raises:
        Collapsed: with `keep`, on every rank: the run must go back.
        TrainingFailed: without it, a loss is not finite.
    """
    per_step = recipe.images_per_step / 1000
    num_steps = max(1, round(config.kimg / per_step))
    step, verdict = start_step, GO_ON
    pace = Pace(start_step)
    watch = CollapseWatch(config.collapse, config.kimg, lowest)
    signs: dict[str, float] = {}

    def save(*, final: bool) -> None:
        if keep and not watch.healthy:
            return
        scored = score() if score and verdict != STOP else None
        replay = recipe.replay.state() if recipe.replay else None
        if ranks.is_first or keep:
            checkpoint = Checkpoint(
                step=step,
                kimg=step * per_step,
                networks=_copied(recipe.networks()),
                optimizers=_copied(recipe.optimizers()),
                replay=replay,
                changes=config.changes,
                lowest=watch.lowest,
                score=scored,
                final=final,
            )
            if keep:
                keep(checkpoint)
            if ranks.is_first:
                report(checkpoint)

    if step == 0:
        _report_grid(recipe, ranks, 0.0, report)
        for bootstrap_step, _ in enumerate(recipe.bootstrap()):
            if bootstrap_step % AGREE_EVERY == 0 and ranks.agree(should_stop()):
                return False

    while step < num_steps:
        # Agree on whether to go on.
        verdict = GO_ON
        if step % AGREE_EVERY == 0:
            verdict = ranks.agree(_verdict(pace, config.report_every_s, should_stop))
        if verdict == STOP:
            break

        # Train one step.
        recipe.step(step, progress=step / num_steps)
        step += 1
        kimg = step * per_step

        # Report where we are.
        if verdict == SEND_METRICS or step == num_steps:
            values = recipe.stats()
            broken = [name for name, value in values.items() if not math.isfinite(value)]
            if broken and keep:
                raise Collapsed(kimg, broken, signs)
            if broken:
                raise TrainingFailed(
                    f"not finite at {kimg:.1f} kimg: {', '.join(broken)}; lower the learning "
                    "rates, raise the gradient penalties, or set collapse.action to recover"
                )
            if ranks.is_first:
                img_per_s = pace.lap(step) * recipe.images_per_step
                eta_s = (num_steps - step) * recipe.images_per_step / img_per_s
                report(Metrics(step, kimg, img_per_s, eta_s, values | signs))

        # Draw the grid.
        if _passes(step, per_step, config.grid_every_kimg) or step == num_steps:
            _report_grid(recipe, ranks, kimg, report)

        # Watch for collapse.
        last = step == num_steps
        saves = _passes(step, per_step, config.checkpoint_every_kimg) and not last
        if saves or last or _passes(step, per_step, config.collapse.every_kimg):
            signs = recipe.signs()
            alarms = watch.judge(signs, kimg, last=last)
            if alarms:
                _report_grid(recipe, ranks, kimg, report)
            if alarms and keep:
                raise Collapsed(kimg, alarms, signs)
            if alarms and ranks.is_first:
                report(Collapse(kimg, alarms, signs, "nothing: it is only watched"))

        # Save a checkpoint.
        if saves:
            save(final=False)

    if step > 0:
        save(final=True)
    return verdict != STOP


class Pace:
    """Steps per second since the last report."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._at = time.monotonic()

    def age_s(self) -> float:
        return time.monotonic() - self._at

    def lap(self, step: int) -> float:
        """Steps per second since the last call."""
        pace = (step - self._step) / max(self.age_s(), 1e-9)
        self._step, self._at = step, time.monotonic()
        return pace


def _verdict(pace: Pace, report_every_s: float, should_stop: Callable[[], bool]) -> int:
    if should_stop():
        return STOP
    return SEND_METRICS if pace.age_s() >= report_every_s else GO_ON


def _passes(step: int, per_step: float, every: float) -> bool:
    """Whether this step is the first at or past a multiple of `every`."""
    return int(step * per_step / every) > int((step - 1) * per_step / every)


def _report_grid(recipe: Recipe, ranks: Ranks, kimg: float, report: Report) -> None:
    if ranks.is_first:
        report(Grid(kimg, recipe.samples()))


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def deterministic_cpu() -> None:
    """One thread and the same bits each time. Denormals, which Adam's moments of small networks are
    full of at the end of a run, are flushed: they are slow and carry nothing."""
    torch.set_num_threads(1)
    # On a GPU torch is not deterministic without, and says so by an error.
    default_variable("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Not use_deterministic_algorithms: that imports torch's compiler (1.3 s, 70 MB).
    torch.set_deterministic_debug_mode("error")
    torch.set_flush_denormal(True)
