"""Signs of collapse, from what a step has at hand: nothing is drawn or read for them.

A collapsed G makes one picture of every z, has lost classes, or gets nothing from its D any more.
The signs are of the raw G: a moving average hides a collapse for half of its life. They are sums
over the steps since the last check on this rank; only a check is a collective.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.schemas.recipes import CollapseConfig
from workers.training.ranks import Ranks

THUMBNAIL = 8
"""Side of the pictures whose means by class are compared, at most."""
READ_AT_ONCE = 4096
MIN_OF_CLASS = 8
"""Pictures of a class between two checks from which on its mean counts."""
GRACE_SHARE = 0.05
"""Of the run, in which nothing is judged."""
SCALARS = (
    "squares", "freedom", "gradient_similarity", "gradient_length", "sureness_d", "steps"
)  # fmt: skip


class CollapseSigns:
    """The signs of one run on one rank.

    Calibrated once, on the real pictures: a G that draws like them has a `variance_within` of 1 and
    a `mean_distance` of 0.
    """

    def __init__(
        self, images: Tensor, labels: Tensor | None, num_classes: int, ranks: Ranks
    ) -> None:
        """`images` uint8 [N, C, H, W], `labels` int64 [N] or None, on the rank's device;
        `num_classes`: of G."""
        self._ranks = ranks
        self._real = _moments(images, labels if num_classes else None, max(num_classes, 1))
        rows, columns = self._real.means.shape
        self._sums = torch.zeros(rows * (columns + 1) + len(SCALARS), device=images.device)

    def see(self, generated: Tensor, c: Tensor | None, gradient: Tensor, sureness: Tensor) -> None:
        """Take one step's pictures of G [n, C, H, W] in [-1, 1], their classes int64 [n], the
        gradient of G's loss by each of them, and how sure D was of the reals."""
        small = thumbnails(generated)
        by_class = _by_class(small, c, len(self._real.means))
        counts = by_class[:, -1]
        between = (by_class[:, :-1].square().sum(1) / counts.clamp(min=1)).sum()
        within = small.square().sum() - between
        norms = gradient.flatten(1).norm(dim=1)
        together = (gradient.flatten(1) / norms.clamp(min=1e-12)[:, None]).sum(0).square().sum()
        n = len(generated)
        similarity = (together - n) / max(n * (n - 1), 1)
        scalars = [
            within, (counts - 1).clamp(min=0).sum(), similarity, norms.median(), sureness,
            torch.ones_like(within),
        ]  # fmt: skip
        self._sums += torch.cat([by_class.flatten(), torch.stack(scalars)])

    def take(self) -> dict[str, float]:
        """The signs since the last call, over all ranks (each must call).

        `variance_within`: of the pictures of a class in one step's set, over that of reals.
        `gradient_similarity`: mean cosine between the gradients by two pictures; 1: D tells all the
        same. `gradient_length`: their median. `sureness_d`: how sure D is of the reals.
        `mean_distance`: of the classes' mean pictures from those of reals, squared, over the
        variance within classes; `worst_mean_distance`: of the worst class.
        """
        total = self._ranks.sum(self._sums).clone()
        self._sums.zero_()
        by_class = total[: -len(SCALARS)].view(len(self._real.means), -1)
        scalars = dict(zip(SCALARS, total[-len(SCALARS) :].tolist(), strict=True))
        squares, freedom, steps = (scalars.pop(name) for name in ("squares", "freedom", "steps"))
        signs = {name: value / max(steps, 1) for name, value in scalars.items()}
        if freedom:
            signs["variance_within"] = squares / freedom / self._real.within
        counts = by_class[:, -1:]
        apart = (by_class[:, :-1] / counts.clamp(min=1) - self._real.means).square().sum(1)
        counted = apart[counts[:, 0] >= MIN_OF_CLASS] / self._real.within
        if len(counted):
            signs["mean_distance"] = counted.mean().item()
        if len(counted) > 1:
            signs["worst_mean_distance"] = counted.max().item()
        return signs


def thumbnails(images: Tensor) -> Tensor:
    """Images [n, C, H, W] of any size as rows [n, C * 8 * 8] of means."""
    side = min(images.shape[-1], THUMBNAIL)
    return F.adaptive_avg_pool2d(images.detach(), side).flatten(1)


@dataclass(frozen=True)
class _Moments:
    """Of the real pictures' thumbnails: `means` [classes, P], and the variance `within` a class,
    summed over P."""

    means: Tensor
    within: float


def _moments(images: Tensor, labels: Tensor | None, num_classes: int) -> _Moments:
    small = torch.cat(
        [thumbnails(part.float().div_(127.5).sub_(1.0)) for part in images.split(READ_AT_ONCE)]
    )
    by_class = _by_class(small, labels, num_classes)
    counts = by_class[:, -1:]
    means = by_class[:, :-1] / counts.clamp(min=1)
    between = (means.double().square() * counts).sum().item()
    within = (small.double().square().sum().item() - between) / len(small)
    return _Moments(means, max(within, 1e-12))


def _by_class(rows: Tensor, c: Tensor | None, num_classes: int) -> Tensor:
    """The sums of rows [n, P] over each class, and in a last column how many there are."""
    counted = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    if c is None:
        return counted.sum(0, keepdim=True)
    return counted.new_zeros(num_classes, counted.shape[1]).index_add_(0, c, counted)


LIMITS: dict[str, Callable[[float, float], bool]] = {
    "variance_within": lambda value, lowest: value < 0.2,
    "gradient_similarity": lambda value, lowest: value > 0.9,
    "sureness_d": lambda value, lowest: value > 0.95,
    "mean_distance": lambda value, lowest: value > min(max(0.15, 4 * lowest), 1),
    "worst_mean_distance": lambda value, lowest: value > min(max(0.5, 4 * lowest), 2),
}
"""Whether a sign is out of bounds, given its lowest value in the run so far. The numbers lie
between those of healthy and of ill runs: docs/collapse.md."""
NUM_ALARMS = 2


class CollapseWatch:
    """Judges the signs of a run, check after check."""

    def __init__(
        self,
        config: CollapseConfig,
        kimg: float,
        lowest: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """`kimg`: the length of the run; `lowest`: of the run so far, if it goes on."""
        self._grace_kimg = max(config.grace_kimg, GRACE_SHARE * kimg)
        self._num_ill = 0
        self.lowest = dict(lowest)
        """Each sign's lowest value so far: all that is to be remembered with a healthy state."""

    @property
    def healthy(self) -> bool:
        """Whether the last check found nothing."""
        return self._num_ill == 0

    def judge(self, signs: Mapping[str, float], kimg: float, *, last: bool) -> list[str]:
        """The signs by which the run has collapsed, told once until it is healthy again.

        Two signs must be out of bounds in two checks on end; in the run's last check they are
        enough, and one that is not finite is enough in any.
        """
        broken = [name for name, value in signs.items() if not math.isfinite(value)]
        alarms = [
            name
            for name, is_out in LIMITS.items()
            if name in signs and is_out(signs[name], self.lowest.get(name, math.inf))
        ]
        ill = bool(broken) or (len(alarms) >= NUM_ALARMS and kimg >= self._grace_kimg)
        enough = 1 if broken or last else 2
        if not ill:
            self.lowest = {n: min(v, self.lowest.get(n, math.inf)) for n, v in signs.items()}
        before, self._num_ill = self._num_ill, self._num_ill + 1 if ill else 0
        return (broken or alarms) if before < enough <= self._num_ill else []
