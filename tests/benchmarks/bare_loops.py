"""Loops by hand of the same networks, which the product's loop is held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.networks.catalog import build_discriminator, build_generator
from shared.networks.discriminators import Discriminator
from shared.schemas.recipes import GanConfig
from workers.training.augment import NUM_DRAWS, augment
from workers.training.data import TrainingData
from workers.training.guide import Guide
from workers.training.penalties import contrast, matching_penalty, matrices, orthogonality
from workers.training.precision import autocast
from workers.training.ranks import Ranks

Turn = Callable[[], float]
"""Does its steps; returns the seconds that they took."""


def bare(config: GanConfig, data: TrainingData, steps: int) -> Turn:
    """The same step by hand, without anything around it."""
    torch.manual_seed(0)
    G, D = build_generator(config.generator), build_discriminator(config.discriminator)
    ema = [p.detach().clone() for p in G.parameters()]
    adam_g, adam_d = (
        torch.optim.Adam(net.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), fused=True)
        for net, o in ((G, config.optimizer_g), (D, config.optimizer_d))
    )
    n, penalties, p = config.num_generated, config.penalties, torch.tensor(config.augment.p)
    weights = matrices(G)
    guide = Guide(config.discriminator, config.precision, Ranks()) if config.guide.weight else None
    precise = partial(autocast, config.precision, torch.device("cpu"))

    def shown(x: Tensor) -> Tensor:
        if not config.augment.p:
            return x
        return augment(x, torch.rand(len(x), NUM_DRAWS), config.augment, p)

    def step(i: int) -> None:
        for k in range(config.num_d_steps):
            index = torch.randint(0, len(data.images), (config.num_fakes,))
            real = data.images[index].float().div_(127.5).sub_(1)
            real = real.contiguous(memory_format=torch.channels_last)
            c_real, c = _told(config, data, index), _drawn(config, data, n)
            with torch.set_grad_enabled(k + 1 == config.num_d_steps), precise():
                fake = G(torch.randn(n, config.generator.z_dim), _blurred(config, c))
            D.requires_grad_(True)
            repeat = config.num_fakes // n
            x = torch.cat([real, fake.detach().repeat(repeat, 1, 1, 1)])
            both = None if c is None or c_real is None else _joined(c_real, c, repeat)
            due = i % penalties.every == 0
            x.requires_grad_(due and bool(penalties.r1_gamma or penalties.matching_weight))
            if due and both is not None and penalties.matching_weight:
                both.requires_grad_()
            with precise():
                read = D.read(shown(x), None)
            logits = D.judge(read, both)
            real_logits, fake_logits = logits.chunk(2)
            refused = fake_logits
            if config.generator.text_dim:
                other = _drawn(config, data, len(real))
                refused = torch.cat([fake_logits, D.judge(read[: len(real)], other)])
            loss = _loss_d(config, real_logits, refused)
            if due and penalties.r1_gamma:
                (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
                square = gradient.square().sum((1, 2, 3)).mean()
                loss = loss + penalties.r1_gamma * penalties.every * square
            if due and penalties.matching_weight:
                assert both is not None
                weight = penalties.matching_weight * penalties.every
                loss = loss + weight * matching_penalty(real_logits, x, both)
            loss = loss + _misfit(config, D, read[: len(real)], c_real)
            adam_d.zero_grad()
            loss.backward()
            adam_d.step()
        D.requires_grad_(False)
        with precise():
            read = D.read(shown(fake), None)
        loss = _loss_g(config, real_logits.detach(), D.judge(read, c))
        loss = loss + _misfit(config, D, read, c)
        if guide is not None and c is not None:
            loss = loss + config.guide.weight * guide.misfit(fake, c)
        if penalties.orthogonal_weight:
            loss = loss + penalties.orthogonal_weight * orthogonality(weights)
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
        with torch.no_grad():
            torch._foreach_lerp_(ema, list(G.parameters()), 0.002)

    return _turn(step, steps)


def plain(config: GanConfig, data: TrainingData, steps: int) -> Turn:
    """As a first script has it; of presets without text, with one step of D."""
    torch.manual_seed(0)
    G = build_generator(config.generator).to(memory_format=torch.contiguous_format)
    D = build_discriminator(config.discriminator).to(memory_format=torch.contiguous_format)
    adam_g, adam_d = (
        torch.optim.Adam(net.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), foreach=False)
        for net, o in ((G, config.optimizer_g), (D, config.optimizer_d))
    )
    n, penalties = config.num_generated, config.penalties

    def step(i: int) -> None:
        index = torch.randint(0, len(data.images), (config.num_fakes,))
        real = data.images[index].float() / 127.5 - 1
        c_real, c = _told(config, data, index), _drawn(config, data, config.num_fakes)
        fake = G(torch.randn(config.num_fakes, config.generator.z_dim), c)
        penalise = bool(penalties.r1_gamma) and i % penalties.every == 0
        real.requires_grad_(penalise)
        real_logits, fake_logits = D(real, c_real), D(fake, c)
        loss = _loss_d(config, real_logits, fake_logits)
        if penalise:
            for images, logits in ((real, real_logits), (fake, fake_logits)):
                (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
                square = gradient.square().sum((1, 2, 3)).mean()
                loss = loss + penalties.r1_gamma / 2 * penalties.every * square
        adam_d.zero_grad()
        loss.backward()
        adam_d.step()
        c = None if c is None else c[:n]
        logits = D(G(torch.randn(n, config.generator.z_dim), c), c)
        loss = _loss_g(config, D(real, c_real).detach(), logits)
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()

    return _turn(step, steps)


def _told(config: GanConfig, data: TrainingData, index: Tensor) -> Tensor | None:
    if config.generator.text_dim:
        assert data.captions is not None
        return data.captions.vectors[data.captions.rows[index]]
    return data.labels[index] if config.generator.num_classes and data.labels is not None else None


def _drawn(config: GanConfig, data: TrainingData, n: int) -> Tensor | None:
    return _told(config, data, torch.randint(0, len(data.images), (n,)))


def _blurred(config: GanConfig, c: Tensor | None) -> Tensor | None:
    if c is None or not config.generator.text_dim:
        return c
    return c + config.text_noise * torch.randn_like(c)


def _misfit(config: GanConfig, D: Discriminator, read: Tensor, c: Tensor | None) -> Tensor:
    if not config.penalties.contrast_weight:
        return read.new_zeros(())
    assert c is not None
    return config.penalties.contrast_weight * contrast(*D.aligned(read, c), c)


def _joined(c_real: Tensor, c: Tensor, repeat: int) -> Tensor:
    return torch.cat([c_real, *[c] * repeat])


def _loss_d(config: GanConfig, real: Tensor, fake: Tensor) -> Tensor:
    match config.objective:
        case "relativistic":
            return F.softplus(fake - real).mean()
        case "hinge":
            return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        case _:
            return F.softplus(-real).mean() + F.softplus(fake).mean()


def _loss_g(config: GanConfig, real: Tensor, fake: Tensor) -> Tensor:
    match config.objective:
        case "relativistic":
            return F.softplus(real[: len(fake)] - fake).mean()
        case "hinge":
            return -fake.mean()
        case _:
            return F.softplus(-fake).mean()


def _turn(step: Callable[[int], None], steps: int) -> Turn:
    def turn() -> float:
        started = time.perf_counter()
        for i in range(steps):
            step(i)
        return time.perf_counter() - started

    return turn
