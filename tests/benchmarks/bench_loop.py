"""The training loop against bare loops of the same networks, and what its parts cost.

    .venv/bin/python -m tests.benchmarks.bench_loop

Prints images a second and ratios, all from one run on one thread: the variants take turns, each
turn long enough for the clock, and medians are compared.

- `bare`: the same step by hand, with the same bundle (channels last, one D pass, the fakes' graph
  reused, fused Adam), without repository, counters, statistics and reports.
- `plain`: as a first script has it: NCHW, Adam as it comes, separate passes, fakes made twice, D's
  gradients run on into G, and G's into D.

`replay/step` is the share of a step's time that is spent inside the repository.

The presets without a bare twin are held against modern-conditional.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.networks.catalog import build_discriminator, build_generator
from shared.schemas.presets import resolve_preset
from shared.schemas.recipes import GanConfig
from tests.benchmarks.table import print_table
from tests.training import squares
from workers.recipes.gan import Gan
from workers.training.data import TrainingData
from workers.training.loop import AGREE_EVERY, Checkpoint, Grid, Metrics, deterministic_cpu, train
from workers.training.ranks import Ranks

TURNS, STEPS = 5, 24
Turn = Callable[[], float]
"""Does STEPS steps; returns the seconds that they took."""


def config_of(preset: str, **overrides: object) -> GanConfig:
    """The preset at 32 px with ten classes; so many steps that a turn never ends the run."""
    return resolve_preset(
        preset, size=32, channels=1, num_classes=10, overrides={"kimg": 1e6, **overrides}
    )


def data_of() -> TrainingData:
    """2,048 pictures of squares, ten classes."""
    data = squares(2048, size=32)
    return TrainingData(images=data.images, labels=torch.arange(2048) % 10, texts=None)


def elmyr(config: GanConfig, replay_s: list[float] | None = None) -> Turn:
    """STEPS of the product's loop, with its reports, from where the last turn stopped.

    The clock runs from the loop's first question whether to stop to its last, so that the
    checkpoint which ends each turn is left out: in a run it comes every 390 steps, not every 24.
    `replay_s` gets the seconds of each call of the repository.
    """
    recipe = Gan(config, data_of(), Ranks())
    if replay_s is not None and recipe.replay:
        recipe.replay.add = _timed(recipe.replay.add, replay_s)
    at = [AGREE_EVERY]

    def turn() -> float:
        asked: list[float] = []

        def should_stop() -> bool:
            asked.append(time.perf_counter())
            return len(asked) > STEPS // AGREE_EVERY

        def report(_: Metrics | Grid | Checkpoint) -> None:
            pass

        train(recipe, config, Ranks(), start_step=at[0], should_stop=should_stop, report=report)
        at[0] += STEPS
        return asked[-1] - asked[0]

    return turn


def _timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*args: object) -> Any:
        started = time.perf_counter()
        answer = call(*args)
        seconds.append(time.perf_counter() - started)
        return answer

    return timed


def bare(config: GanConfig) -> Turn:
    """The same step by hand, without anything around it."""
    data = data_of()
    torch.manual_seed(0)
    G, D = build_generator(config.generator), build_discriminator(config.discriminator)
    ema = [p.detach().clone() for p in G.parameters()]
    o = config.optimizer_g
    adam_g, adam_d = (
        torch.optim.Adam(net.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), fused=True)
        for net in (G, D)
    )
    n, penalties = config.num_generated, config.penalties
    conditional = bool(config.generator.num_classes)

    def step(i: int) -> None:
        index = torch.randint(0, len(data.images), (config.num_fakes,))
        real = data.images[index].float().div_(127.5).sub_(1)
        real = real.contiguous(memory_format=torch.channels_last)
        c_real = data.labels[index] if conditional else None
        c = torch.randint(0, 10, (n,)) if conditional else None
        fake = G(torch.randn(n, config.generator.z_dim), c)
        D.requires_grad_(True)
        repeat = config.num_fakes // n
        x = torch.cat([real, fake.detach().repeat(repeat, 1, 1, 1)])
        both = torch.cat([c_real, c.repeat(repeat)]) if conditional else None
        penalise = bool(penalties.r1_gamma) and i % penalties.every == 0
        x.requires_grad_(penalise)
        logits = D(x, both)
        real_logits, fake_logits = logits.chunk(2)
        loss = _loss_d(config, real_logits, fake_logits)
        if penalise:
            (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
            square = gradient.square().sum((1, 2, 3)).mean()
            loss = loss + penalties.r1_gamma * penalties.every * square
        adam_d.zero_grad()
        loss.backward()
        adam_d.step()
        D.requires_grad_(False)
        loss = _loss_g(config, real_logits.detach(), D(fake, c))
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
        with torch.no_grad():
            torch._foreach_lerp_(ema, list(G.parameters()), 0.002)

    return _turn(step)


def plain(config: GanConfig) -> Turn:
    """As a first script has it."""
    data = data_of()
    torch.manual_seed(0)
    G = build_generator(config.generator).to(memory_format=torch.contiguous_format)
    D = build_discriminator(config.discriminator).to(memory_format=torch.contiguous_format)
    o = config.optimizer_g
    adam_g, adam_d = (
        torch.optim.Adam(net.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), foreach=False)
        for net in (G, D)
    )
    penalties = config.penalties
    conditional = bool(config.generator.num_classes)

    def step(i: int) -> None:
        index = torch.randint(0, len(data.images), (config.num_fakes,))
        real = data.images[index].float() / 127.5 - 1
        c_real = data.labels[index] if conditional else None
        z = torch.randn(config.num_fakes, config.generator.z_dim)
        c = torch.randint(0, 10, (config.num_fakes,)) if conditional else None
        fake = G(z, c)
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
        fake = G(
            torch.randn(config.num_generated, config.generator.z_dim),
            c[: config.num_generated] if conditional else None,
        )
        logits = D(fake, c[: config.num_generated] if conditional else None)
        loss = _loss_g(config, D(real, c_real).detach(), logits)
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()

    return _turn(step)


def _loss_d(config: GanConfig, real: Tensor, fake: Tensor) -> Tensor:
    if config.objective == "relativistic":
        return F.softplus(fake - real).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _loss_g(config: GanConfig, real: Tensor, fake: Tensor) -> Tensor:
    if config.objective == "relativistic":
        return F.softplus(real[: len(fake)] - fake).mean()
    return F.softplus(-fake).mean()


def _turn(step: Callable[[int], None]) -> Turn:
    def turn() -> float:
        started = time.perf_counter()
        for i in range(STEPS):
            step(i)
        return time.perf_counter() - started

    return turn


def measure(turns: dict[str, Turn]) -> dict[str, float]:
    """Median seconds of a turn of each, taken in turn after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for i in range(TURNS + 1):
        for name, turn in turns.items():
            seconds = turn()
            if i:
                taken[name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Compare each preset."""
    deterministic_cpu()
    _compare_with_bare()
    _compare_with_each_other()


def _compare_with_bare() -> None:
    """With and without the repository."""
    rows = []
    for preset in ("lecture", "modern", "modern-conditional"):
        config = config_of(preset, replay={"enabled": True})
        without = config_of(preset, replay={"enabled": False}, num_generated=config.num_fakes)
        replay_s: list[float] = []
        seconds = measure(
            {
                "elmyr": elmyr(config, replay_s),
                "bare": bare(config),
                "plain": plain(config),
                "without replay": elmyr(without),
                "bare without": bare(without),
            }
        )
        img_per_s = {name: STEPS * config.num_fakes / s for name, s in seconds.items()}
        rows.append(
            [
                preset,
                *(f"{img_per_s[name]:.0f}" for name in ("elmyr", "bare", "plain")),
                f"{img_per_s['elmyr'] / img_per_s['bare']:.3f}",
                f"{img_per_s['elmyr'] / img_per_s['plain']:.2f}",
                f"{img_per_s['without replay'] / img_per_s['bare without']:.3f}",
                f"{statistics.median(replay_s) * STEPS / seconds['elmyr']:.1%}",
            ]
        )
    print_table(
        [
            *("preset", "elmyr img/s", "bare", "plain", "elmyr/bare", "elmyr/plain"),
            *("no replay/bare", "replay/step"),
        ],
        rows,
    )


def _compare_with_each_other() -> None:
    configs = {preset: config_of(preset) for preset in ("modern-conditional", "dcgan", "biggan")}
    seconds = measure({preset: elmyr(config) for preset, config in configs.items()})
    img_per_s = {
        preset: STEPS * config.images_per_round / seconds[preset]
        for preset, config in configs.items()
    }
    print_table(
        ["preset", "elmyr img/s", "of modern-conditional"],
        [
            [preset, f"{value:.0f}", f"{value / img_per_s['modern-conditional']:.2f}"]
            for preset, value in img_per_s.items()
        ],
    )


if __name__ == "__main__":
    main()
