"""What is done about a collapse: the run goes back to a healthy state and on with one thing
changed, a few times at most; then it stops loudly.

    train (loop.py) -> Collapsed -> a healthy state, one change -> train ... -> Hopeless

By what a run is judged lies in collapse.py; what is changed, in the recipe's configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from shared.errors import TrainingFailed
from shared.schemas.recipes import LADDER, Change
from workers.training.loop import Checkpoint, Collapse, Collapsed, Recipe, Report, train
from workers.training.ranks import Ranks

NUM_HEALTHY = 2
"""States to go back to: the newest may have been ill already, and then the one before is taken."""

CHANGES: dict[Change, str] = {
    "rates": "lower learning rates",
    "penalties": "stronger gradient penalties",
    "afresh": "new networks",
}

R = TypeVar("R", bound=Recipe)


class Hopeless(TrainingFailed):
    """Training has collapsed"""

    def __init__(self, detail: str, healthy: Checkpoint | None) -> None:
        super().__init__(detail)
        self.healthy = healthy
        """The newest healthy state, if there was any."""


def train_and_recover(
    make: Callable[[Sequence[Change]], R],
    ranks: Ranks,
    *,
    start: Checkpoint | None,
    should_stop: Callable[[], bool],
    report: Report,
    score: Callable[[R], float] | None = None,
) -> tuple[R, bool]:
    """Train from `start` (None: from nothing) as `loop.train` does; returns the recipe that was
    trained last, and whether the run is complete.

    `make` builds the recipe with these changes; the others are as in `train`.

    Raises:
        Hopeless: the ladder's last rung did not hold either.
    """
    changes = list(start.changes) if start else []
    healthy = [start] if start else []
    newest = start

    def keep(state: Checkpoint) -> None:
        healthy.append(state)
        del healthy[:-NUM_HEALTHY]

    while True:
        recipe = make(changes)
        restored = healthy[-1] if healthy else None
        if restored:
            recipe.load_state(restored.networks, restored.optimizers, restored.replay)
        try:
            complete = train(
                recipe,
                recipe.config,
                ranks,
                start_step=restored.step if restored else 0,
                lowest=restored.lowest if restored else {},
                should_stop=should_stop,
                report=report,
                keep=keep if recipe.config.collapse.action == "recover" else None,
                score=partial(score, recipe) if score else None,
            )
        except Collapsed as collapsed:
            if healthy:
                newest = healthy[-1]
            if len(healthy) > 1 and healthy[-1] is restored:
                healthy.pop()  # it did not hold
            change = _next(changes, was_healthy=bool(healthy))
            if change == "afresh":
                healthy.clear()
            if change is None:
                action = "stopped: nothing is left to try"
            else:
                where = f"{healthy[-1].kimg:.1f} kimg" if healthy else "the start"
                action = f"back to {where} with {CHANGES[change]}"
            if ranks.is_first:
                report(Collapse(collapsed.kimg, collapsed.alarms, collapsed.signs, action))
            if change is None:
                raise Hopeless(str(collapsed), newest) from collapsed
            changes.append(change)
        else:
            return recipe, complete


def _next(changes: Sequence[Change], *, was_healthy: bool) -> Change | None:
    """What to change next; None when the ladder has no rung left."""
    left = [change for change in LADDER if change not in changes]
    return "afresh" if "afresh" in left and not was_healthy else next(iter(left), None)
