"""The training loop against bare loops of the same networks, and what the repository costs.

    .venv/bin/python -m tests.benchmarks.bench_loop [PRESET ...] [KEY=VALUE ...]

Prints images a second and ratios, all from one run on one thread: the variants take turns,
and medians are compared. All presets take some ten minutes. KEY=VALUE as after `--set`.

- `of bare`: of the same step by hand, with the same bundle (channels last, one D pass, the fakes'
  graph reused, fused Adam), without repository, counters, statistics and reports.
- `of plain`: of a loop as a first script has it: NCHW, Adam as it comes, separate passes, fakes
  made twice, D's gradients run on into G, and G's into D.

`replay/step` is the share of a step's time that is spent inside the repository.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from services.cli.train import overrides
from shared.schemas.presets import resolve_preset
from shared.schemas.recipes import GanConfig
from tests.benchmarks.bare_loops import Turn, bare, plain
from tests.benchmarks.table import print_table
from tests.training import squares
from workers.recipes.gan import Gan
from workers.training.data import TrainingData
from workers.training.loop import AGREE_EVERY, Checkpoint, Grid, Metrics, deterministic_cpu, train
from workers.training.ranks import Ranks

TURNS, STEPS = 7, 8
"""In so many steps the penalties of each preset come equally often."""
RUNS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lecture", "lecture", {}),
    ("without repository", "lecture", {"replay": {"enabled": False}, "num_generated": 200}),
    ("modern", "modern", {}),
    ("with repository", "modern", {"replay": {"enabled": True}}),
    ("modern-conditional", "modern-conditional", {}),
    ("with repository", "modern-conditional", {"replay": {"enabled": True}}),
    ("dcgan", "dcgan", {}),
    ("biggan", "biggan", {}),
    ("in 2 micro-batches", "biggan", {"accumulate": 2}),
    ("text-to-image", "text-to-image", {}),
)
PLAIN = ("lecture", "modern", "modern-conditional")


def config_of(preset: str, changes: dict[str, Any]) -> GanConfig:
    """The preset at 32 px with ten classes; so many steps that a turn never ends the run."""
    return resolve_preset(
        preset, size=32, channels=1, num_classes=10, has_captions=True,
        overrides={"kimg": 1e6, **changes},
    )  # fmt: skip


def pictures() -> TrainingData:
    """2,048 pictures of squares, each with a class and a caption."""
    return replace(squares(2048, size=32), labels=torch.arange(2048) % 10)


def elmyr(config: GanConfig, data: TrainingData, replay_s: list[float]) -> Turn:
    """STEPS of the product's loop, with its reports, from where the last turn stopped.

    The clock runs from the loop's first question whether to stop to its last, so that the
    checkpoint which ends each turn is left out: in a run it comes every 390 steps, not every 8.
    `replay_s` gets the seconds of each call of the repository.
    """
    recipe = Gan(config, data, Ranks())
    if recipe.replay:
        recipe.replay.add = _timed(recipe.replay.add, replay_s)
    at = [AGREE_EVERY]

    def turn() -> float:
        asked: list[float] = []

        def should_stop() -> bool:
            asked.append(time.perf_counter())
            return len(asked) > STEPS // AGREE_EVERY

        def report(_: Metrics | Grid | Checkpoint) -> None:
            pass

        train(recipe, config, Ranks(), start_step=at[0], should_stop=should_stop, report=report)
        at[0] += STEPS
        return asked[-1] - asked[0]

    return turn


def _timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*args: object) -> Any:
        started = time.perf_counter()
        answer = call(*args)
        seconds.append(time.perf_counter() - started)
        return answer

    return timed


def measure(turns: dict[str, Turn]) -> dict[str, float]:
    """Median seconds of a turn of each, taken in turn after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for i in range(TURNS + 1):
        for name, turn in turns.items():
            seconds = turn()
            if i:
                taken[name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Compare each run."""
    deterministic_cpu()
    data, rows = pictures(), []
    changes = [argument for argument in sys.argv[1:] if "=" in argument]
    chosen = set(sys.argv[1:]) - set(changes)
    if unknown := chosen - {preset for _, preset, _ in RUNS}:
        sys.exit(f"no such preset: {', '.join(unknown)}")
    for name, preset, particular in RUNS:
        if chosen and preset not in chosen:
            continue
        config = config_of(preset, {**overrides(changes), **particular})
        replay_s: list[float] = []
        turns = {"elmyr": elmyr(config, data, replay_s), "bare": bare(config, data, STEPS)}
        if preset in PLAIN:
            turns["plain"] = plain(config, data, STEPS)
        seconds = measure(turns)
        rows.append(
            [
                name,
                f"{STEPS * config.images_per_round / seconds['elmyr']:.0f}",
                f"{seconds['bare'] / seconds['elmyr']:.3f}",
                f"{seconds['plain'] / seconds['elmyr']:.2f}" if "plain" in seconds else "",
                f"{statistics.median(replay_s) * STEPS / seconds['elmyr']:.1%}" if replay_s else "",
            ]
        )
        sys.stderr.write(f"{rows[-1]}\n")
    print_table(["preset", "img/s", "of bare", "of plain", "replay/step"], rows)


if __name__ == "__main__":
    main()
