"""Inception with weights that are drawn, since the real ones cannot be shipped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

CONVOLUTIONS = Path(__file__).parent / "unit" / "inception_convolutions.txt"
"""A line each: its name in torch-fidelity's file of the weights, and its weight's shape."""


def drawn_tensors() -> dict[str, Tensor]:
    """Tensors of the official file's names and shapes; activations neither vanish nor explode."""
    # RandomState: numpy promises that its numbers stay the same. A prime many of them take turns.
    numbers = np.random.RandomState(0).randn(99_991).astype(np.float32)

    def drawn(*shape: int) -> NDArray[np.float32]:
        return np.resize(np.roll(numbers, math.prod(shape)), shape)

    tensors = {"fc.weight": drawn(1008, 2048) * 0.05, "fc.bias": drawn(1008)}
    for line in CONVOLUTIONS.read_text().splitlines():
        name, *sizes = line.split()
        width, *of_each = (int(size) for size in sizes)
        tensors[f"{name}.conv.weight"] = drawn(width, *of_each) * math.sqrt(2 / math.prod(of_each))
        tensors[f"{name}.bn.weight"] = 1 + 0.2 * drawn(width)
        tensors[f"{name}.bn.bias"] = -0.1 * drawn(width)
        tensors[f"{name}.bn.running_mean"] = 0.1 * drawn(width)
        tensors[f"{name}.bn.running_var"] = np.exp(0.2 * drawn(width))
    return {name: torch.from_numpy(values) for name, values in tensors.items()}


def write_drawn(folder: Path) -> Path:
    """`drawn_tensors` as a file of this folder."""
    path = folder / "inception.safetensors"
    save_file(drawn_tensors(), path)
    return path
