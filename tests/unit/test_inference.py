"""A specialised generator is the same function."""

from __future__ import annotations

import copy

import pytest
import torch

from services.serving.inference import specialise
from shared.networks.catalog import GENERATORS
from shared.networks.layers import GroupwiseNorm
from shared.schemas.networks import GeneratorConfig
from tests.forgers import forger


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("architecture", GENERATORS)
def test_it_draws_the_same_pictures(
    architecture: str, size: int, channels: int, num_classes: int
) -> None:
    config = GeneratorConfig(
        architecture=architecture,
        size=size,
        channels=channels,
        num_classes=num_classes,
        width=8,
    )
    plain = forger(config)
    for norm in (module for module in plain.modules() if isinstance(module, GroupwiseNorm)):
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    special = copy.deepcopy(plain)
    specialise(special)
    z, c = torch.randn(7, config.z_dim), torch.arange(7) % 5 if num_classes else None
    with torch.inference_mode():
        assert torch.allclose(special(z, c), plain(z, c), atol=1e-5)
