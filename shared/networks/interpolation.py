"""Pictures on the way from one z to another."""

from __future__ import annotations

import torch
from torch import Tensor

from shared.images import Pixels
from shared.networks.generators import Generator
from shared.networks.sampling import to_uint8

MIN_SINE = 1e-6


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points [num, z_dim] at t [num] in [0, 1] on the arc from `a` to `b`, both [z_dim].

    Spherical interpolation (Shoemake 1985, section 3.3): on a straight line between two normal z
    the middle is too near to 0 for a z that the generator was trained on (White 2016, section 2.1).
    Where no one arc is the shortest (one direction, opposite ones) it is the line nevertheless.
    """
    a, b, t = a.double(), b.double(), t.double()[:, None]
    cosine = torch.dot(a, b) / (a.norm() * b.norm()).clamp_min(torch.finfo().tiny)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    points: Tensor = (
        torch.lerp(a, b, t)
        if sine < MIN_SINE
        else (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine
    )
    return points.float()


@torch.no_grad()
def interpolate(generator: Generator, z_a: Tensor, z_b: Tensor, *, label: int, num: int) -> Pixels:
    """`num` pictures from that of `z_a` to that of `z_b`, both [z_dim], all of one class (0 for a
    generator without), as uint8 [num, H, W, C]."""
    t = torch.linspace(0, 1, num, device=z_a.device)
    c = torch.full((num,), label, device=z_a.device)
    return to_uint8(generator(slerp(z_a, z_b, t), c))
