"""Pictures: each a pure function of (weights, seed, index, condition, truncation)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from shared.images import Pixels
from shared.networks.generators import Generator
from shared.philox import philox

_Z_STREAM = 0x5A


def latents(seed: int, indices: Sequence[int], z_dim: int, truncation: float = 1.0) -> Tensor:
    """z [n, z_dim]: row i is drawn from the counter (seed, indices[i]) and from nothing else.

    Truncation below 1 draws each entry again while it exceeds 2 * truncation in size (the
    truncation trick, Brock 2018, section 3.1, scaled so that 1 leaves N(0, I) as it is).
    """
    rows = np.empty((len(indices), z_dim), np.float32)
    for row, index in zip(rows, indices, strict=True):
        draw = philox((seed, _Z_STREAM), (index, 0))
        row[:] = draw.standard_normal(z_dim, dtype=np.float32)
        if truncation < 1.0:
            while (outside := np.abs(row) > 2.0 * truncation).any():
                row[outside] = draw.standard_normal(int(outside.sum()), dtype=np.float32)
    return torch.from_numpy(rows)


def to_uint8(images: Tensor) -> Pixels:
    """Images [N, C, H, W] in [-1, 1] as uint8 [N, H, W, C]."""
    pixels = images.mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    array: Pixels = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


@torch.inference_mode()
def sample(
    generator: Generator,
    *,
    seed: int,
    indices: Sequence[int],
    labels: Sequence[int] | None = None,
    truncation: float = 1.0,
) -> Pixels:
    """Pictures number `indices` of `seed`, as uint8 [n, H, W, C], from a generator in eval mode.

    `labels`: a class per index, or an example's number; without them they take turns.
    """
    device = next(generator.parameters()).device
    z = latents(seed, indices, generator.config.z_dim, truncation).to(device)
    shown = torch.tensor(indices if labels is None else labels, device=device)
    return to_uint8(generator(z, generator.turns(shown)))
