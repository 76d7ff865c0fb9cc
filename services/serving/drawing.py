"""A generator that draws for several callers at once: the same seed gives the same bytes.

A picture is a pure function of (weights, seed, index, condition, truncation), whatever it is drawn
together with. torch does not promise that. So a batch is cut into pieces of a few sizes, each of
which has shown, with this very network on this very machine, that it gives the bits of a row alone,
and how long it takes. Another kind of processor may round otherwise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from services.serving.inference import specialise
from shared.errors import FieldError, InvalidInput
from shared.images import Pixels
from shared.networks.generators import Generator
from shared.networks.sampling import latents, to_uint8

SIZES = (64, 32, 16, 8, 4, 2, 1)
"""Rows of a piece. A picture of 32 px costs 0.5 ms alone and 0.08 ms in a piece of 64."""

MAX_BATCH = SIZES[0]

LONG_S = 0.05
"""What takes longer is measured once."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Pictures number `indices` of `seed`, or those of `z` (float32 [n, z_dim]). Without a label or
    a text (float32 [text_dim], as networks are given it) the classes or the captions take turns."""

    seed: int
    indices: range
    label: int | None = None
    truncation: float = 1.0
    text: Tensor | None = None
    z: Tensor | None = None

    def latents(self, z_dim: int) -> Tensor:
        """Of each picture, float32 [n, z_dim]."""
        return (
            latents(self.seed, self.indices, z_dim, self.truncation) if self.z is None else self.z
        )

    def conditions(self, network: Generator) -> Tensor:
        """Of each picture, [n] or [n, text_dim]. The seed has a say in whose turn it is, so that
        the first pictures of different seeds are of different classes."""
        if self.text is not None:
            return self.text.expand(len(self.indices), -1)
        if self.label is not None:
            return torch.full((len(self.indices),), self.label)
        return network.turns(torch.tensor(self.indices) + self.seed)


class Drawer:
    """Draws with one network. It may be used by one thread at a time."""

    def __init__(self, network: Generator) -> None:
        """Takes the network over: layers of it are replaced."""
        self._network = network
        specialise(network)
        self._seconds = self._exact_sizes()
        self._plans = plans(self._seconds, MAX_BATCH)
        self._spares = spares([sum(map(self._seconds.__getitem__, plan)) for plan in self._plans])

    @property
    def network(self) -> Generator:
        """The network with its layers replaced. A call changes nothing of it: other threads may."""
        return self._network

    @property
    def sizes(self) -> list[int]:
        """Rows of the pieces that a batch may be cut into."""
        return list(self._seconds)

    def spare(self, num_images: int) -> int:
        """How many more pictures may as well be drawn with so many; see `spares`."""
        return self._spares[num_images] if num_images < len(self._spares) else 0

    @torch.inference_mode()
    def draw(self, draws: Sequence[Draw]) -> list[Pixels]:
        """The pictures of each draw, as uint8 [n, H, W, C]."""
        z_dim = self._network.config.z_dim
        z = torch.cat([d.latents(z_dim) for d in draws])
        c = torch.cat([d.conditions(self._network) for d in draws])
        whole, rest = divmod(len(z), MAX_BATCH)
        pieces = self._plans[MAX_BATCH] * whole + self._plans[rest]
        pixels = to_uint8(self._images(z, c, pieces))
        pictures, start = [], 0
        for draw in draws:
            pictures.append(pixels[start : start + len(draw.indices)])
            start += len(draw.indices)
        return pictures

    def _images(self, z: Tensor, c: Tensor, pieces: Sequence[int]) -> Tensor:
        """The images of z [n, z_dim] by pieces of n rows together, or a few more."""
        missing = sum(pieces) - len(z)
        z, c = (F.pad(rows, (*[0, 0] * (rows.dim() - 1), 0, missing)) for rows in (z, c))
        images = [
            self._network(*piece) for piece in zip(z.split(pieces), c.split(pieces), strict=True)
        ]
        return torch.cat(images)[: len(z) - missing]

    @torch.inference_mode()
    def _exact_sizes(self) -> dict[int, float]:
        """The sizes of pieces that give the bits of a row alone, wherever in the piece it is, and
        the seconds that each takes.

        torch takes a kernel for a shape, not for values: one piece of each size is proof.
        """
        z = latents(0, range(MAX_BATCH), self._network.config.z_dim)
        c = self._network.turns(torch.arange(MAX_BATCH))
        alone = self._images(z, c, [1] * MAX_BATCH)
        seconds = {}
        for size in SIZES:
            last = slice(MAX_BATCH - size, None)
            turned = self._images(z[last].flip(0), c[last].flip(0), [size])
            if torch.equal(turned, alone[last].flip(0)):
                seconds[size] = _least_s(partial(self._images, z[last], c[last], [size]))
        return seconds


def _least_s(call: Callable[[], object]) -> float:
    """The seconds of a call, the least of three: other programs disturb what is short."""
    least_s = math.inf
    for _ in range(3):
        started = time.perf_counter()
        call()
        least_s = min(least_s, time.perf_counter() - started)
        if least_s > LONG_S:
            break
    return least_s


def plans(seconds: Mapping[int, float], most: int) -> list[list[int]]:
    """The fastest pieces for 0, 1 ... `most` rows, from the seconds that a piece of a size takes.

    A plan may hold more rows than were asked for: a small network does a row more sooner than a
    piece more.
    """
    found: list[list[int]] = [[]]
    costs = [0.0]
    for n in range(1, most + 1):
        size = min(seconds, key=lambda size: seconds[size] + costs[max(0, n - size)])
        found.append([size, *found[max(0, n - size)]])
        costs.append(seconds[size] + costs[max(0, n - size)])
    return found


def spares(costs: Sequence[float]) -> list[int]:
    """How many more rows may be drawn with 0, 1 ... rows, from what 0, 1 ... rows cost: so many
    that all take at most twice as long; none unless a row then costs at most half."""
    rows = range(len(costs))
    most = [max(m for m in rows if costs[m] <= 2 * cost) for cost in costs]
    return [most[n] - n if most[n] >= 4 * n else 0 for n in rows]


def label_number(
    label: int | str | None, class_names: Sequence[str], num_classes: int, *, pointer: str
) -> int | None:
    """The class that a number or a name means; None stays None.

    Raises InvalidInput: no such class; `pointer` says where in the request it stands.
    """
    if label is None:
        return None
    if label in class_names:
        return class_names.index(str(label))
    number = int(label) if isinstance(label, int) or label.isdecimal() else -1
    if 0 <= number < num_classes:
        return number
    there = (
        f"0 to {num_classes - 1}" + (f" ({', '.join(class_names)})" if class_names else "")
        if num_classes
        else "none"
    )
    raise InvalidInput(
        f"the model has no class {label!r}; there are: {there}",
        errors=[FieldError(pointer=pointer, detail=f"no class {label!r}")],
    )
