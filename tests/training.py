"""Small trainings for tests: pictures drawn by arithmetic, and runs on one or more ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor
from torch.nn import functional as F

from shared.schemas.presets import resolve_preset
from shared.schemas.recipes import GanConfig
from shared.text import TEXT_DIM
from workers.recipes.gan import Gan
from workers.training import process_group
from workers.training.captions import Captions
from workers.training.data import TrainingData
from workers.training.loop import Checkpoint, Grid, Metrics, deterministic_cpu, train
from workers.training.ranks import Ranks

PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "remedies": (
        "lecture",
        {"discriminator": {"dropout": 0.2, "variance_input": True}, "label_flip": 0.1},
    ),
    "with replay": ("modern", {"replay": {"enabled": True}}),
    "augmented": ("modern", {"augment": {"p": 0.5, "target": 0.6, "flip": True}}),
    "residual": (
        "modern-conditional",
        {
            "generator": {"architecture": "residual"},
            "discriminator": {"architecture": "residual"},
            "optimizer_g": {"lr": 3e-4},
            "optimizer_d": {"lr": 3e-4},
        },
    ),
    "wasserstein": (
        "modern",
        {
            "objective": "wasserstein",
            "num_d_steps": 2,
            "penalties": {"r1_gamma": 0, "r2_gamma": 0, "gp_weight": 10, "every": 2},
            "discriminator": {"dropout": 0.2, "variance_input": True, "minibatch_std_group": 0},
            "optimizer_g": {"lr": 3e-4},
        },
    ),
    "packs": (
        "modern",
        {
            "objective": "least_squares",
            "discriminator": {"pac": 2, "minibatch_std_group": 4},
            "penalties": {"gp_weight": 1.0, "lecam_weight": 0.1},
        },
    ),
    "text in the repository": (
        "text-to-image",
        {
            "replay": {"enabled": True, "capacity": 64, "num_new": 48},
            "generator": {"architecture": "residual"},
            "discriminator": {"architecture": "residual"},
            "penalties": {"matching_weight": 0, "contrast_weight": 0, "gp_weight": 1},
            "guide": {"weight": 0},
            "optimizer_g": {"lr": 4e-4},
            "optimizer_d": {"lr": 1e-4},
        },
    ),
    "balanced": (
        "modern-conditional",
        {
            "objective": "hinge",
            "balanced": True,
            "penalties": {"lecam_weight": 0.1},
            "discriminator": {"norm": "spectral"},
            "optimizer_g": {"lr": 3e-4},
            "optimizer_d": {"lr": 3e-4},
        },
    ),
    "micro-batches": (
        "biggan",
        {
            "accumulate": 2,
            "generator": {"norm_group": 16},
            "optimizer_g": {"lr": 2e-5},
            "optimizer_d": {"lr": 2e-5},
        },
    ),
    "bfloat16": (
        "biggan",
        {"precision": "bfloat16", "optimizer_g": {"lr": 2e-5}, "optimizer_d": {"lr": 2e-5}},
    ),
    "bfloat16 with penalties": (
        "modern-conditional",
        {
            "precision": "bfloat16",
            "penalties": {"every": 2},
            "optimizer_g": {"lr": 3e-4},
            "optimizer_d": {"lr": 3e-4},
        },
    ),
}
"""Parts of the recipe that no preset has: a preset and what to override of it."""

CALM: dict[str, dict[str, Any]] = {
    "biggan": {"optimizer_g": {"lr": 2e-5}, "optimizer_d": {"lr": 2e-5}},
    "text-to-image": {"optimizer_g": {"lr": 2e-5}, "optimizer_d": {"lr": 2e-5}},
    "modern-conditional": {"optimizer_g": {"lr": 1.5e-3}, "optimizer_d": {"lr": 1.5e-3}},
}
"""Deep networks and large steps double a difference sooner: at biggan's own rates 1e-4 after 8
rounds is 1 after 24. Slower ones keep within the bounds."""


SQUARE_CLASSES = ["north-west", "north-east", "south-west", "south-east"]


def squares(n: int = 512, size: int = 16, channels: int = 1) -> TrainingData:
    """n pictures of a bright square; the class (of 4) is the quarter that it lies in, and so say
    the captions, every other picture's by two lines."""
    index = torch.arange(n)
    labels = index % 4
    images = torch.zeros(n, channels, size, size, dtype=torch.uint8)
    half, side = size // 2, size // 4
    for i, label in enumerate(labels.tolist()):
        top = (label // 2) * half + i // 4 % (half - side)
        left = (label % 2) * half + i // 32 % (half - side)
        images[i, :, top : top + side, left : left + side] = 200
    texts: list[str | None] = [
        QUARTERS[i % 4] + ("\na square " + QUARTERS[i % 4]) * (i % 2) for i in range(n)
    ]
    captions = Captions.of(texts, spelled, "spelled")
    return TrainingData(images=images, labels=labels, texts=texts, captions=captions)


QUARTERS = ("top left", "top right", "bottom left", "bottom right")


def spelled(sentences: Sequence[str]) -> Tensor:
    """Unit vectors in place of a sentence encoder's: each sentence counts its letters. [n, 384]."""
    counts = torch.zeros(len(sentences), TEXT_DIM)
    for i, sentence in enumerate(sentences):
        for place, letter in enumerate(sentence):
            counts[i, (ord(letter) * 31 + place * 7) % TEXT_DIM] += 1
    return F.normalize(counts, dim=1)


def dirty_squares(n: int = 512, *, seed: int, dirt: float = 30.0) -> TrainingData:
    """`squares` of 8 px under noise: pictures of one kind, no two the same."""
    clean = squares(n, size=8)
    noise = torch.rand(clean.images.shape, generator=torch.Generator().manual_seed(seed))
    return TrainingData((clean.images + dirt * noise).byte(), clean.labels, None)


def tiny(preset: str, **overrides: Any) -> GanConfig:
    """The preset for `squares`, narrow enough for a test."""
    narrow = {
        "generator": {"width": 8}, "discriminator": {"width": 8}, "guide": {"kimg": 0.2},
    }  # fmt: skip
    for key, value in overrides.items():
        narrow[key] = narrow.get(key, {}) | value if isinstance(value, dict) else value
    return resolve_preset(
        preset,
        size=16,
        channels=1,
        num_classes=4,
        has_captions=True,
        overrides=narrow,
        workers=2,
    )


@contextmanager
def as_in_an_attempt() -> Iterator[None]:
    """torch set as an attempt has it. Flushed denormals are a state of the thread: Hypothesis
    refuses to draw floats in it, so they are given back."""
    deterministic_cpu()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def run_rounds(config: GanConfig, ranks: Ranks, rounds: int) -> tuple[Gan, list[dict[str, float]]]:
    """Bootstrap, then so many rounds; the recipe and the means of each round over all ranks."""
    with as_in_an_attempt():
        recipe = Gan(config, squares(), ranks)
        for _ in recipe.bootstrap():
            pass
        history = []
        for step in range(rounds):
            recipe.step(step, progress=step / rounds)
            history.append(recipe.stats())
    return recipe, history


def on_two_ranks(config: GanConfig, rounds: int) -> dict[str, Any]:
    """The same run on two processes with gloo between them: what the first rank saw of it."""
    context = torch.multiprocessing.get_context("spawn")
    address, answers = context.SimpleQueue(), context.SimpleQueue()
    ranks = [
        context.Process(target=_rank, args=(rank, address, config, rounds, answers))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    answer = answers.get()
    for process in ranks:
        process.join(0 if isinstance(answer, str) else 60)
        process.kill()  # it may wait for the one that has failed
    if isinstance(answer, str):
        raise AssertionError(answer)
    return answer


def _rank(rank: int, address: Any, config: GanConfig, rounds: int, answers: Any) -> None:
    try:
        if rank == 0:
            place = process_group.meet("127.0.0.1")
            for _ in range(2):  # each rank takes one
                address.put(place)
        process_group.join(rank, 2, address.get(), torch.device("cpu"))
        recipe, history = run_rounds(config, process_group.ranks(torch.device("cpu")), rounds)
        replay = recipe.replay.state() if recipe.replay else None
        if rank == 0:
            answers.put(
                {
                    "history": history,
                    "replay": {k: v.numpy() for k, v in vars(replay).items()} if replay else None,
                    "networks": {k: v.numpy() for k, v in recipe.networks().items()},
                }
            )
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:
        answers.put(f"rank {rank}: {error!r}")
        raise


def train_steps(
    config: GanConfig, *, start: Checkpoint | None = None, stop_at_step: int | None = None
) -> tuple[Gan, list[Metrics | Grid | Checkpoint], bool]:
    """The loop on one rank, from a checkpoint if one is given; all that it reported."""
    with as_in_an_attempt():
        recipe = Gan(config, squares(), Ranks())
        if start:
            recipe.load_state(start.networks, start.optimizers, start.replay)
        reports: list[Metrics | Grid | Checkpoint] = []
        first = start.step if start else 0
        steps = iter(range(first, 10**9, 4))

        def should_stop() -> bool:
            step = next(steps)
            return stop_at_step is not None and step >= stop_at_step

        complete = train(
            recipe,
            config,
            Ranks(),
            start_step=first,
            should_stop=should_stop,
            report=reports.append,
        )
    return recipe, reports, complete
