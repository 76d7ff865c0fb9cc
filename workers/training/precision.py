"""In which precision G and D work."""

from __future__ import annotations

import torch

from shared.schemas.recipes import Precision


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A block for the forward pass of a network. Its weights are cast as they are used; what comes
    out of G and D is float32 all the same, and gradients are as exact as what they belong to."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
