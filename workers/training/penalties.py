"""What D (and G) pay for beside their objective: gradient penalties and other regularisers.

Each returns one number; the weights come from `PenaltyConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared.networks.layers import GroupwiseNorm
from shared.schemas.recipes import CONTRAST_GROUP

MATCHING_POWER = 6
"""p of the matching-aware penalty: small gradients are free, steep ones are not (Tao 2020)."""

CONTRAST_TEMPERATURE = 0.1
"""A usual one; others were not tried."""

LECAM_MOMENTUM = 0.01
"""How far each step moves the means that LeCam remembers (a decay of 0.99, Tseng 2021)."""


def gradient_penalty(logits: Tensor, images: Tensor, gamma: Tensor) -> Tensor:
    """Half the squared gradient of each logit by its images, weighted and averaged
    (Mescheder 2018): mean over i of gamma_i / 2 * |d logits / d images_i|^2.

    logits [n] computed from images [n * pac, C, H, W] with gradient; gamma [n].
    """
    return (gamma * _squared_gradients(logits, images)).mean() / 2


def one_centred_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """How far each logit's gradient is from length 1, squared and averaged (Gulrajani 2017,
    section 4): mean over i of (|d logits / d images_i| - 1)^2.

    logits [n] computed from images [n * pac, C, H, W] with gradient.
    """
    lengths = _root(_squared_gradients(logits, images))
    return (lengths - 1).square().mean()


def matching_penalty(logits: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """How steep D is around real pictures with their own text, so that G is led there (Tao 2020,
    section 3.3): mean over i of (|d logits / d images_i| + |d logits / d texts_i|)^6.

    logits [n] computed from the first n of images [m, C, H, W] and of texts [m, text_dim], both
    with gradient.
    """
    gradients = torch.autograd.grad(logits.sum(), (images, texts), create_graph=True)
    lengths = [_root(g[: len(logits)].flatten(1).square().sum(1)) for g in gradients]
    return torch.stack(lengths).sum(0).pow(MATCHING_POWER).mean()


def _root(squares: Tensor) -> Tensor:
    """Which has a derivative at 0, too."""
    return (squares + 1e-12).sqrt()


def _squared_gradients(logits: Tensor, images: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).view(len(logits), -1).sum(1)


def interpolated(real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    """Points between what is real and what is fake, both [n * pac, ...], with one t in [0, 1) for
    each of n packs (Gulrajani 2017, algorithm 1)."""
    share = t.repeat_interleave(len(real) // len(t))
    return torch.lerp(real, fake, share.view(-1, *[1] * (real.dim() - 1)))


def lecam(real: Tensor, fake: Tensor, means: Tensor) -> Tensor:
    """Squared distances of the reals' logits [n] from the mean of the fakes', and the other way
    round (Tseng 2021, equation 4). means [2]: of the logits of reals and of fakes so far."""
    return (real - means[1]).square().mean() + (fake - means[0]).square().mean()


def contrast(pictures: Tensor, texts: Tensor, c: Tensor) -> Tensor:
    """How hard it is to find each picture's text among those of its CONTRAST_GROUP neighbours, and
    each text's picture: cross-entropy of their cosines (the image-text loss of XMC-GAN, Zhang 2021,
    section 4.1, both ways).

    pictures, texts [n, numbers]: unit vectors; c [n, text_dim]: equal rows are the same text, which
    is right for all its pictures.
    """
    pictures, texts, c = (t.unflatten(0, (-1, CONTRAST_GROUP)) for t in (pictures, texts, c))
    logits = pictures @ texts.mT / CONTRAST_TEMPERATURE
    wrong = (c[:, :, None] != c[:, None]).any(-1)
    right = logits.masked_fill(wrong, -torch.inf)
    surprises = [logits.logsumexp(dim) - right.logsumexp(dim) for dim in (1, 2)]
    return torch.stack(surprises).mean()


def matrices(network: nn.Module) -> list[Tensor]:
    """The weights of a network's layers; not the tables of its norms and embeddings."""
    tables = (nn.Embedding, GroupwiseNorm)
    return [
        parameter
        for module in network.modules()
        for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1 and not isinstance(module, tables)
    ]


def orthogonality(weights: Sequence[Tensor]) -> Tensor:
    """How far the rows of each weight are from orthogonal to each other, whatever their lengths:
    the sum over matrices W of |W W^T * (1 - I)|^2 (Brock 2018, equation 3)."""
    return torch.stack([_off_diagonal(weight) for weight in weights]).sum()


def _off_diagonal(weight: Tensor) -> Tensor:
    rows = weight.flatten(1)
    return (rows @ rows.T).fill_diagonal_(0.0).square().sum()
