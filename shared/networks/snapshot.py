"""Networks to and from safetensors: weights are data, never code."""

from __future__ import annotations

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from shared.errors import CorruptObject
from shared.networks.catalog import build_generator
from shared.networks.generators import Generator
from shared.schemas.models import SnapshotConfig


def to_bytes(network: nn.Module) -> bytes:
    """The state of a network as safetensors."""
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    )


def load(weights: bytes, config: SnapshotConfig) -> Generator:
    """The generator that `config` describes, with these weights, in eval mode, without gradients.

    Raises:
        CorruptObject: the weights are no safetensors or do not fit the configuration.
    """
    network = build_generator(config.generator)
    try:
        network.load_state_dict(safetensors.torch.load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise CorruptObject(f"the weights do not fit the configuration: {error}") from error
    network.eval().requires_grad_(False)
    return network
