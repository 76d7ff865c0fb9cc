"""What a network is told beside z or a picture: a class, or a sentence's vector."""

from __future__ import annotations

from torch import nn

from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig


def condition_embedding(
    config: GeneratorConfig | DiscriminatorConfig, dim: int
) -> nn.Embedding | nn.Linear | None:
    """What makes `dim` numbers of a class (int64 [n]) or of a sentence's vector
    (float32 [n, text_dim]); None for a network without conditions."""
    if config.num_classes:
        return nn.Embedding(config.num_classes, dim)
    return nn.Linear(config.text_dim, dim, bias=False) if config.text_dim else None
