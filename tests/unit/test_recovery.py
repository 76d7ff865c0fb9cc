"""Where a run goes back to, what it changes, and when it gives up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor

from shared.errors import TrainingFailed
from shared.images import Pixels
from shared.schemas.recipes import LADDER, RATES_FACTOR, Change, GanConfig
from tests.training import tiny
from workers.training.loop import Checkpoint, Collapse, Report
from workers.training.ranks import Ranks
from workers.training.recovery import Hopeless, train_and_recover
from workers.training.replay import Fakes

WELL = {"variance_within": 1.0, "gradient_similarity": 0.1}
ILL = {"variance_within": 0.0, "gradient_similarity": 1.0}
BASE = tiny(
    "modern-conditional",
    kimg=20 * 0.064,
    checkpoint_every_kimg=4 * 0.064,
    collapse={"action": "recover", "every_kimg": 0.064, "grace_kimg": 0},
)
"""20 steps of 64 images, a check each step, a checkpoint each fourth."""


class Scripted:
    """A recipe that only counts, and whose signs are what the script says of (changes, step)."""

    def __init__(self, config: GanConfig, ill: set[tuple[int, int]], born: list[Any]) -> None:
        self.config = config
        self.images_per_step = 64
        self.replay = None
        self._ill = ill
        self._step = torch.zeros(1)
        born.append(self)
        self.restored_at = 0

    def load_state(
        self, networks: dict[str, Tensor], optimizers: dict[str, Tensor], replay: Fakes | None
    ) -> None:
        del optimizers, replay
        self._step.copy_(networks["step"])
        self.restored_at = int(self._step)

    def bootstrap(self) -> Iterator[None]:
        return iter(())

    def step(self, step: int, progress: float) -> None:
        del progress
        assert step == int(self._step)
        self._step += 1

    def stats(self) -> dict[str, float]:
        return {"loss_d": 0.5}

    def signs(self) -> dict[str, float]:
        return ILL if (len(self.config.changes), int(self._step)) in self._ill else WELL

    def samples(self) -> Pixels:
        return torch.zeros(1, 16, 16, 1, dtype=torch.uint8).numpy()

    def networks(self) -> dict[str, Tensor]:
        return {"step": self._step}

    def optimizers(self) -> dict[str, Tensor]:
        return {}


def run(
    ill: set[tuple[int, int]], config: GanConfig = BASE, start: Checkpoint | None = None
) -> tuple[list[Scripted], list[Any], Hopeless | None]:
    """The recipes that were made, all reports, and how it ended."""
    born: list[Scripted] = []
    reports: list[Any] = []

    def make(changes: Sequence[Change]) -> Scripted:
        return Scripted(reduce(GanConfig.changed, changes, config), ill, born)

    report: Report = reports.append
    try:
        train_and_recover(make, Ranks(), start=start, should_stop=lambda: False, report=report)
    except Hopeless as hopeless:
        return born, reports, hopeless
    return born, reports, None


def saved(reports: Sequence[Any]) -> list[tuple[int, int]]:
    return [(len(r.changes), r.step) for r in reports if isinstance(r, Checkpoint)]


def told(reports: Sequence[Any]) -> list[str]:
    return [r.action for r in reports if isinstance(r, Collapse)]


def test_a_healthy_run_is_left_alone() -> None:
    born, reports, hopeless = run(set())
    assert (len(born), told(reports), hopeless) == (1, [], None)
    assert saved(reports) == [(0, 4), (0, 8), (0, 12), (0, 16), (0, 20)]


def test_it_goes_back_to_the_newest_healthy_state_with_one_change() -> None:
    born, reports, hopeless = run({(0, 10), (0, 11)})
    assert hopeless is None
    assert [recipe.restored_at for recipe in born] == [0, 8]
    assert born[1].config.changes == ["rates"]
    assert told(reports) == ["back to 0.5 kimg with lower learning rates"]
    assert saved(reports)[-1] == (1, 20)


def test_a_state_that_looks_ill_is_not_saved() -> None:
    _, reports, _ = run({(0, 8), (0, 10)})
    assert (0, 8) not in saved(reports)
    assert saved(reports)[-1] == (0, 20)


def test_a_state_that_did_not_hold_is_given_up_for_the_one_before() -> None:
    born, reports, _ = run({(0, 9), (0, 10), (1, 9), (1, 10)})
    assert [recipe.restored_at for recipe in born] == [0, 8, 4]
    assert born[-1].config.changes == ["rates", "penalties"]
    # The same place again, but not the same state: nothing is taken for what was there before.
    assert saved(reports)[:4] == [(0, 4), (0, 8), (2, 8), (2, 12)]


def test_a_run_that_never_was_healthy_starts_afresh() -> None:
    born, reports, hopeless = run({(0, 1), (0, 2)})
    assert hopeless is None
    assert [recipe.restored_at for recipe in born] == [0, 0]
    assert born[1].config.changes == ["afresh"]
    assert told(reports) == ["back to the start with new networks"]


def test_after_the_last_rung_it_stops_and_names_the_newest_healthy_state() -> None:
    always = {(changes, step) for changes in range(9) for step in (6, 7)}
    born, reports, hopeless = run(always)
    assert hopeless is not None
    assert [recipe.config.changes for recipe in born] == [
        list(LADDER[:n]) for n in range(len(LADDER) + 1)
    ]
    assert hopeless.healthy is not None
    assert hopeless.healthy.step == 4
    assert told(reports)[-1] == "stopped: nothing is left to try"
    nowhere = {(changes, step) for changes in range(9) for step in (1, 2)}
    born, _, hopeless = run(nowhere)
    assert hopeless is not None
    assert hopeless.healthy is None
    assert born[-1].config.changes == ["afresh", "rates", "penalties"]


def test_a_resume_goes_on_with_what_was_changed() -> None:
    _, reports, _ = run({(0, 10), (0, 11)})
    checkpoint = next(r for r in reports if isinstance(r, Checkpoint) and r.changes)
    born, _, _ = run(set(), start=checkpoint)
    assert born[0].config.changes == ["rates"]
    assert born[0].restored_at == checkpoint.step == 12


def test_only_watched_it_goes_on() -> None:
    config = BASE.model_copy(
        update={"collapse": BASE.collapse.model_copy(update={"action": "watch"})}
    )
    born, reports, _ = run({(0, 10), (0, 11), (0, 12)}, config)
    assert len(born) == 1
    assert told(reports) == ["nothing: it is only watched"]
    assert (0, 12) in saved(reports)  # work is not thrown away on a suspicion


def test_changes_are_changes_of_the_configuration() -> None:
    rates = BASE.changed("rates")
    assert rates.optimizer_d.lr == BASE.optimizer_d.lr * RATES_FACTOR
    assert rates.optimizer_g.lr == BASE.optimizer_g.lr * RATES_FACTOR
    penalties = rates.changed("penalties").penalties
    assert (penalties.r1_gamma, penalties.r2_gamma) == (0.2, 0.2)
    assert tiny("lecture").changed("penalties").penalties.r1_gamma == 0.1
    afresh = tiny("lecture").changed("afresh")
    assert afresh.generator.init == afresh.discriminator.init == "orthogonal"
    assert rates.changed("penalties").changes == ["rates", "penalties"]
    assert GanConfig.model_validate(afresh.model_dump()) == afresh


def test_without_recovery_a_loss_that_is_not_finite_ends_the_run() -> None:
    class Broken(Scripted):
        def stats(self) -> dict[str, float]:
            return {"loss_d": float("nan")}

    config = BASE.model_copy(
        update={"collapse": BASE.collapse.model_copy(update={"action": "watch"})}
    )
    with pytest.raises(TrainingFailed, match="loss_d"):
        train_and_recover(
            lambda changes: Broken(config, set(), []),
            Ranks(),
            start=None,
            should_stop=lambda: False,
            report=lambda what: None,
        )
