"""Inception's weights, from a safetensors file that an operator converted (docs/evaluation.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from shared.errors import InvalidInput
from workers.evaluation.inception import Inception

NAMED = 4
"""Wrong tensors of a file that an error names."""
COUNTER = "num_batches_tracked"
"""torch adds it to each BatchNorm: the official file has none, and no figure depends on it."""


def load_inception(path: Path) -> tuple[Inception, str]:
    """The network with the tensors of a safetensors file, and their digest (hex), which does not
    depend on their order in the file.

    Raises InvalidInput: the file cannot be read, or tensors are missing, too many or of another
    form; the first of them are named.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"ELMYR_INCEPTION_WEIGHTS: cannot read {path}: {error}") from error
    network = Inception()
    found, wanted = _forms(tensors), _forms(network.state_dict())
    wrong = [
        f"{name} is {found.get(name, 'missing')}, not {wanted.get(name, 'known')}"
        for name in sorted(found | wanted)
        if found.get(name) != wanted.get(name)
    ]
    if wrong:
        raise InvalidInput(
            f"ELMYR_INCEPTION_WEIGHTS: {path} does not hold Inception-v3 of 2015-12-05, "
            f"{len(wrong)} tensors differ: {'; '.join(wrong[:NAMED])}"
        )
    network.load_state_dict({name: tensors[name] for name in found})
    network.eval().requires_grad_(False)
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name} {found[name]}\n".encode())
        digest.update(tensors[name].numpy().data)
    return network, digest.hexdigest()


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {
        name: f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        for name, tensor in tensors.items()
        if not name.endswith(COUNTER)
    }
