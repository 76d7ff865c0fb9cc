"""Who judges whether a picture fits a caption: two towers that meet in one space.

R-precision (Xu 2018, section 4): how often a picture's own caption is the nearest of 100. The
image tower is small and trained here, contrastively, on real pictures (Radford 2021); the text
tower is the sentence encoder with a linear layer behind it.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.schemas.recipes import AugmentConfig
from workers.training.augment import NUM_DRAWS, augment
from workers.training.data import TrainingData
from workers.training.reals import to_float

SIDE = 32
DIM, TEMPERATURE = 128, 0.07
BATCH, LR, WEIGHT_DECAY = 128, 3e-3, 0.1
WIDTHS = (3, 32, 64, 128, 128)
ONE_OF = 100
CHANGES = AugmentConfig(flip=True, shift=0.1, cutout=0.0, colour=0.2)


class Judge(nn.Module):
    """Pictures uint8 [n, 3, H, W], looked at in 32 px, and sentences' vectors [n, dim] to unit
    vectors [n, 128]."""

    def __init__(self, text_dim: int) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
                nn.MaxPool2d(2),
            )
            for before, after in itertools.pairwise(WIDTHS)
        ]  # fmt: skip
        head = nn.Flatten(), nn.Linear(WIDTHS[-1] * 4, DIM)
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(SIDE), *blocks, *head)
        self.text = nn.Linear(text_dim, DIM)

    @torch.no_grad()
    def fits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Cosines of pictures with sentences: [num_images, num_texts]."""
        seen = torch.cat([self.image(to_float(part)) for part in images.split(500)])
        return F.normalize(seen, dim=1) @ F.normalize(self.text(texts), dim=1).T


def train_judge(data: TrainingData, steps: int, *, seed: int) -> Judge:
    """Contrastive training on pictures of one caption each; no caption is twice in a batch."""
    assert data.captions is not None
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    judge = Judge(data.captions.vectors.shape[1])
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=steps)
    rows = data.captions.rows.numpy()
    for _ in range(steps):
        order = draw.permutation(len(rows))
        _, first = np.unique(rows[order], return_index=True)
        chosen = torch.from_numpy(order[draw.permutation(first)[:BATCH]])
        draws = torch.from_numpy(draw.random((len(chosen), NUM_DRAWS), np.float32))
        shown = augment(to_float(data.images[chosen]), draws, CHANGES, torch.tensor(0.8))
        images = F.normalize(judge.image(shown), dim=1)
        texts = F.normalize(judge.text(data.captions.vectors[data.captions.rows[chosen]]), dim=1)
        logits = images @ texts.T / TEMPERATURE
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


def r_precision(judge: Judge, images: Tensor, rows: Tensor, texts: Tensor, *, seed: int) -> float:
    """The share of pictures uint8 [n, 3, H, W] whose own caption, texts[rows[i]], is nearest among
    it and 99 others of texts [m, dim] drawn at random."""
    fits = judge.fits(images, texts)
    own = fits.gather(1, rows[:, None])
    draw = np.random.default_rng(seed)
    right = 0
    for i, row in enumerate(rows.tolist()):
        others = draw.choice(len(texts) - 1, ONE_OF - 1, replace=False)
        others += others >= row
        right += bool((fits[i, torch.from_numpy(others)] < own[i]).all())
    return right / len(rows)
