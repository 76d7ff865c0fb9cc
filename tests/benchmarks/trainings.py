"""Whole trainings without the services around them, for benchmarks of quality."""

from __future__ import annotations

import gzip
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor
from torch.multiprocessing.spawn import start_processes
from torch.nn import functional as F

from services.local import sources
from shared import idx
from shared.networks.catalog import build_generator
from shared.networks.generators import Generator
from shared.schemas.recipes import GanConfig
from workers.evaluation.yardstick import Yardstick, build_yardstick
from workers.recipes.gan import Gan
from workers.training.data import TrainingData
from workers.training.loop import Checkpoint, Collapse, Grid, Metrics, deterministic_cpu, train
from workers.training.ranks import Ranks

SIZE = 32
NUM_CLASSES = 10
EXAMPLE = Path("examples/fashion-mnist")


def garments(folder: Path, split: str) -> TrainingData:
    """Pictures and labels of a folder of Fashion-MNIST's files, padded to 32 px."""
    images, labels = (
        _read(folder / f"{split}-{what}-ubyte") for what in ("images-idx3", "labels-idx1")
    )
    pad = (SIZE - images.shape[-1]) // 2
    return TrainingData(F.pad(images[:, None], (pad,) * 4), labels.long(), None)


def shipped() -> TrainingData:
    """The 10,000 pictures that come with the repository."""
    return garments(EXAMPLE, "t10k")


def fetched() -> tuple[TrainingData, TrainingData]:
    """Fashion-MNIST's training and test pictures, from whichever source is in reach."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = sources.fetch("fashion-mnist", Path(scratch)).path
        return garments(folder, "train"), garments(folder, "t10k")


def _read(path: Path) -> Tensor:
    data = path.read_bytes() if path.exists() else gzip.decompress(_packed(path).read_bytes())
    return torch.from_numpy(idx.decode(data).copy())


def _packed(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


def yardstick_arrays(yardstick: Yardstick) -> dict[str, Any]:
    """A yardstick's weights, to be handed to another process."""
    return {name: tensor.numpy() for name, tensor in yardstick.state_dict().items()}


def load_yardstick(arrays: dict[str, Any]) -> Yardstick:
    """The yardstick of these weights."""
    yardstick = build_yardstick(size=SIZE, channels=1, num_classes=NUM_CLASSES)
    yardstick.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    yardstick.eval().requires_grad_(False)
    return yardstick


@dataclass(frozen=True)
class Trained:
    """A finished run: G_ema, the seconds of its loop, and its reports but for the checkpoints."""

    generator: Generator
    seconds: float
    reports: list[Metrics | Grid | Collapse]


def train_whole(config: GanConfig, data: TrainingData, *, workers: int = 1) -> Trained:
    """Train in processes of one thread each, gloo between them; raises what a process raised."""
    answers = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (workers, folder, config, data, answers)
        ranks = start_processes(_rank, arguments, nprocs=workers, join=False)
        while answers.empty():
            ranks.join(timeout=1)
        weights, seconds, reports = answers.get()
        while not ranks.join():  # it returns when one more has ended
            pass
    return Trained(loaded(config, weights), seconds, reports)


def loaded(config: GanConfig, weights: dict[str, Any]) -> Generator:
    """G with these weights (arrays), ready to draw."""
    generator = build_generator(config.generator)
    generator.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    generator.eval().requires_grad_(False)
    return generator


def _rank(
    rank: int, size: int, folder: str, config: GanConfig, data: TrainingData, answers: Any
) -> None:
    deterministic_cpu()
    if size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
        )
    ranks = Ranks(rank, size)
    recipe = Gan(config, data, ranks)
    reports: list[Metrics | Grid | Collapse] = []

    def report(what: Metrics | Grid | Checkpoint | Collapse) -> None:
        if not isinstance(what, Checkpoint):
            reports.append(what)

    began = time.perf_counter()
    train(recipe, config, ranks, start_step=0, should_stop=lambda: False, report=report)
    seconds = time.perf_counter() - began
    if rank == 0:
        weights = {name: tensor.numpy() for name, tensor in recipe.G_ema.state_dict().items()}
        answers.put((weights, seconds, reports))
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()
